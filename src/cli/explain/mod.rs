//! `dip explain`: where the time of a plan or of a measured iteration goes, and what would make it shorter.

mod figures;
mod variants;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use dip::emulate::report::{Breakdown, ModuleTime, breakdown};
use dip::prelude::*;

use super::inputs;
use super::output::JsonOutput;
use super::search::{self, SearchArgs};
use super::spinner::Spinner;
use super::timeline::Timeline;
pub use figures::ExplainFigures;
use variants::{Variant, of_graph, of_model};

const KINDS: [&str; 3] = ["forward", "backward", "weight gradient"];

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dip explain plan.json
  dip explain plan.json --model vlm-s --batch batch.jsonl   # also another rank, waves, other sub-microbatches
  dip explain runs/vlm-tiny/traces/100.jsonl")]
pub struct Explain {
    /// A plan, dip.plan/v1, or a measured iteration of `dip train --trace`, dip.trace/v1
    file: PathBuf,
    /// The model of the plan: also tries another rank, other routes and other sub-microbatches
    #[arg(long)]
    model: Option<String>,
    /// The cluster of the plan, a preset or a TOML; by default the preset of the plan's name
    #[arg(long, requires = "model")]
    cluster: Option<String>,
    /// The batch of the plan; by default the first that `dip sample` draws
    #[arg(long, requires = "model")]
    batch: Option<PathBuf>,
    #[command(flatten)]
    search: SearchArgs,
    #[command(flatten)]
    json: JsonOutput,
}

impl Explain {
    pub fn run(&self) -> Result<ExitCode> {
        let timeline = Timeline::read(&self.file)?;
        let plan = &timeline.plan;
        let parts = breakdown(&timeline.run());
        let env = self.search.environment(search::OF_MANY);
        let mut spinner = Spinner::start("searching plans of changed task graphs");
        let changes = of_graph(plan, &env);
        spinner.step("searching plans of other layouts");
        let layouts = self.layouts(plan, &env)?;
        drop(spinner);
        let figures = ExplainFigures::new(plan, &parts, &changes, &layouts);
        self.json.print(&figures, || {
            print_time(plan, &parts);
            print_critical(&parts);
            print_bound(plan, &parts);
            println!("\nWhat else would give, each searched anew:");
            print_variants(&changes);
            if !layouts.is_empty() {
                println!("\nOther layouts of {}:", plan.graph.model);
                print_variants(&layouts);
            }
        })?;
        Ok(ExitCode::SUCCESS)
    }

    /// Other layouts of the model of the command line, if there is one.
    fn layouts(&self, plan: &Plan, env: &Environment<'_>) -> Result<Vec<Variant>> {
        let Some(name) = &self.model else { return Ok(Vec::new()) };
        let model = inputs::model(name)?;
        anyhow::ensure!(
            model.name == plan.graph.model,
            "--model is {}, but the plan is of {}; give the model of the plan",
            model.name,
            plan.graph.model
        );
        let cluster = inputs::cluster(self.cluster.as_deref().unwrap_or(&plan.graph.cluster))?;
        let batch = match &self.batch {
            Some(path) => Some(inputs::batch(path, None)?),
            None => dip::emulate::sample(&model, 1, self.search.seed, None).pop(),
        };
        of_model(&model, &cluster, &batch.unwrap_or_default(), plan, env)
    }
}

fn print_time(plan: &Plan, parts: &Breakdown) {
    let graph = &plan.graph;
    println!(
        "{} on {}, schedule {}: {} on {} ranks",
        graph.model, graph.cluster, plan.schedule, parts.makespan, graph.ranks
    );
    println!("\nWhere the time of the ranks goes:");
    let share = |time: Seconds| 100.0 * time.0 / parts.total.0.max(f64::MIN_POSITIVE);
    for module in &parts.busy {
        print_kinds(module, |time| format!("{:5.1} %", share(time)));
    }
    let waiting: Seconds = parts.waits.iter().map(|wait| wait.1).sum();
    println!("  {:<32} {:5.1} %", "bubbles", share(waiting));
    for (cause, time) in &parts.waits {
        println!("    {:<30} {:5.1} %  {}", cause.to_string(), share(*time), cause.meaning());
    }
}

fn print_bound(plan: &Plan, parts: &Breakdown) {
    println!(
        "\nNo plan of this task graph takes less than {}: at most {:.1} % could be gained by another order.",
        plan.lower_bound_s,
        100.0 * (1.0 - plan.lower_bound_s.0 / parts.makespan.0.max(f64::MIN_POSITIVE)).max(0.0)
    );
}

fn print_critical(parts: &Breakdown) {
    println!(
        "\nWhat the makespan consists of, {} stages on the critical path:",
        parts.critical_stages
    );
    let share = |time: Seconds| 100.0 * time.0 / parts.makespan.0.max(f64::MIN_POSITIVE);
    for module in &parts.critical {
        print_kinds(module, |time| format!("{:5.1} %  {time}", share(time)));
    }
    for (name, time) in [("messages", parts.messages), ("runtime", parts.idle)] {
        if time.0 > 1e-12 {
            println!("  {name:<32} {:5.1} %  {time}", share(time));
        }
    }
}

fn print_kinds(module: &ModuleTime, text: impl Fn(Seconds) -> String) {
    for (kind, time) in KINDS.iter().zip(module.kinds) {
        if time.0 > 0.0 {
            println!("  {:<32} {}", format!("{} {kind}", module.module), text(time));
        }
    }
}

/// The first variant is the one that the others are compared with.
fn print_variants(variants: &[Variant]) {
    let Some(base) = variants.first().and_then(|first| first.makespan.as_ref().ok()) else {
        return;
    };
    for Variant { name, makespan } in variants {
        match makespan {
            Ok(time) => {
                println!(
                    "  {name:<40} {:>10}  {:+.1} %",
                    time.to_string(),
                    100.0 * (time.0 / base.0 - 1.0)
                )
            }
            Err(why) => println!("  {name:<40} {:>10}  {why}", "no plan"),
        }
    }
}
