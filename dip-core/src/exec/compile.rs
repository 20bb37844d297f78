//! Compiles a plan into one action list per rank (paper section 4).

use std::fmt;

use super::{Action, Message, StageCall};
use crate::plan::{Dep, Plan, Task, TaskKind};
use crate::spec::{RankId, Seconds, TaskId};

/// The compiled form of a plan.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Program {
    /// One action list per rank.
    pub ranks: Vec<RankProgram>,
    /// One entry per task: the call of its stage, its inputs and its outputs.
    pub calls: Vec<TaskCall>,
}

/// The action list of one rank.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RankProgram {
    /// The rank.
    pub rank: RankId,
    /// Its actions in order.
    pub actions: Vec<Action>,
}

/// The call of one task.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TaskCall {
    /// The call of the stage.
    pub call: StageCall,
    /// Forward, backward or weight.
    pub kind: TaskKind,
    /// Its duration in the plan.
    pub planned: Seconds,
    /// Producers of its inputs, in the order of its dependencies.
    pub inputs: Vec<TaskId>,
    /// Its outputs, in the order of `call.consumers`.
    pub outputs: Vec<TaskOutput>,
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
/// Each receive is announced one stage ahead, so that it overlaps with computation. Sends complete only before the step, so
/// that no rank waits for a receiver in between. An edge becomes a message if it crosses ranks or takes time. Edges inside a
/// stage pair carry nothing, because a stage keeps its own activations.
pub fn compile(plan: &Plan) -> Program {
    let graph = &plan.graph;
    let mut calls: Vec<TaskCall> = graph.tasks.iter().map(empty_call).collect();
    for task in &graph.tasks {
        for dep in &task.deps {
            let producer = graph.task(dep.task);
            let message = message(producer, task, dep);
            if message.is_some() || !producer.same_pair(task) {
                calls[task.id.index()].inputs.push(dep.task);
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
    }
    let ranks = plan.order.iter().enumerate();
    let ranks = ranks
        .map(|(rank, order)| RankProgram {
            rank: RankId::from(rank),
            actions: rank_actions(plan, &calls, order),
        })
        .collect();
    Program { ranks, calls }
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
        planned: task.duration_s,
        inputs: Vec::new(),
        outputs: Vec::new(),
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

fn rank_actions(plan: &Plan, calls: &[TaskCall], order: &[TaskId]) -> Vec<Action> {
    let incoming = |task: TaskId| {
        let consumer = plan.graph.task(task);
        consumer.deps.iter().filter_map(|d| message(plan.graph.task(d.task), consumer, d))
    };
    let mut actions = Vec::with_capacity(4 * order.len() + 1);
    let mut sends = Vec::new();
    for (i, &id) in order.iter().enumerate() {
        if i == 0 {
            actions.extend(incoming(id).map(Action::Irecv));
        }
        if let Some(&next) = order.get(i + 1) {
            actions.extend(incoming(next).map(Action::Irecv));
        }
        actions.extend(incoming(id).map(Action::WaitIrecv));
        let call = &calls[id.index()];
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

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for program in &self.ranks {
            writeln!(f, "rank {}", program.rank)?;
            for action in &program.actions {
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
