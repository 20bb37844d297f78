//! `dip compare`: compares training systems in virtual time, on the same cost model, memory limit and data.

mod contest;
mod figures;
mod result;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use dip::emulate::report::charts;
use dip::plan::ModelSpec;

use super::files::write_whole;
use super::inputs;
use super::noise::NoiseArgs;
use super::output::JsonOutput;
use super::search::SearchArgs;
use super::sizing::{self, Sizing};
use super::terminal;
use contest::{Contest, Contestant};
use figures::Inputs;
pub use result::Comparison;

pub use table::aligned;

/// The models of the paper.
const DEFAULT_MODELS: [&str; 5] = ["vlm-s", "vlm-m", "vlm-l", "t2v-s", "t2v-l"];

/// Most batches whose mean is a point of a figure.
const FIGURE_ITERATIONS: u64 = 5;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dip compare --models vlm-s,t2v-s --iterations 5
  dip compare --models vlm-m --schedules megatron,dip --html page.html --json=page.json")]
pub struct Compare {
    /// Model presets, model TOMLs, or Hugging Face config.json files or folders; figures of one model take the first
    #[arg(long, value_delimiter = ',', default_values = DEFAULT_MODELS)]
    models: Vec<String>,
    #[command(flatten)]
    size: Sizing,
    /// Systems: megatron, nnscaler, optimus, megatron-mimo, entrain, dynapipe, fsdp, dip, or a schedule of `dip presets schedules`
    #[arg(long, value_delimiter = ',', default_value = "megatron,nnscaler,optimus,dip")]
    schedules: Vec<String>,
    /// A cluster preset or a cluster TOML
    #[arg(long, default_value = "h800")]
    cluster: String,
    /// Batches of each model
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    iterations: u64,
    #[command(flatten)]
    search: SearchArgs,
    #[command(flatten)]
    noise: NoiseArgs,
    /// Also let systems offload that choose their memory strategies before training; their papers do not
    #[arg(long)]
    offload_baselines: bool,
    /// Write the table and the figures to this HTML page
    #[arg(long)]
    html: Option<PathBuf>,
    /// Figures of the page: all, or some of average, dynamic, ladder, sizes, memory, search, grid, large. Each is added when it is
    /// done; with default settings most take minutes, grid, ladder and large longest
    #[arg(long, value_delimiter = ',', default_value = "average", requires = "html")]
    figures: Vec<String>,
    #[command(flatten)]
    json: JsonOutput,
}

impl Compare {
    /// The model of this name, at the size of the command line.
    fn model(&self, name: &str) -> Result<ModelSpec> {
        let mut model = inputs::model(name)?;
        self.size.apply(&mut model).with_context(|| name.to_owned())?;
        Ok(model)
    }

    /// True if the models are not the default ones.
    fn is_given(&self) -> bool {
        self.models != DEFAULT_MODELS
    }

    pub fn run(&self) -> Result<ExitCode> {
        let chosen = figures::chosen(&self.figures)?;
        let systems = Contestant::all(&self.schedules)?;
        let cluster = inputs::cluster(&self.cluster)?;
        let models = self.models.iter().map(|m| self.model(m)).collect::<Result<Vec<_>>>()?;
        models.iter().for_each(|model| sizing::warn(model, &cluster));
        let contest = Contest {
            cluster: &cluster,
            search: self.search,
            noise: self.noise,
            offload: self.offload_baselines,
        };
        let mut text = String::new();
        let mut comparison = Comparison::new(&cluster, self.search.seed);
        for model in &models {
            let batches = dip::emulate::sample(model, self.iterations, self.search.seed, None);
            let found = contest.run(model, &systems, &batches)?;
            let table = table::table(&found);
            if !self.json.is_alone() {
                print!("{table}");
            }
            text.push_str(&table);
            comparison.models.push(found);
        }
        if let Some(path) = &self.html {
            let inputs = Inputs {
                contest: &contest,
                systems: &systems,
                results: &comparison.models,
                models: self.is_given().then_some(&models[..]),
                iterations: self.iterations.min(FIGURE_ITERATIONS),
            };
            let title = format!("Systems on {}", cluster.name);
            let mut drawn = Vec::new();
            let mut data = Vec::new();
            for (i, name) in chosen.iter().enumerate() {
                terminal::progress(format!("figure {} of {}: {name}", i + 1, chosen.len()));
                let start = Instant::now();
                let (figure, values) =
                    figures::draw(name, &inputs).with_context(|| format!("figure {name:?}"))?;
                drawn.push(figure);
                data.push((*name, values));
                // Whole after every figure, so that nothing is lost if the command is stopped.
                write_whole(path, charts::page(&title, &text, &drawn).as_bytes())?;
                terminal::progress(format!(
                    "  done in {:.0} s, in {}",
                    start.elapsed().as_secs_f64(),
                    path.display()
                ));
            }
            comparison.figures.extend(data);
        }
        // The tables are printed: each when its model is done.
        self.json.print(&comparison, || ())?;
        Ok(ExitCode::SUCCESS)
    }
}
