//! The figures of a plan.

use dip::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::output::Figures;
use crate::cli::throughput::StepDocument;

/// What `dip plan` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PlanFigures {
    pub model: String,
    pub cluster: String,
    pub schedule: String,
    pub tasks: usize,
    /// Pipeline ranks.
    pub ranks: u32,
    /// Time that planning took.
    pub planning_s: Seconds,
    pub makespan_s: Seconds,
    /// Share of the ranks' time in which they wait.
    pub bubble_ratio: f64,
    /// No plan of the task graph is faster.
    pub lower_bound_s: Seconds,
    /// Distance of the makespan from the bound, relative to the bound; null if the bound is 0.
    pub gap: f64,
    /// Of each rank.
    pub peak_bytes: Vec<Bytes>,
    /// The step of the run around the plan; absent for a plan of a task graph.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<StepDocument>,
    /// Under noise on the times of stages, on other samples than the plan was judged by; absent without noise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub under_noise: Option<UnderNoise>,
}

/// The mean of a plan over samples of noise.
#[derive(Debug, Serialize, JsonSchema)]
pub struct UnderNoise {
    pub samples: usize,
    pub mean_s: Seconds,
    /// Distance of the mean from the bound without noise, relative to the bound.
    pub over_bound: f64,
}

impl Figures for PlanFigures {
    const SCHEMA: &'static str = "dip.plan-figures/v1";
}

impl PlanFigures {
    /// The figures of a plan that was made in `planning`, for a cluster with this number of devices.
    pub fn new(
        plan: &Plan,
        planning: Seconds,
        cluster_devices: Option<u64>,
        under_noise: Option<UnderNoise>,
    ) -> Self {
        let predicted = &plan.predicted;
        let step = |step| StepDocument::new(step, predicted.makespan_s, cluster_devices);
        Self {
            model: plan.graph.model.clone(),
            cluster: plan.graph.cluster.clone(),
            schedule: plan.schedule.clone(),
            tasks: plan.graph.tasks.len(),
            ranks: plan.graph.ranks,
            planning_s: planning,
            makespan_s: predicted.makespan_s,
            bubble_ratio: predicted.bubble_ratio,
            lower_bound_s: plan.lower_bound_s,
            gap: plan.gap(),
            peak_bytes: predicted.peak_bytes.clone(),
            step: plan.step.as_ref().map(step),
            under_noise,
        }
    }

    /// Prints them as text.
    pub fn print(&self) {
        println!(
            "{} on {}: {} tasks on {} ranks, schedule {}, planned in {}",
            self.model, self.cluster, self.tasks, self.ranks, self.schedule, self.planning_s
        );
        println!(
            "makespan {}, bubble {:.2} %, proven bound {}, gap {:.2} %",
            self.makespan_s,
            100.0 * self.bubble_ratio,
            self.lower_bound_s,
            100.0 * self.gap
        );
        if let Some(step) = &self.step {
            print!("{}", step.lines());
        }
        if let Some(UnderNoise { samples, mean_s, over_bound }) = &self.under_noise {
            println!(
                "under noise, {samples} other samples: mean {mean_s}, {:.2} % over the bound",
                100.0 * over_bound
            );
        }
        let peaks: Vec<_> = self.peak_bytes.iter().map(ToString::to_string).collect();
        println!("peak memory of each rank: {}", peaks.join(", "));
    }
}
