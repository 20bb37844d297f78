//! `dip plan`: plans one batch of a model on a cluster, or a given task graph.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use dip::plan::{
    CsvOrder, MAX_WINDOW, ModuleId, Partition, Placement, Route, fastest_planning, order_from_csv,
    order_to_csv, routed_partitions,
};
use dip::prelude::*;

use super::files::{read_text, write_whole};
use super::inputs;

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
pub struct PlanCommand {
    /// A model preset, a model TOML, or a Hugging Face config.json or folder
    #[arg(long, required_unless_present = "graph")]
    model: Option<String>,
    /// A cluster preset or a cluster TOML
    #[arg(long, default_value = "h800")]
    cluster: String,
    /// Batch metadata, JSON Lines, in which absent counts are 0; by default a sampled batch
    #[arg(long)]
    batch: Option<PathBuf>,
    /// The iteration of the batch file; by default its first
    #[arg(long, requires = "batch")]
    iteration: Option<u64>,
    /// A task graph, dip.graph/v1, instead of a model
    #[arg(long, conflicts_with_all = ["model", "batch", "ranks", "tensor", "data", "microbatches", "segments", "weight_split"])]
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
    /// Pipeline ranks, in place of the model's
    #[arg(long, visible_alias = "pipeline")]
    ranks: Option<u32>,
    /// Devices that share each layer, in place of the model's
    #[arg(long)]
    tensor: Option<u32>,
    /// Pipeline replicas, in place of the model's; each plans a batch of its own
    #[arg(long)]
    data: Option<u32>,
    /// Microbatches of a sampled batch, in place of the model's
    #[arg(long, conflicts_with = "batch")]
    microbatches: Option<u32>,
    /// Segments of every module, as a multiple of the paper's rule; by default 2 for schedules that search, else 1
    #[arg(long, value_name = "FACTOR", value_parser = clap::value_parser!(u32).range(1..=1024))]
    segments: Option<u32>,
    /// The way of the segments of every module through the ranks; by default the best for schedules that search, else loop
    #[arg(long, value_enum)]
    route: Option<RouteChoice>,
    /// Split weight gradients (W) from backwards; by default for the schedules that place them freely
    #[arg(long, value_name = "true|false")]
    weight_split: Option<bool>,
    /// Time of the search, such as 2s or 500ms
    #[arg(long, default_value = "2s", value_parser = seconds)]
    budget: Seconds,
    /// Iterations of the search, instead of a time: reproducible
    #[arg(long, value_name = "N")]
    iterations_budget: Option<u64>,
    /// Threads of the search; by default half of the cores
    #[arg(long)]
    threads: Option<usize>,
    /// Seed of the search and of a sampled batch
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Number of the next stages in its order among which a rank may choose while the first of them waits; 1 keeps the order
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_WINDOW)))]
    window: u32,
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
}

/// Says which ranks hold no layer: they only wait.
fn say_empty_ranks(partition: &Partition) {
    let chunks = || partition.modules.iter().flat_map(|module| &module.chunks);
    let is_empty = |rank: &u32| chunks().all(|chunk| chunk.rank.index() != *rank as usize);
    let empty: Vec<String> =
        (0..partition.ranks).filter(is_empty).map(|rank| rank.to_string()).collect();
    if !empty.is_empty() {
        let (count, shown) = (empty.len(), empty.iter().take(8).cloned().collect::<Vec<_>>());
        let more = if count > shown.len() { ", .." } else { "" };
        let list = shown.join(", ");
        eprintln!(
            "{count} of {} ranks hold no layer ({list}{more}); plan with fewer",
            partition.ranks
        );
    }
}

impl PlanCommand {
    pub fn run(&self) -> Result<ExitCode> {
        let start = Instant::now();
        let graph = match (&self.graph, &self.model) {
            (Some(path), _) => TaskGraph::from_json(&read_text(path)?)
                .with_context(|| path.display().to_string())?,
            (None, Some(model)) => self.build(model)?,
            (None, None) => bail!("give --model or --graph"),
        };
        if let Some(path) = &self.graph_out {
            write_whole(path, graph.to_json().as_bytes())?;
        }
        let mut plan = match &self.order {
            Some(path) => self.with_order(graph, path)?,
            None => self.search(&graph, start.elapsed())?,
        };
        let elapsed = Seconds(start.elapsed().as_secs_f64());
        plan.window = self.window;
        let violations = check_plan(&plan);
        if let Some(first) = violations.first() {
            bail!("the plan has {} violations, the first: {first}", violations.len());
        }
        if let Some(path) = &self.out {
            write_whole(path, plan.to_json().as_bytes())?;
        }
        if let Some(path) = &self.csv {
            write_csv(path, &plan)?;
        }
        print(&plan, elapsed);
        Ok(ExitCode::SUCCESS)
    }

    /// The task graph of one batch.
    fn build(&self, name: &str) -> Result<TaskGraph> {
        let mut model = inputs::model(name)?;
        model.parallel.tensor = self.tensor.unwrap_or(model.parallel.tensor);
        model.parallel.data = self.data.unwrap_or(model.parallel.data);
        model.microbatches = self.microbatches.unwrap_or(model.microbatches);
        model.validate()?;
        let cluster = inputs::cluster(&self.cluster)?;
        let batch = match &self.batch {
            Some(path) => inputs::batch(path, self.iteration)?,
            None => dip::emulate::sample(&model, 1, self.seed, None)
                .pop()
                .context("nothing was sampled; give --batch")?,
        };
        let cost = Arc::new(AnalyticCost::new(&model, &cluster));
        let ranks = self.ranks.unwrap_or(model.parallel.pipeline);
        let schedule = self.schedule()?;
        let planning = Planning::on_ranks(&model, &cluster, cost, ranks)?;
        let partitions = self.partitions(&planning, &*schedule)?;
        partitions.first().into_iter().for_each(say_empty_ranks);
        let weight_split = self.weight_split.unwrap_or_else(|| schedule.splits_weights());
        let planning = planning.with_weight_split(weight_split);
        let plannings = partitions.into_iter().map(|p| planning.clone().with_partition(p));
        let env = self.environment(self.budget);
        let planning = fastest_planning(plannings.collect(), &batch, &*schedule, &env)?;
        Ok(planning.graph(&batch)?)
    }

    /// The partitions to choose from, at least one.
    fn partitions(&self, planning: &Planning, schedule: &dyn Schedule) -> Result<Vec<Partition>> {
        let factor = self.segments.unwrap_or_else(|| schedule.segment_factor());
        let partitioner = planning.partitioner().with_segment_factor(factor);
        let placement = schedule.placement();
        let routed = placement == Placement::ModalityAware;
        let best = routed && schedule.searches() && self.order.is_none();
        match self.route.unwrap_or(if best { RouteChoice::Best } else { RouteChoice::Loop }) {
            RouteChoice::Best if routed => Ok(routed_partitions(&partitioner)?),
            RouteChoice::Wave if routed => {
                let modules = (0..planning.model().modules.len()).map(ModuleId::from);
                let waves = modules.fold(partitioner, |all, m| all.with_route(m, Route::Wave));
                Ok(vec![waves.partition()?])
            }
            RouteChoice::Best | RouteChoice::Loop | RouteChoice::Wave => {
                Ok(vec![partitioner.place(placement)?])
            }
        }
    }

    fn schedule(&self) -> Result<Box<dyn Schedule>> {
        schedule_by_name(&self.schedule).ok_or_else(|| {
            let names: Vec<_> = dip::plan::schedule_names().collect();
            anyhow!("schedule {:?} is none of {}", self.schedule, names.join(", "))
        })
    }

    /// The plan of an order that was made elsewhere.
    fn with_order(&self, graph: TaskGraph, path: &Path) -> Result<Plan> {
        let shown = path.display();
        let mut csv = CsvOrder::from(read_text(path)?.as_str());
        if let Some(list) = &self.order_microbatches {
            csv.microbatches = serde_json::from_str(&read_text(list)?).with_context(|| {
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

    fn environment(&self, time: Seconds) -> Environment<'static> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Environment {
            seed: self.seed,
            budget: match self.iterations_budget {
                Some(n) => Budget::Iterations(n),
                None => Budget::Time(time),
            },
            threads: self.threads.unwrap_or(cores.div_ceil(2)).max(1),
            ..Environment::default()
        }
    }

    /// Searches with the time that is left of the budget.
    fn search(&self, graph: &TaskGraph, spent: Duration) -> Result<Plan> {
        let left = Seconds((self.budget.0 - spent.as_secs_f64()).max(0.0));
        let plan = self.schedule()?.plan(graph, &self.environment(left));
        plan.with_context(|| format!("schedule {:?} has no plan", self.schedule))
    }
}

/// Writes an order, and the numbers of its microbatches if they differ from the graph's.
fn write_csv(path: &Path, plan: &Plan) -> Result<()> {
    let CsvOrder { text, microbatches } = order_to_csv(&plan.graph, &plan.order)?;
    write_whole(path, text.as_bytes())?;
    if !microbatches.is_empty() {
        let list = path.with_added_extension("microbatches.json");
        write_whole(&list, serde_json::to_string(&microbatches)?.as_bytes())?;
        println!(
            "microbatches are numbered by the last stage; {} has their own numbers",
            list.display()
        );
    }
    Ok(())
}

fn print(plan: &Plan, elapsed: Seconds) {
    let p = &plan.predicted;
    println!(
        "{} on {}: {} tasks on {} ranks, schedule {}, planned in {elapsed}",
        plan.graph.model,
        plan.graph.cluster,
        plan.graph.tasks.len(),
        plan.graph.ranks,
        plan.schedule
    );
    println!(
        "makespan {}, bubble {:.2} %, proven bound {}, gap {:.2} %",
        p.makespan_s,
        100.0 * p.bubble_ratio,
        plan.lower_bound_s,
        100.0 * plan.gap()
    );
    let peaks: Vec<_> = p.peak_bytes.iter().map(ToString::to_string).collect();
    println!("peak memory of each rank: {}", peaks.join(", "));
}

/// Parses a time with its unit.
pub fn seconds(text: &str) -> Result<Seconds, String> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1e-3),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    match number.trim().parse::<f64>() {
        Ok(n) if n.is_finite() && n >= 0.0 => Ok(Seconds(n * unit)),
        _ => Err("must be a time such as 2s or 500ms".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit_or_is_in_seconds() {
        assert_eq!(seconds("2s"), Ok(Seconds(2.0)));
        assert_eq!(seconds("500ms"), Ok(Seconds(0.5)));
        assert_eq!(seconds("3"), Ok(Seconds(3.0)));
        assert!(["", "s", "-1s", "nan", "infs", "2m"].iter().all(|t| seconds(t).is_err()));
    }
}
