//! The time that a rank must wait while the pipeline fills and drains, because of its memory.
//!
//! Until time `x`, when the first pair of a rank may give its bytes back, the rank has worked only on pairs that it still holds. So
//! its work until `x` is at most that of pairs that fit in memory together, and it waits for the rest of `x`. The drain mirrors this:
//! within the last `y` seconds no forward starts, so the rank works only on pairs that it held together `y` seconds before the end.
//! The makespan is at least the load of the rank plus one of these waits. If another bound says that it is at least `x + y`, the two
//! times do not overlap, and it is at least the load plus both waits.
//!
//! The pairs that fit together are a knapsack, and each pair may take any strategy: a smaller one holds fewer bytes but takes longer.
//! A price of bytes relaxes the knapsack. Every price gives a bound; the best one is found because the bound is concave in it.

use super::TaskTimes;
use crate::problem::{Problem, StrategyCost};

/// Maximum number of tasks for which the bound is computed.
const MAX_TASKS: usize = 100_000;
/// Steps of the search for a price.
const STEPS: usize = 60;

/// The bound of one rank, at least `known`, which another argument has proven.
pub(super) fn bound(problem: &Problem, rank: usize, times: &TaskTimes, known: f64) -> f64 {
    if problem.n > MAX_TASKS || problem.by_rank[rank].is_empty() {
        return known;
    }
    let held = Held::new(problem, rank, times);
    let (no_fill, no_drain) = ((&held.fills[0], 0.0), (&held.drains[0], 0.0));
    let with_price = |window| {
        let price = held.best_price(|price| held.bound((window, price), no_drain));
        (window, price)
    };
    let fills: Vec<_> = held.fills.iter().map(with_price).collect();
    let mut best = fills.iter().map(|&fill| held.bound(fill, no_drain)).fold(known, f64::max);
    for drain in &held.drains {
        let price = held.best_price(|price| held.bound(no_fill, (drain, price)));
        best = best.max(held.bound(no_fill, (drain, price)));
    }
    for &fill in &fills {
        let apart = held.drains.iter().filter(|drain| fill.0.seconds + drain.seconds <= known);
        for drain in apart {
            let price = held.best_price(|price| held.bound(fill, (drain, price)));
            best = best.max(held.bound(fill, (drain, price)));
        }
    }
    best
}

/// A time at the start or the end of the iteration, and the work of each pair that can lie in it, by strategy.
struct Window {
    seconds: f64,
    work: Vec<Vec<f64>>,
}

/// A pair under one strategy.
struct Costed {
    /// Seconds of all of its tasks.
    load_s: f64,
    /// Its bytes as a share of the memory of the rank; 0 if it holds none between its tasks.
    share: f64,
    /// Seconds of forward, backward and weight gradient.
    tasks: [f64; 3],
}

/// The pairs of a rank, and its windows. The first window at each end has no work: nothing can run there.
struct Held {
    options: Vec<Vec<Costed>>,
    fills: Vec<Window>,
    drains: Vec<Window>,
    /// No price above this helps.
    max_price: f64,
}

impl Held {
    fn new(problem: &Problem, rank: usize, TaskTimes { dur, head, tail }: &TaskTimes) -> Self {
        let mut options = Vec::new();
        let mut ids: Vec<[Option<usize>; 3]> = Vec::new();
        let (mut released, mut acquired) = (f64::INFINITY, f64::INFINITY);
        for (p, pair) in problem.pairs.iter().enumerate() {
            let forward = pair.forward.index();
            if problem.rank[forward] as usize != rank {
                continue;
            }
            let id = |t: Option<dip_core::TaskId>| t.map(|t| t.index());
            let tasks = [Some(forward), id(pair.backward), id(pair.weight)];
            let weight_s = tasks[2].map_or(0.0, |w| dur[w]);
            // A forward without a backward holds its bytes only while it runs.
            let budget = problem.budget[rank].filter(|_| pair.backward.is_some());
            let option = |s: &StrategyCost| Costed {
                load_s: s.forward_s + s.backward_s + weight_s,
                share: budget.map_or(0.0, |budget| s.bytes as f64 / budget.max(1) as f64),
                tasks: [s.forward_s, s.backward_s, weight_s],
            };
            let of_pair: Vec<Costed> = problem.strategies[p].iter().map(option).collect();
            if of_pair.iter().any(|option| option.share > 0.0) {
                let release = pair.release().index();
                released = released.min(head[release] + dur[release]);
                acquired = acquired.min(tail[forward] + dur[forward]);
            }
            options.push(of_pair);
            ids.push(tasks);
        }
        let on_rank = || problem.by_rank[rank].iter().map(|&t| t as usize);
        let least = |of: &[f64], kind: usize| {
            let tasks = ids.iter().filter_map(|tasks| tasks[kind]);
            tasks.map(|t| of[t]).fold(f64::INFINITY, f64::min)
        };
        let earliest = on_rank().map(|t| head[t]).fold(f64::INFINITY, f64::min);
        let latest = on_rank().map(|t| tail[t]).fold(f64::INFINITY, f64::min);
        // A window with tasks that start at `at` before or after its other end.
        let window = |seconds: f64, at: &[f64]| {
            let inside =
                |t: Option<usize>, s: f64| t.map_or(0.0, |t| s.min((seconds - at[t]).max(0.0)));
            let of_pair = |(options, tasks): (&Vec<Costed>, &[Option<usize>; 3])| {
                let work = |o: &Costed| (0..3).map(|k| inside(tasks[k], o.tasks[k])).sum();
                options.iter().map(work).collect()
            };
            Window { seconds, work: options.iter().zip(&ids).map(of_pair).collect() }
        };
        let windows = |first: f64, others: [f64; 2], limit: f64, at: &[f64]| {
            let others = others.into_iter().filter(|s| s.is_finite() && *s <= limit && *s > first);
            std::iter::once(first).chain(others).map(|seconds| window(seconds, at)).collect()
        };
        let fills = windows(earliest, [least(head, 1), released], released, head);
        let drains = windows(latest, [least(tail, 0), acquired], acquired, tail);
        let prices = options.iter().flatten().filter(|o| o.share > 0.0).map(|o| o.load_s / o.share);
        let max_price = prices.fold(0.0, f64::max);
        Self { options, fills, drains, max_price }
    }

    /// Both windows, and the load of the rank without the work in them, at these prices of bytes.
    fn bound(&self, (fill, price): (&Window, f64), (drain, other): (&Window, f64)) -> f64 {
        let mut left = 0.0;
        for (p, options) in self.options.iter().enumerate() {
            let rest = |(s, o): (usize, &Costed)| {
                let gained = |work: f64, price: f64| (work - price * o.share).max(0.0);
                o.load_s - gained(fill.work[p][s], price) - gained(drain.work[p][s], other)
            };
            left += options.iter().enumerate().map(rest).fold(f64::INFINITY, f64::min);
        }
        fill.seconds + left - price + drain.seconds - other
    }

    /// The price with the largest bound, which is concave in it.
    fn best_price(&self, bound: impl Fn(f64) -> f64) -> f64 {
        let (mut low, mut high) = (0.0, self.max_price);
        for _ in 0..if high > 0.0 { STEPS } else { 0 } {
            let (a, b) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
            if bound(a) < bound(b) { low = a } else { high = b }
        }
        let middle = 0.5 * (low + high);
        if bound(0.0) >= bound(middle) { 0.0 } else { middle }
    }
}
