//! `dip plan`: plans one batch of a model on a cluster, or a given task graph.

mod build;
mod figures;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use dip::emulate::{LinkModel, noise_study};
use dip::plan::{CsvOrder, did_you_mean, order_from_csv, order_to_csv};
use dip::prelude::*;
use dip_files::Kind;

use super::files::{read_text, write_whole};
use super::noise::{NoiseArgs, judged};
use super::output::JsonOutput;
use super::search::{self, SearchArgs};
use super::sizing::Sizing;
use super::spinner::Spinner;
use build::{Built, SubMicrobatch};
use figures::UnderNoise;
pub use figures::PlanFigures;

/// The way of segments through the ranks.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum RouteChoice {
    /// Every segment begins at rank 0
    Loop,
    /// Every second segment runs back to rank 0
    Wave,
    /// The fastest of loops, waves and mixes of both after a short search of each
    Best,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dip plan --model vlm-s --cluster h800 --out plan.json
  dip plan --model vlm-s --schedule 1f1b --json | jq .makespan_s
  dip plan --graph graph.json --budget 10s")]
pub struct PlanCommand {
    /// A model preset, a model TOML, or a Hugging Face config.json or folder
    #[arg(long, required_unless_present = "graph")]
    model: Option<String>,
    /// A cluster preset or a cluster TOML
    #[arg(long, default_value = "h800")]
    cluster: String,
    /// Batch metadata, JSON Lines, in which absent counts are 0, or - for standard input; by default a sampled batch
    #[arg(long)]
    batch: Option<PathBuf>,
    /// The iteration of the batch file; by default its first
    #[arg(long, requires = "batch")]
    iteration: Option<u64>,
    /// A task graph, dip.graph/v1, or - for standard input, instead of a model
    #[arg(long, conflicts_with_all = ["model", "batch", "pipeline", "tensor", "data", "microbatches", "segments", "sub_microbatch", "weight_split"])]
    graph: Option<PathBuf>,
    /// An order in the CSV of PyTorch's pipelining, instead of a schedule
    #[arg(long, conflicts_with = "schedule")]
    order: Option<PathBuf>,
    /// The microbatch of each number in `--order`, as written by `--csv`; by default the numbers of the graph
    #[arg(long, value_name = "FILE", requires = "order")]
    order_microbatches: Option<PathBuf>,
    /// The schedule; see `dip presets schedules`
    #[arg(long, default_value = "dip")]
    schedule: String,
    #[command(flatten)]
    size: Sizing,
    /// Segments of every module, as a multiple of the paper's rule; by default 2 for schedules that search, else 1
    #[arg(long, value_name = "FACTOR", value_parser = clap::value_parser!(u32).range(1..=1024))]
    segments: Option<u32>,
    /// Instances of one sub-microbatch of a module, such as vision=12; by default the paper's rule
    #[arg(long, value_name = "MODULE=N", value_delimiter = ',')]
    sub_microbatch: Vec<SubMicrobatch>,
    /// The way of the segments of every module through the ranks; by default the best for schedules that search, else loop
    #[arg(long, value_enum)]
    route: Option<RouteChoice>,
    /// Split weight gradients (W) from backwards; by default for the schedules that place them freely
    #[arg(long, value_name = "true|false")]
    weight_split: Option<bool>,
    #[command(flatten)]
    search: SearchArgs,
    /// Share of a device's memory that the plan leaves free
    #[arg(long, default_value_t = 0.0)]
    reserve: f64,
    #[command(flatten)]
    noise: NoiseArgs,
    /// Write the plan, dip.plan/v1, to this file
    #[arg(long)]
    out: Option<PathBuf>,
    /// Write the task graph with its candidates, dip.graph/v1, to this file, which `--graph` reads
    #[arg(long)]
    graph_out: Option<PathBuf>,
    /// Write the order to this file, in the CSV of PyTorch's pipelining; if it renumbers microbatches, the list goes to
    /// FILE.microbatches.json
    #[arg(long)]
    csv: Option<PathBuf>,
    #[command(flatten)]
    json: JsonOutput,
}

impl PlanCommand {
    pub fn run(&self) -> Result<ExitCode> {
        let start = Instant::now();
        let mut spinner = Spinner::start("building the task graph");
        let (graph, built) = match (&self.graph, &self.model) {
            (Some(path), _) => {
                let graph = TaskGraph::from_json(&read_text(path, Kind::PLAN)?);
                (graph.with_context(|| path.display().to_string())?, None)
            }
            (None, Some(model)) => {
                let built = Built::new(self, model)?;
                (built.graph.clone(), Some(built))
            }
            (None, None) => bail!("give --model or --graph"),
        };
        if let Some(path) = &self.graph_out {
            write_whole(path, graph.to_json().as_bytes())?;
        }
        spinner.step(format!("planning {} tasks on {} ranks", graph.tasks.len(), graph.ranks));
        let mut plan = match &self.order {
            Some(path) => self.with_order(graph, path)?,
            None => self.search_plan(&graph, start.elapsed(), built.as_ref())?,
        };
        drop(spinner);
        if let Some(built) = &built {
            built.add_step(&mut plan);
        }
        let elapsed = Seconds(start.elapsed().as_secs_f64());
        plan.window = self.noise.window();
        let violations = check_plan(&plan);
        if let Some(first) = violations.first() {
            bail!("the plan has {} violations, the first: {first}", violations.len());
        }
        if let Some(path) = &self.out {
            write_whole(path, plan.to_json().as_bytes())?;
        }
        if let Some(path) = &self.csv {
            self.write_csv(path, &plan)?;
        }
        let devices = built.map(|built| built.cluster.devices());
        let figures = PlanFigures::new(&plan, elapsed, devices, self.under_noise(&plan)?);
        self.json.print(&figures, || figures.print())?;
        Ok(ExitCode::SUCCESS)
    }

    /// What the plan takes under noise, on other samples than those it was judged by; `None` without noise.
    fn under_noise(&self, plan: &Plan) -> Result<Option<UnderNoise>> {
        let Some(noise) = self.noise.study(self.search.seed)? else { return Ok(None) };
        let study = noise_study(plan, LinkModel::Uncontended, noise, self.noise.samples)?;
        Ok(Some(UnderNoise {
            samples: study.makespans_s.len(),
            mean_s: study.mean_s,
            over_bound: study.mean_s.0 / plan.lower_bound_s.0 - 1.0,
        }))
    }

    fn schedule(&self) -> Result<Box<dyn Schedule>> {
        schedule_by_name(&self.schedule).ok_or_else(|| {
            let names: Vec<_> = dip::plan::schedule_names().collect();
            let meant = did_you_mean(&self.schedule, names.iter().copied());
            anyhow!("schedule {:?} is none of {}{meant}", self.schedule, names.join(", "))
        })
    }

    /// The plan of an order that was made elsewhere.
    fn with_order(&self, graph: TaskGraph, path: &Path) -> Result<Plan> {
        let shown = path.display();
        let mut csv = CsvOrder::from(read_text(path, Kind::ORDER)?.as_str());
        if let Some(list) = &self.order_microbatches {
            csv.microbatches =
                serde_json::from_str(&read_text(list, Kind::ORDER)?).with_context(|| {
                    format!("{}: a list of microbatch numbers is expected", list.display())
                })?;
        }
        let order = order_from_csv(&csv, &graph).map_err(|errors| {
            let lines: Vec<_> = errors.iter().map(|e| format!("  {e}")).collect();
            anyhow!("{shown}: {} errors\n{}", errors.len(), lines.join("\n"))
        })?;
        let bound = lower_bound(&graph)?;
        Plan::new(graph, "csv", order, bound).with_context(|| shown.to_string())
    }

    fn environment(&self) -> Environment<'static> {
        self.search.environment(search::USUAL)
    }

    /// Searches with the time that is left of the budget.
    fn search_plan(
        &self,
        graph: &TaskGraph,
        spent: Duration,
        built: Option<&Built>,
    ) -> Result<Plan> {
        let mut env = self.environment();
        if let Budget::Time(time) = env.budget {
            env.budget = Budget::Time(Seconds((time.0 - spent.as_secs_f64()).max(0.0)));
        }
        let judge = self.noise.judge(self.search.seed)?;
        let env = judged(env, judge.as_ref());
        let plan = self.schedule()?.plan(graph, &env);
        plan.map_err(|error| match built {
            Some(built) => built.explained(error),
            None => error.into(),
        })
        .with_context(|| format!("schedule {:?} has no plan", self.schedule))
    }

    /// Writes an order, and the numbers of its microbatches if they differ from the graph's.
    fn write_csv(&self, path: &Path, plan: &Plan) -> Result<()> {
        let CsvOrder { text, microbatches } = order_to_csv(&plan.graph, &plan.order)?;
        write_whole(path, text.as_bytes())?;
        if !microbatches.is_empty() {
            let list = path.with_added_extension("microbatches.json");
            write_whole(&list, serde_json::to_string(&microbatches)?.as_bytes())?;
            self.json.say(format!(
                "microbatches are numbered by the last stage; {} has their own numbers",
                list.display()
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sub_microbatch_names_a_module_and_a_size() {
        let found: SubMicrobatch = "vision=12".parse().unwrap();
        assert_eq!((found.module.as_str(), found.instances), ("vision", 12));
        for wrong in ["vision", "vision=", "vision=0", "vision=-1", "12"] {
            assert!(wrong.parse::<SubMicrobatch>().is_err(), "{wrong}");
        }
    }
}
