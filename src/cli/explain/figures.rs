//! The figures of an explanation.

use dip::emulate::report::{Breakdown, ModuleTime};
use dip::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use super::variants::Variant;
use crate::cli::output::Figures;

/// What `dip explain` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ExplainFigures {
    pub model: String,
    pub cluster: String,
    pub schedule: String,
    /// Pipeline ranks.
    pub ranks: u32,
    pub makespan_s: Seconds,
    /// No plan of the task graph is faster.
    pub lower_bound_s: Seconds,
    /// Time in which ranks compute, over all ranks.
    pub busy: Vec<ModuleFigures>,
    /// Time in which ranks wait, over all ranks; with `busy`, the number of ranks times the makespan.
    pub bubbles: Vec<BubbleFigures>,
    pub critical: CriticalFigures,
    /// Changes of the task graph, each searched anew. The first changes nothing.
    pub changes: Vec<VariantFigures>,
    /// Other layouts of the model; only with `--model`. The first is the rule on the ranks of the plan.
    pub layouts: Vec<VariantFigures>,
}

/// Time of one module.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ModuleFigures {
    pub module: String,
    pub forward_s: Seconds,
    pub backward_s: Seconds,
    pub weight_s: Seconds,
}

/// Time of the bubbles of one cause.
#[derive(Debug, Serialize, JsonSchema)]
pub struct BubbleFigures {
    pub cause: String,
    pub meaning: &'static str,
    pub seconds: Seconds,
}

/// The critical path, whose parts add up to the makespan.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CriticalFigures {
    pub stages: usize,
    pub modules: Vec<ModuleFigures>,
    pub messages_s: Seconds,
    /// Time of the runtime itself, in measured runs.
    pub runtime_s: Seconds,
}

/// A changed setup.
#[derive(Debug, Serialize, JsonSchema)]
pub struct VariantFigures {
    pub name: String,
    /// The makespan of its plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub makespan_s: Option<Seconds>,
    /// Why it has no plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl Figures for ExplainFigures {
    const SCHEMA: &'static str = "dip.explanation/v1";
}

impl ExplainFigures {
    /// The figures of a broken-down run of a plan.
    pub fn new(plan: &Plan, parts: &Breakdown, changes: &[Variant], layouts: &[Variant]) -> Self {
        let graph = &plan.graph;
        let modules = |times: &[ModuleTime]| times.iter().map(ModuleFigures::from).collect();
        let bubbles = parts.waits.iter().map(|(cause, seconds)| BubbleFigures {
            cause: cause.to_string(),
            meaning: cause.meaning(),
            seconds: *seconds,
        });
        Self {
            model: graph.model.clone(),
            cluster: graph.cluster.clone(),
            schedule: plan.schedule.clone(),
            ranks: graph.ranks,
            makespan_s: parts.makespan,
            lower_bound_s: plan.lower_bound_s,
            busy: modules(&parts.busy),
            bubbles: bubbles.collect(),
            critical: CriticalFigures {
                stages: parts.critical_stages,
                modules: modules(&parts.critical),
                messages_s: parts.messages,
                runtime_s: parts.idle,
            },
            changes: changes.iter().map(VariantFigures::from).collect(),
            layouts: layouts.iter().map(VariantFigures::from).collect(),
        }
    }
}

impl From<&ModuleTime> for ModuleFigures {
    fn from(time: &ModuleTime) -> Self {
        let [forward_s, backward_s, weight_s] = time.kinds;
        Self { module: time.module.clone(), forward_s, backward_s, weight_s }
    }
}

impl From<&Variant> for VariantFigures {
    fn from(variant: &Variant) -> Self {
        let makespan = variant.makespan.as_ref();
        Self {
            name: variant.name.clone(),
            makespan_s: makespan.ok().copied(),
            failure: makespan.err().cloned(),
        }
    }
}
