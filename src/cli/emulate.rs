//! `dip emulate`: runs a plan in virtual time.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use dip::emulate::report::{self, RankFigures, TimelineRun};
use dip::emulate::{Executor, LinkModel, Noise, NoiseStudy, VirtualExecutor, noise_study};
use dip::plan::MAX_WINDOW;
use dip::prelude::*;
use dip_files::Kind;
use schemars::JsonSchema;
use serde::Serialize;

use super::files::{read_text, write_whole};
use super::output::{Figures, JsonOutput};
use super::throughput::StepDocument;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dip emulate plan.json --html timeline.html
  dip emulate plan.json --noise 0.1 --window 12
  dip emulate plan.json --json | jq .bubble_ratio")]
pub struct Emulate {
    /// The plan, dip.plan/v1; - for standard input
    plan: PathBuf,
    /// Write the timeline to this HTML page
    #[arg(long)]
    html: Option<PathBuf>,
    /// Write a trace for Perfetto or chrome://tracing to this file
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Let each link carry one message at a time, instead of any number
    #[arg(long)]
    contended_links: bool,
    /// Number of the next stages in its order among which a rank may choose while the first of them waits, in place of the plan's
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_WINDOW)))]
    window: Option<u32>,
    /// Also run the plan with log-normal noise of this deviation on the time of every stage, such as 0.1
    #[arg(long, value_name = "DEVIATION")]
    noise: Option<f64>,
    /// Number of samples of the noise
    #[arg(long, default_value_t = 100, requires = "noise", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    samples: u32,
    /// Seed of the noise
    #[arg(long, default_value_t = 0, requires = "noise")]
    seed: u64,
    #[command(flatten)]
    json: JsonOutput,
}

/// What `dip emulate` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct EmulationFigures {
    model: String,
    cluster: String,
    schedule: String,
    tasks: usize,
    makespan_s: Seconds,
    /// The makespan of the plan.
    planned_s: Seconds,
    /// Share of the ranks' time in which they wait.
    bubble_ratio: f64,
    /// No plan of the task graph is faster.
    lower_bound_s: Seconds,
    ranks: Vec<RankFigures>,
    /// The step of the run around the plan, if the plan has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<StepDocument>,
    /// The plan under noise, with `--noise`.
    #[serde(skip_serializing_if = "Option::is_none")]
    noise: Option<NoiseStudy>,
}

impl Figures for EmulationFigures {
    const SCHEMA: &'static str = "dip.emulation/v1";
}

impl Emulate {
    pub fn run(&self) -> Result<ExitCode> {
        let shown = || self.plan.display().to_string();
        let mut plan = Plan::from_json(&read_text(&self.plan, Kind::PLAN)?).with_context(shown)?;
        plan.window = self.window.unwrap_or(plan.window);
        let noise = self.noise.map(|deviation| Noise::new(deviation, self.seed)).transpose()?;
        let links = if self.contended_links {
            LinkModel::Ports { latency: Seconds::ZERO }
        } else {
            LinkModel::Uncontended
        };
        let executor: &mut dyn Executor = &mut VirtualExecutor::new(links);
        let trace = executor.execute(&plan).with_context(shown)?;
        trace.check(&plan).with_context(shown)?;
        let run = TimelineRun { label: "planned", plan: &plan, trace: &trace, end: None };
        if let Some(path) = &self.html {
            write_whole(path, report::html(&[run]).as_bytes())?;
        }
        if let Some(path) = &self.trace {
            write_whole(path, report::chrome(&[run]).as_bytes())?;
        }
        let study = |noise| noise_study(&plan, links, noise, self.samples).with_context(shown);
        let step = |step| StepDocument::new(step, trace.makespan(), None);
        let figures = EmulationFigures {
            model: plan.graph.model.clone(),
            cluster: plan.graph.cluster.clone(),
            schedule: plan.schedule.clone(),
            tasks: plan.graph.tasks.len(),
            makespan_s: trace.makespan(),
            planned_s: plan.predicted.makespan_s,
            bubble_ratio: trace.bubble_ratio(),
            lower_bound_s: plan.lower_bound_s,
            ranks: report::rank_figures(&plan, &trace),
            step: plan.step.as_ref().map(step),
            noise: noise.map(study).transpose()?,
        };
        self.json.print(&figures, || {
            print!("{}", report::table(&plan, &trace));
            figures.step.iter().for_each(|step| print!("\n{}", step.lines()));
            figures.noise.iter().for_each(print_study);
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

fn print_study(study: &NoiseStudy) {
    let above = |time: Seconds| 100.0 * (time.0 / study.planned_s.0 - 1.0);
    println!(
        "\nunder noise, {} samples: mean {} ({:+.2} %), p5 {} ({:+.2} %), p95 {} ({:+.2} %)",
        study.makespans_s.len(),
        study.mean_s,
        above(study.mean_s),
        study.p5_s,
        above(study.p5_s),
        study.p95_s,
        above(study.p95_s)
    );
    println!("rank  waits without noise  under noise");
    for rank in &study.ranks {
        println!(
            "{:>4}  {:>19}  {:>11}",
            rank.rank,
            rank.planned_s.to_string(),
            rank.mean_s.to_string()
        );
    }
}
