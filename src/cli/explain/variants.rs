//! Changes of a setup, each planned anew.

use std::sync::Arc;

use anyhow::Result;
use dip::plan::{ModuleId, PartitionError, Partitioner, Route};
use dip::prelude::*;

/// Memory that the variant with more memory adds to every rank.
const MORE_MEMORY: Bytes = Bytes(1_000_000_000);

/// A changed setup.
pub struct Variant {
    pub name: String,
    /// The makespan of its plan, or why it has none.
    pub makespan: Result<Seconds, String>,
}

/// Changes of the task graph of a plan. The first changes nothing, so that all have had the same search.
pub fn of_graph(plan: &Plan, env: &Environment<'_>) -> Vec<Variant> {
    let schedule = schedule_of(plan);
    let planned = |name: &str, schedule: &dyn Schedule, change: &dyn Fn(&mut TaskGraph)| {
        let mut graph = plan.graph.clone();
        change(&mut graph);
        let plan = schedule.plan(&graph, env);
        Variant {
            name: name.into(),
            makespan: plan.map(|p| p.predicted.makespan_s).map_err(|e| e.to_string()),
        }
    };
    let limits = |change: fn(Bytes) -> Bytes| {
        move |graph: &mut TaskGraph| {
            graph.memory_limit_bytes.iter_mut().for_each(|limit| *limit = change(*limit));
        }
    };
    let mut variants = vec![
        planned("nothing", &*schedule, &|_| ()),
        planned(
            "1 GB more on every rank",
            &*schedule,
            &limits(|limit| limit.saturating_add(MORE_MEMORY)),
        ),
        planned("no memory limit", &*schedule, &limits(|_| Bytes::UNLIMITED)),
        planned("messages that take no time", &*schedule, &|graph| {
            let deps = graph.tasks.iter_mut().flat_map(|task| &mut task.deps);
            deps.for_each(|dep| dep.comm_s = Seconds::ZERO);
        }),
    ];
    if plan.schedule != Dip.name() {
        variants.push(planned("the schedule dip", &Dip, &|_| ()));
    }
    variants
}

/// Other layouts of the model. The first is the one of the schedule's rule on the ranks of the plan.
pub fn of_model(
    model: &ModelSpec,
    cluster: &ClusterSpec,
    batch: &BatchMeta,
    plan: &Plan,
    env: &Environment<'_>,
) -> Result<Vec<Variant>> {
    let schedule = schedule_of(plan);
    let cost: Arc<dyn CostModel> = Arc::new(AnalyticCost::new(model, cluster));
    let planning =
        |ranks| Planning::on_ranks(model, cluster, cost.clone(), ranks)?.for_schedule(&*schedule);
    let planned = |name: String, planning: Result<Planning, PartitionError>| {
        let makespan = planning.map_err(|e| e.to_string()).and_then(|planning| {
            let plan = planning.plan_in(batch, &*schedule, env).map_err(|e| e.to_string())?;
            Ok(plan.predicted.makespan_s)
        });
        Variant { name, makespan }
    };
    let ranks = plan.graph.ranks;
    let base = planning(ranks)?;
    let changed = |change: &dyn for<'p> Fn(Partitioner<'p>) -> Partitioner<'p>| {
        let partitioner = base.partitioner().with_segment_factor(schedule.segment_factor());
        Ok(base.clone().with_partition(change(partitioner).place(schedule.placement())?))
    };
    let mut variants = vec![planned(format!("the rule on {ranks} ranks"), Ok(base.clone()))];
    variants.push(planned(format!("{} ranks", ranks + 1), planning(ranks + 1)));
    for (index, module) in model.modules.iter().enumerate() {
        let id = ModuleId::from(index);
        let name = &module.name;
        variants.push(planned(
            format!("{name} on a wave"),
            changed(&|p| p.with_route(id, Route::Wave)),
        ));
        let now = base.partition().module(id).sub_microbatch;
        for size in [now / 2, now.saturating_mul(2)] {
            let other = changed(&|p| p.with_sub_microbatch(id, size.max(1)));
            if other.as_ref().is_ok_and(|other| other.split(batch) == base.split(batch)) {
                continue;
            }
            variants.push(planned(format!("{name}: {size} a sub-microbatch, not {now}"), other));
        }
    }
    Ok(variants)
}

/// The schedule that made a plan; `dip` for orders from elsewhere.
fn schedule_of(plan: &Plan) -> Box<dyn Schedule> {
    schedule_by_name(&plan.schedule).unwrap_or_else(|| Box::new(Dip))
}
