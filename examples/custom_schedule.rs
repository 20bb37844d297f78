//! Your own schedule, in one trait: among the ready tasks, the task with the longest path to the end runs first. It is compared with
//! 1F1B on the partition that each is made for, on the same model, batch and costs.
//!
//! `cargo run --release --no-default-features --example custom_schedule`

use std::sync::Arc;

use dip::plan::{Dep, OneFOneB, Task, TaskId};
use dip::prelude::*;

struct LongestTailFirst;

impl Schedule for LongestTailFirst {
    fn name(&self) -> &str {
        "longest-tail-first"
    }

    fn plan(&self, graph: &TaskGraph, _: &Environment<'_>) -> Result<Plan, ScheduleError> {
        // Time from the start of each task to the end of the iteration. Built graphs number tasks topologically.
        let mut tail = vec![Seconds::ZERO; graph.tasks.len()];
        for task in graph.tasks.iter().rev() {
            tail[task.id.index()] += task.duration_s;
            let so_far = tail[task.id.index()];
            for Dep { task, comm_s } in &task.deps {
                tail[task.index()] = tail[task.index()].max(so_far + *comm_s);
            }
        }
        let mut order = vec![Vec::new(); graph.ranks as usize];
        let mut done = vec![false; graph.tasks.len()];
        let tail_of = |task: &Task| tail[task.id.index()];
        for _ in 0..graph.tasks.len() {
            let ready =
                |t: &&Task| !done[t.id.index()] && t.deps.iter().all(|d| done[d.task.index()]);
            let ready = graph.tasks.iter().filter(ready);
            let next = ready.max_by(|a, b| tail_of(a).total_cmp(&tail_of(b)));
            let next = next.ok_or(ScheduleError::Cycle { task: TaskId(0) })?;
            done[next.id.index()] = true;
            order[next.rank.index()].push(next.id);
        }
        let bound = lower_bound(graph)?;
        Plan::new(graph.clone(), self.name(), order, bound)
            .map_err(|source| ScheduleError::InvalidOrder { schedule: self.name().into(), source })
    }
}

fn main() -> anyhow::Result<()> {
    let (model, cluster) = (presets::model("t2v-s").unwrap(), presets::cluster("h800").unwrap());
    let cost = Arc::new(AnalyticCost::new(&model, &cluster));
    let planning = Planning::new(&model, &cluster, cost)?;
    let batch = &sample(&model, 1, 0, None)[0];
    for schedule in [&LongestTailFirst as &dyn Schedule, &OneFOneB] {
        let plan = planning.clone().for_schedule(schedule)?.plan(batch, schedule)?;
        let violations = check_plan(&plan);
        let verdict = violations.first().map_or("valid".to_owned(), ToString::to_string);
        let (time, gap) = (plan.predicted.makespan_s, 100.0 * plan.gap());
        let bubbles = 100.0 * plan.predicted.bubble_ratio;
        println!(
            "{:20} {time}, {bubbles:.1} % bubbles, {gap:.1} % over its bound, {verdict}",
            plan.schedule
        );
    }
    Ok(())
}
