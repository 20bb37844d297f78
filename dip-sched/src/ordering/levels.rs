//! Levels of memory: choices of strategies from the fastest to the smallest.

use crate::problem::{Choice, Problem, StrategyCost};

/// The memory limit of each level, as a share of the range from the smallest to the largest strategy of a pair.
const SHARES: [f64; 6] = [0.75, 0.5, 0.35, 0.2, 0.1, 0.0];

/// The fastest choice, then choices of ever smaller strategies. On ranks that may run out of memory, every pair takes the fastest
/// strategy within the limit of the level (see [`SHARES`]). The last choice takes the smallest strategies.
pub(crate) fn strategy_levels(problem: &Problem) -> Vec<Choice> {
    let mut levels = vec![problem.fastest()];
    if !problem.has_choice || !problem.is_limited() {
        return levels;
    }
    for share in SHARES {
        let strategy = |p: usize| {
            let rank = problem.rank[problem.pairs[p].forward.index()] as usize;
            match problem.budget[rank] {
                Some(_) => fastest_within(&problem.strategies[p], share),
                None => levels[0][p],
            }
        };
        let choice = (0..problem.pairs.len()).map(strategy).collect();
        if levels.last() != Some(&choice) {
            levels.push(choice);
        }
    }
    levels
}

/// The fastest strategy whose bytes are within this share of the range from the smallest to the largest strategy.
fn fastest_within(strategies: &[StrategyCost], share: f64) -> u16 {
    let bytes = || strategies.iter().map(|s| s.bytes);
    let (low, high) = (bytes().min().unwrap_or(0), bytes().max().unwrap_or(0));
    let max_bytes = low + ((high - low) as f64 * share) as u64;
    let time = |s: &StrategyCost| s.forward_s + s.backward_s;
    let within = strategies.iter().enumerate().filter(|(_, s)| s.bytes <= max_bytes);
    let fastest =
        within.min_by(|a, b| time(a.1).total_cmp(&time(b.1)).then(a.1.bytes.cmp(&b.1.bytes)));
    fastest.map_or(0, |(i, _)| i as u16)
}
