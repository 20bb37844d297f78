//! Where the time of the devices goes.

use serde::Serialize;

use dip_core::{ClusterSpec, CostError, Plan, Seconds, StepFigures};
use dip_emu::{Operator, OperatorKind};
use dip_sched::{PartitionError, Planning};

use super::degrees::{Sized, cost};
use super::{TuneError, TuneSettings};

/// Shares of the time of a step, over all devices. The rest is computation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Losses {
    /// Ranks wait in the pipeline.
    pub bubbles: f64,
    /// Stages recompute or wait for copies to the host, because memory is short.
    pub memory: f64,
    /// Devices of a layer exchange their parts of it.
    pub tensor: f64,
    /// Replicas exchange gradients and weights after the pipeline.
    pub exchange: f64,
    /// The optimiser steps.
    pub optimizer: f64,
}

/// What takes most of the time besides computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Nothing takes more than a thirtieth.
    Computation,
    /// Waiting in the pipeline.
    Bubbles,
    /// Recomputation and copies to the host.
    Memory,
    /// Exchange inside layers.
    Tensor,
    /// Exchange between replicas.
    Exchange,
}

/// Below this share of the step, nothing but computation limits it.
const NEGLIGIBLE: f64 = 1.0 / 30.0;

impl Losses {
    pub(super) fn of(
        sized: &Sized,
        settings: &TuneSettings,
        planning: &Planning,
        plan: &Plan,
        step: &StepFigures,
    ) -> Result<Self, TuneError> {
        let ranks = f64::from(planning.ranks());
        let busy: Seconds = plan.graph.tasks.iter().map(|task| task.duration_s).sum();
        let fastest = computation(planning, sized)?;
        let alone = without_collectives(planning, settings);
        let total = step.seconds(plan.predicted.makespan_s);
        let of_ranks = |seconds: f64| (seconds / (ranks * total.0)).max(0.0);
        Ok(Self {
            bubbles: of_ranks(ranks * plan.predicted.makespan_s.0 - busy.0),
            memory: of_ranks(busy.0 - fastest),
            tensor: of_ranks(fastest - computation(&alone, sized)?),
            exchange: step.exchange() / total,
            optimizer: step.update_s / total,
        })
    }

    /// The largest of them.
    pub fn limit(&self) -> Limit {
        let all = [
            (self.bubbles, Limit::Bubbles),
            (self.memory, Limit::Memory),
            (self.tensor, Limit::Tensor),
            (self.exchange, Limit::Exchange),
        ];
        let most = all.into_iter().max_by(|a, b| a.0.total_cmp(&b.0));
        most.filter(|(share, _)| *share > NEGLIGIBLE).map_or(Limit::Computation, |most| most.1)
    }
}

/// The seconds of all stages under their fastest strategies.
fn computation(planning: &Planning, sized: &Sized) -> Result<f64, TuneError> {
    let loads = planning.rank_loads(&sized.batch);
    let loads = loads.map_err(|e: CostError| PartitionError::from(e))?;
    Ok(loads.iter().flatten().sum())
}

/// The same planning where the devices of a layer exchange nothing.
fn without_collectives(planning: &Planning, settings: &TuneSettings) -> Planning {
    let cluster: &ClusterSpec = planning.cluster();
    let free = |op: &Operator| (op.kind == OperatorKind::Collective).then_some(Seconds::ZERO);
    let cost = cost(planning.model(), cluster, settings).with_rule(free);
    planning.clone().with_cost(std::sync::Arc::new(cost))
}
