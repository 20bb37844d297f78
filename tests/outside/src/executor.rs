//! An executor: one worker runs all ranks, one task after another. Reports read its trace as they read any.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, ensure};
use dip::emulate::{ExecError, Executor, Span, Trace, VirtualExecutor, report};
use dip::plan::{Plan, RankId, Seconds};
use dip::prelude::*;

/// Runs any rank whose next task is ready.
struct OneWorker;

impl Executor for OneWorker {
    fn execute(&mut self, plan: &Plan) -> Result<Trace, ExecError> {
        let mut next = vec![0; plan.order.len()];
        let (mut now, mut ends) = (Seconds::ZERO, HashMap::new());
        let mut spans = vec![Vec::new(); plan.order.len()];
        while ends.len() < plan.graph.tasks.len() {
            for (rank, order) in plan.order.iter().enumerate() {
                let ready = |id: &dip::plan::TaskId| {
                    plan.graph.task(*id).deps.iter().all(|dep| ends.contains_key(&dep.task))
                };
                if let Some(&task) = order.get(next[rank]).filter(|id| ready(id)) {
                    let (start, end) = (now, now + plan.graph.task(task).duration_s);
                    spans[rank].push(Span { task, rank: RankId::from(rank), start, end });
                    ends.insert(task, end);
                    (now, next[rank]) = (end, next[rank] + 1);
                }
            }
        }
        let spans = spans.into_iter().flatten().collect();
        Ok(Trace { ranks: plan.graph.ranks, spans })
    }
}

fn makespan(executor: &mut dyn Executor, plan: &Plan) -> anyhow::Result<Seconds> {
    let trace = executor.execute(plan)?;
    println!("{}", report::table(plan, &trace));
    Ok(trace.spans.iter().map(|span| span.end).fold(Seconds::ZERO, Seconds::max))
}

pub fn run() -> anyhow::Result<()> {
    let model = presets::model("vlm-tiny").context("the preset is built in")?;
    let cluster = presets::cluster("cpu").context("the preset is built in")?;
    let cost = Arc::new(AnalyticCost::new(&model, &cluster));
    let planning = Planning::on_ranks(&model, &cluster, cost, 2)?;
    let batch = &dip::emulate::sample(&model, 1, 0, Some(4))[0];
    let plan = planning.plan(batch, &Dip)?;
    let alone = makespan(&mut OneWorker, &plan)?;
    let pipelined = makespan(&mut VirtualExecutor::default(), &plan)?;
    ensure!(alone > pipelined, "one worker takes {alone}, two ranks {pipelined}");
    Ok(())
}
