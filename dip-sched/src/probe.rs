//! The inner loops by themselves, for benches.

use dip_core::{ScheduleError, TaskGraph};

use crate::evaluate;
use crate::interleave::{Interleaver, Rules};
use crate::problem::Problem;
use crate::reserve::Reserve;
use crate::search::select::{Item, select};
use crate::sequence::feasible_sequence;

/// What a bench may repeat: both give a makespan in seconds.
pub struct Loops<'a> {
    /// One run of dual-queue interleaving, which places every task.
    pub place: &'a mut dyn FnMut() -> f64,
    /// One evaluation of a complete order.
    pub evaluate: &'a dyn Fn() -> f64,
}

/// Hands the loops over a graph to `bench`, with the fastest strategies and microbatches in turn.
///
/// # Errors
/// As every schedule.
pub fn with_loops(graph: &TaskGraph, bench: impl FnOnce(Loops<'_>)) -> Result<(), ScheduleError> {
    let problem = Problem::new(graph, "probe")?;
    let costs = problem.costs(&problem.fastest());
    let tail = problem.tails(&costs.dur);
    let mut reserve = Reserve::new(&problem, &costs, &feasible_sequence(&problem, &costs)?);
    let mut interleaver = Interleaver::new(&problem);
    let keys: Vec<f64> = problem.microbatch.iter().map(|&m| f64::from(m)).collect();
    let rules = Rules::default();
    let mut place = || {
        let run = interleaver.run(&costs, &mut reserve, &keys, (&rules, &tail, f64::INFINITY));
        run.unwrap_or(f64::INFINITY)
    };
    place();
    let order = {
        let mut again = Interleaver::new(&problem);
        let mut reserve = Reserve::new(&problem, &costs, &feasible_sequence(&problem, &costs)?);
        again.run(&costs, &mut reserve, &keys, (&rules, &tail, f64::INFINITY));
        again.order()
    };
    let evaluate = || evaluate::makespan(&problem, &costs.dur, &order).unwrap_or(f64::INFINITY);
    bench(Loops { place: &mut place, evaluate: &evaluate });
    Ok(())
}

/// Strategies for pairs of one rank: each has its first and last moment and its options, seconds and bytes, smallest first.
/// Returns an option for each pair.
pub fn strategies(pairs: &[Pair], moments: usize, budget: u64) -> Vec<u16> {
    let item = |(span, options): &Pair| Item { span: *span, options: options.clone() };
    let items: Vec<Item> = pairs.iter().map(item).collect();
    select(&items, moments, budget, &vec![0; pairs.len()])
}

/// First and last moment of a pair, and the seconds and bytes of its options.
pub type Pair = ((usize, usize), Vec<(f64, u64)>);
