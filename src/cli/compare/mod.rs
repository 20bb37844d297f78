//! `dip compare`: compares training systems in virtual time, on the same cost model, memory limit and data.

mod contest;
mod figures;
mod result;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use dip::emulate::report::charts;
use dip::plan::Seconds;

use super::files::write_whole;
use super::inputs;
use super::plan::seconds;
use contest::{Contest, Contestant};
use figures::Inputs;
use result::Comparison;

/// Most batches whose mean is a point of a figure.
const FIGURE_ITERATIONS: u64 = 5;

#[derive(Debug, Args)]
pub struct Compare {
    /// Model presets, model TOMLs, or Hugging Face config.json files or folders
    #[arg(long, value_delimiter = ',', default_value = "vlm-s,vlm-m,vlm-l,t2v-s,t2v-l")]
    models: Vec<String>,
    /// Systems: megatron, nnscaler, optimus, fsdp, dip, or a schedule of `dip presets schedules`
    #[arg(long, value_delimiter = ',', default_value = "megatron,nnscaler,optimus,dip")]
    schedules: Vec<String>,
    /// A cluster preset or a cluster TOML
    #[arg(long, default_value = "h800")]
    cluster: String,
    /// Batches of each model
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    iterations: u64,
    /// Seed of the batches and the searches
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Time of one search, such as 2s or 500ms
    #[arg(long, default_value = "2s", value_parser = seconds)]
    budget: Seconds,
    /// Iterations of one search, instead of a time: reproducible
    #[arg(long, value_name = "N")]
    iterations_budget: Option<u64>,
    /// Threads of a search; by default half of the cores
    #[arg(long)]
    threads: Option<usize>,
    /// Also let systems offload that choose their memory strategies before training; their papers do not
    #[arg(long)]
    offload_baselines: bool,
    /// Write the results of every iteration to this JSON file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the table and the figures to this HTML page
    #[arg(long)]
    html: Option<PathBuf>,
    /// Figures of the page: all, or some of average, dynamic, ladder, sizes, memory, search, grid, large
    #[arg(long, value_delimiter = ',', default_value = "average", requires = "html")]
    figures: Vec<String>,
}

impl Compare {
    pub fn run(&self) -> Result<ExitCode> {
        let chosen = figures::chosen(&self.figures)?;
        let systems = Contestant::all(&self.schedules)?;
        let cluster = inputs::cluster(&self.cluster)?;
        let models = self.models.iter().map(|m| inputs::model(m)).collect::<Result<Vec<_>>>()?;
        let contest = Contest {
            cluster: &cluster,
            seed: self.seed,
            budget: match self.iterations_budget {
                Some(n) => dip::plan::Budget::Iterations(n),
                None => dip::plan::Budget::Time(self.budget),
            },
            threads: self.threads,
            offload: self.offload_baselines,
        };
        let mut text = String::new();
        let mut comparison = Comparison::new(&cluster, self.seed);
        for model in &models {
            let batches = dip::emulate::sample(model, self.iterations, self.seed, None);
            let found = contest.run(model, &systems, &batches)?;
            let table = table::table(&found);
            print!("{table}");
            text.push_str(&table);
            comparison.models.push(found);
        }
        if let Some(path) = &self.html {
            let inputs = Inputs {
                contest: &contest,
                systems: &systems,
                results: &comparison.models,
                iterations: self.iterations.min(FIGURE_ITERATIONS),
            };
            let mut drawn = Vec::new();
            let mut data = Vec::new();
            for name in chosen {
                let (figure, values) =
                    figures::draw(name, &inputs).with_context(|| format!("figure {name:?}"))?;
                drawn.push(figure);
                data.push((name, values));
            }
            comparison.figures.extend(data);
            let title = format!("Systems on {}", cluster.name);
            write_whole(path, charts::page(&title, &text, &drawn).as_bytes())?;
        }
        if let Some(path) = &self.json {
            write_whole(path, comparison.to_json().as_bytes())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
