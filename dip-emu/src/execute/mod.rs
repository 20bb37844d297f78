//! Runs plans in virtual time: the action lists and the interpreter of the trainer, over clocks that only count.
//!
//! Ranks advance in the order of their clocks, so messages enter the links in the order of time. Without contention for
//! links, every stage runs exactly when dip-core's [`Timeline`](dip_core::Timeline) says.

mod network;
mod noise;
mod rank;

use std::cell::RefCell;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::rc::Rc;

use dip_core::{
    ExecError, Executor, Message, Plan, Program, RankId, RankProgress, Seconds, TaskGraph, Trace,
    compile,
};

use self::network::VirtualNetwork;
use self::rank::VirtualRank;

pub use network::LinkModel;
pub use noise::Noise;

/// An executor that computes nothing: it advances clocks by the durations of the plan.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct VirtualExecutor {
    links: LinkModel,
    /// Noise on the durations, and the number of the sample.
    noise: Option<(Noise, u64)>,
}

impl VirtualExecutor {
    /// An executor with these links.
    pub fn new(links: LinkModel) -> Self {
        Self { links, noise: None }
    }

    /// Adds a sample of noise to the durations.
    #[must_use]
    pub fn with_noise(self, noise: Noise, sample: u64) -> Self {
        Self { noise: Some((noise, sample)), ..self }
    }

    /// Runs the program of a plan of `graph` whose task `i` takes `durations[i]`.
    ///
    /// # Errors
    /// [`ExecError`] if the ranks wait for each other.
    pub(crate) fn run(
        &self,
        program: &Program,
        graph: &TaskGraph,
        durations: &[Seconds],
    ) -> Result<Trace, ExecError> {
        let network = Rc::new(RefCell::new(VirtualNetwork::new(graph, self.links)));
        let mut ranks: Vec<VirtualRank<'_>> = (0..program.ranks.len())
            .map(|rank| VirtualRank::new(program, RankId::from(rank), durations, &network))
            .collect();
        run(&mut ranks, &network)?;
        let spans = ranks.into_iter().flat_map(VirtualRank::into_spans).collect();
        Ok(Trace { ranks: graph.ranks, spans })
    }
}

impl Executor for VirtualExecutor {
    /// # Panics
    /// Panics if tasks name ranks or dependencies out of range. Plans from the loaders never do.
    fn execute(&mut self, plan: &Plan) -> Result<Trace, ExecError> {
        let durations: Vec<Seconds> = match self.noise {
            Some((noise, sample)) => noise.durations(&plan.graph, sample),
            None => plan.graph.tasks.iter().map(|task| task.duration_s).collect(),
        };
        self.run(&compile(plan), &plan.graph, &durations)
    }
}

/// Advances the rank with the earliest clock by one action, until all ranks are done.
fn run(
    ranks: &mut [VirtualRank<'_>],
    network: &RefCell<VirtualNetwork<'_>>,
) -> Result<(), ExecError> {
    let mut events: BinaryHeap<_> =
        (0..ranks.len()).map(|rank| Reverse((Time(ranks[rank].now()), rank))).collect();
    // The messages that each idle rank waits for. An idle rank may have several events: it looks again at each of them.
    let mut idle: Vec<Vec<Message>> = vec![Vec::new(); ranks.len()];
    while let Some(Reverse((Time(time), rank))) = events.pop() {
        let waited = std::mem::take(&mut idle[rank]);
        if time < ranks[rank].now() && waited.is_empty() {
            continue;
        }
        ranks[rank].wait_until(time);
        match ranks[rank].advance()? {
            RankProgress::Advanced => events.push(Reverse((Time(ranks[rank].now()), rank))),
            RankProgress::Blocked(messages) => {
                let arrivals = messages.iter().filter_map(|m| network.borrow().arrival(m));
                let next = arrivals.min_by(Seconds::total_cmp);
                events.extend(next.map(|time| Reverse((Time(time), rank))));
                idle[rank] = messages;
            }
            RankProgress::Done => {}
        }
        let sent = network.borrow_mut().take_sent();
        for message in sent.iter().filter(|m| !idle[m.to.index()].is_empty()) {
            let arrival = network.borrow().arrival(message);
            events.extend(arrival.map(|time| Reverse((Time(time), message.to.index()))));
        }
    }
    let waiting = idle.into_iter().enumerate().filter_map(|(rank, messages)| {
        messages.first().map(|&message| (RankId::from(rank), message))
    });
    let stuck: Vec<_> = waiting.collect();
    if stuck.is_empty() { Ok(()) } else { Err(ExecError::Deadlock { stuck }) }
}

/// A point in time with a total order.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Time(Seconds);

impl Eq for Time {}

impl PartialOrd for Time {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Time {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}
