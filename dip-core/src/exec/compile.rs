//! Compiles a plan into one action list per rank (paper section 4).

use std::fmt;

use super::{Action, Message, StageCall};
use crate::plan::{Dep, Plan, Task, TaskKind};
use crate::spec::{Bytes, RankId, Seconds, TaskId};

/// The compiled form of a plan.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Program {
    /// One entry per rank.
    pub ranks: Vec<RankProgram>,
    /// One entry per task: the call of its stage, its inputs and its outputs.
    pub calls: Vec<TaskCall>,
    /// Number of the next tasks in its order among which a rank may choose; at least 1.
    pub window: usize,
}

/// The tasks of one rank, with its memory.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RankProgram {
    /// The rank.
    pub rank: RankId,
    /// Its tasks in the planned order.
    pub order: Vec<TaskId>,
    /// Bytes that the rank always holds.
    pub static_bytes: Bytes,
    /// Bytes that the plan may hold at most.
    pub memory_limit: Bytes,
    /// True if some pair does not fit beside the planned peak.
    pub is_tight: bool,
}

/// The call of one task.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TaskCall {
    /// The call of the stage.
    pub call: StageCall,
    /// Forward, backward or weight.
    pub kind: TaskKind,
    /// Its start in the plan.
    pub planned_start: Seconds,
    /// Its duration in the plan.
    pub planned: Seconds,
    /// Producers of its inputs, in the order of its dependencies.
    pub inputs: Vec<TaskId>,
    /// The inputs that are messages.
    pub receives: Vec<Message>,
    /// Tasks of the same rank that must run first without sending a message.
    pub local: Vec<TaskId>,
    /// Its outputs, in the order of `call.consumers`.
    pub outputs: Vec<TaskOutput>,
    /// Bytes that it takes at its start.
    pub takes: Bytes,
    /// Bytes that it frees at its end.
    pub frees: Bytes,
}

/// One output of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskOutput {
    /// The task that needs it.
    pub consumer: TaskId,
    /// The message that carries it; `None` if it stays on the rank.
    pub message: Option<Message>,
}

/// Compiles a plan that passes the checker.
///
/// An edge becomes a message if it crosses ranks or takes time. Edges inside a stage pair carry nothing, because a stage keeps
/// its own activations.
pub fn compile(plan: &Plan) -> Program {
    let graph = &plan.graph;
    let starts = &plan.predicted.start_s;
    let call =
        |task: &Task| TaskCall { planned_start: starts[task.id.index()], ..empty_call(task) };
    let mut calls: Vec<TaskCall> = graph.tasks.iter().map(call).collect();
    for task in &graph.tasks {
        for dep in &task.deps {
            let producer = graph.task(dep.task);
            let message = message(producer, task, dep);
            let consumer = &mut calls[task.id.index()];
            match message {
                Some(message) => consumer.receives.push(message),
                None => consumer.local.push(dep.task),
            }
            if message.is_some() || !producer.same_pair(task) {
                consumer.inputs.push(dep.task);
                let call = &mut calls[dep.task.index()];
                call.call.consumers.push(task.pair());
                call.outputs.push(TaskOutput { consumer: task.id, message });
            }
        }
    }
    for pair in graph.pairs() {
        for id in [Some(pair.forward), pair.backward].into_iter().flatten() {
            calls[id.index()].call.split = pair.weight.is_some();
        }
        calls[pair.release().index()].frees = graph.task(pair.forward).activation_bytes;
    }
    let is_tight = |r: usize, order: &[TaskId]| {
        let largest = order.iter().map(|&task| graph.task(task).activation_bytes).max();
        let peak = plan.predicted.peak_bytes.get(r).copied().unwrap_or_default();
        peak.saturating_add(largest.unwrap_or_default()) > graph.memory_limit_bytes[r]
    };
    let rank = |(r, order): (usize, &Vec<TaskId>)| RankProgram {
        rank: RankId::from(r),
        order: order.clone(),
        static_bytes: graph.static_bytes[r],
        memory_limit: graph.memory_limit_bytes[r],
        is_tight: is_tight(r, order),
    };
    let ranks = plan.order.iter().enumerate().map(rank).collect();
    Program { ranks, calls, window: plan.window.max(1) as usize }
}

fn empty_call(task: &Task) -> TaskCall {
    TaskCall {
        call: StageCall {
            task: task.id,
            pair: task.pair(),
            strategy: task.strategy.clone(),
            split: task.kind == TaskKind::Weight,
            consumers: Vec::new(),
        },
        kind: task.kind,
        planned_start: Seconds::ZERO,
        planned: task.duration_s,
        inputs: Vec::new(),
        receives: Vec::new(),
        local: Vec::new(),
        outputs: Vec::new(),
        takes: task.activation_bytes,
        frees: Bytes::ZERO,
    }
}

fn message(producer: &Task, consumer: &Task, dep: &Dep) -> Option<Message> {
    (producer.rank != consumer.rank || dep.comm_s > Seconds::ZERO).then_some(Message {
        producer: producer.id,
        consumer: consumer.id,
        from: producer.rank,
        to: consumer.rank,
    })
}

impl Program {
    /// The actions of a rank in the planned order, without running ahead.
    ///
    /// Each receive is announced one stage ahead, so that it overlaps with computation. Sends complete only before the step, so
    /// that no rank waits for a receiver in between.
    pub fn actions(&self, rank: RankId) -> Vec<Action> {
        let order = &self.ranks[rank.index()].order;
        let receives = |task: TaskId| self.calls[task.index()].receives.iter().copied();
        let mut actions = Vec::with_capacity(4 * order.len() + 1);
        let mut sends = Vec::new();
        for (i, &id) in order.iter().enumerate() {
            if i == 0 {
                actions.extend(receives(id).map(Action::Irecv));
            }
            if let Some(&next) = order.get(i + 1) {
                actions.extend(receives(next).map(Action::Irecv));
            }
            actions.extend(receives(id).map(Action::WaitIrecv));
            let call = &self.calls[id.index()];
            actions.push(match call.kind {
                TaskKind::Forward => Action::Forward(id),
                TaskKind::Backward => Action::Backward(id),
                TaskKind::Weight => Action::Weight(id),
            });
            for message in call.outputs.iter().filter_map(|output| output.message) {
                actions.push(Action::Isend(message));
                sends.push(message);
            }
        }
        actions.extend(sends.into_iter().map(Action::WaitIsend));
        actions.push(Action::Step);
        actions
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for RankProgram { rank, .. } in &self.ranks {
            writeln!(f, "rank {rank}")?;
            for action in &self.actions(*rank) {
                write!(f, "  {action}")?;
                if let Action::Forward(t) | Action::Backward(t) | Action::Weight(t) = action {
                    let pair = &self.calls[t.index()].call.pair;
                    write!(
                        f,
                        "  # {} segment {} microbatch {}.{}",
                        pair.module, pair.segment, pair.microbatch, pair.sub_microbatch
                    )?;
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }
}
