//! Runs plans in virtual time: the action lists and the interpreter of the trainer, over clocks that only count.
//!
//! Ranks advance in the order of their clocks, so messages enter the links in the order of time. Without contention for
//! links, every stage runs exactly when dip-core's [`Timeline`](dip_core::Timeline) says.

mod network;
mod rank;

use std::cell::RefCell;
use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};
use std::rc::Rc;

use dip_core::{ExecError, Executor, Message, Plan, RankId, RankProgress, Seconds, Trace, compile};

use self::network::VirtualNetwork;
use self::rank::VirtualRank;

pub use network::LinkModel;

/// An executor that computes nothing: it advances clocks by the durations of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct VirtualExecutor {
    /// How messages travel.
    pub links: LinkModel,
}

impl VirtualExecutor {
    /// An executor with these links.
    pub fn new(links: LinkModel) -> Self {
        Self { links }
    }
}

impl Executor for VirtualExecutor {
    /// # Panics
    /// Panics if tasks name ranks or dependencies out of range. Plans from the loaders never do.
    fn execute(&mut self, plan: &Plan) -> Result<Trace, ExecError> {
        let program = compile(plan);
        let network = Rc::new(RefCell::new(VirtualNetwork::new(&plan.graph, self.links)));
        let mut ranks: Vec<VirtualRank<'_>> = (0..plan.order.len())
            .map(|rank| VirtualRank::new(&program, RankId::from(rank), &plan.graph, &network))
            .collect();
        run(&mut ranks, &network)?;
        let spans = ranks.into_iter().flat_map(VirtualRank::into_spans).collect();
        Ok(Trace { ranks: plan.graph.ranks, spans })
    }
}

/// Advances the rank with the earliest clock by one action, until all ranks are done.
fn run(
    ranks: &mut [VirtualRank<'_>],
    network: &RefCell<VirtualNetwork<'_>>,
) -> Result<(), ExecError> {
    let event = |rank: usize, ranks: &[VirtualRank<'_>]| Reverse((Time(ranks[rank].now()), rank));
    let mut events: BinaryHeap<_> = (0..ranks.len()).map(|rank| event(rank, ranks)).collect();
    let mut waiting: HashMap<Message, usize> = HashMap::new();
    while let Some(Reverse((_, rank))) = events.pop() {
        match ranks[rank].advance()? {
            RankProgress::Advanced => events.push(event(rank, ranks)),
            RankProgress::Blocked(message) => {
                waiting.insert(message, rank);
            }
            RankProgress::Done => {}
        }
        let sent = network.borrow_mut().take_sent();
        for receiver in sent.iter().filter_map(|message| waiting.remove(message)) {
            events.push(event(receiver, ranks));
        }
    }
    if waiting.is_empty() {
        return Ok(());
    }
    let mut stuck: Vec<_> =
        waiting.into_iter().map(|(message, rank)| (RankId::from(rank), message)).collect();
    stuck.sort_unstable();
    Err(ExecError::Deadlock { stuck })
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
