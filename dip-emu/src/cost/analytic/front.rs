//! Candidate strategies of a stage pair: a multiple-choice knapsack over its layers (paper section 2).

use dip_core::{Bytes, LayerStrategy, Seconds};

/// Maximum number of candidates of a stage pair, `S` in the paper.
pub const CANDIDATES: usize = 10;
/// Maximum number of partial selections carried from one layer to the next. The front is exact up to this number. Beyond
/// it, selections count as equal if their memory differs by less than 1/256 of its range.
const PARTIALS: usize = 256;

/// A strategy of one layer, and what it adds to the stage pair.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// The strategy.
    pub strategy: LayerStrategy,
    /// The time of the forward and the backward together.
    pub seconds: Seconds,
    /// The bytes held from the forward to the backward.
    pub bytes: Bytes,
}

/// One strategy for each layer.
#[derive(Debug, Clone, PartialEq)]
pub struct StrategySelection {
    /// The strategy of each layer.
    pub layers: Vec<LayerStrategy>,
    /// The time of all layers.
    pub seconds: Seconds,
    /// The bytes of all layers.
    pub bytes: Bytes,
}

/// A partial selection: its last choice, and the index of the selection that it extends.
#[derive(Debug, Clone, Copy)]
struct Partial {
    seconds: f64,
    bytes: u64,
    choice: LayerStrategy,
    parent: usize,
}

/// Returns at most `limit` selections on the time-memory front, the fastest first: the fastest, the smallest, and the
/// fastest within each of `limit - 2` evenly spaced memory limits between them. Empty if a layer has no choice.
pub fn front(layers: &[Vec<Choice>], limit: usize) -> Vec<StrategySelection> {
    let start = Partial { seconds: 0.0, bytes: 0, choice: LayerStrategy::Keep, parent: 0 };
    let mut levels = vec![vec![start]];
    for choices in layers {
        let last = levels.last().map_or(&[][..], Vec::as_slice);
        let extended = last.iter().enumerate().flat_map(|(parent, partial)| {
            choices.iter().map(move |c| Partial {
                seconds: partial.seconds + c.seconds.0,
                bytes: partial.bytes.saturating_add(c.bytes.0),
                choice: c.strategy,
                parent,
            })
        });
        let level = thin(pareto(extended.collect()), PARTIALS, |p| p.bytes);
        levels.push(level);
    }
    let Some(last) = levels.last() else { return Vec::new() };
    let picked = thin((0..last.len()).collect(), limit, |&i| last[i].bytes);
    picked.into_iter().map(|i| select(&levels, i)).collect()
}

/// The partials that no other beats in both time and memory, by rising time and falling memory.
fn pareto(mut partials: Vec<Partial>) -> Vec<Partial> {
    partials.sort_by(|a, b| a.seconds.total_cmp(&b.seconds).then(a.bytes.cmp(&b.bytes)));
    let mut least = None;
    partials.retain(|s| {
        let better = least.is_none_or(|bytes| s.bytes < bytes);
        if better {
            least = Some(s.bytes);
        }
        better
    });
    partials
}

/// At most `limit` partials of a front: both ends, and the fastest within each of `limit - 2` evenly spaced memory limits.
fn thin<T: Copy>(front: Vec<T>, limit: usize, bytes: impl Fn(&T) -> u64) -> Vec<T> {
    let (Some(first), Some(last)) = (front.first(), front.last()) else { return front };
    if front.len() <= limit || limit < 2 {
        return front.into_iter().take(limit).collect();
    }
    let (most, least) = (bytes(first), bytes(last));
    let steps = limit as u128 - 1;
    let within = |i: u128| most - (u128::from(most - least) * i / steps) as u64;
    let mut picked = vec![*first];
    let mut i = 1;
    for s in &front[1..front.len() - 1] {
        if i < steps && bytes(s) <= within(i) {
            picked.push(*s);
            while i < steps && bytes(s) <= within(i) {
                i += 1;
            }
        }
    }
    picked.push(*last);
    picked
}

/// Builds a selection from the parents of a partial one, back to the first layer.
fn select(levels: &[Vec<Partial>], index: usize) -> StrategySelection {
    let whole = levels[levels.len() - 1][index];
    let mut layers = Vec::with_capacity(levels.len() - 1);
    let mut at = index;
    for level in levels[1..].iter().rev() {
        layers.push(level[at].choice);
        at = level[at].parent;
    }
    layers.reverse();
    StrategySelection { layers, seconds: Seconds(whole.seconds), bytes: Bytes(whole.bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn choices() -> impl Strategy<Value = Vec<Choice>> {
        proptest::collection::vec((0usize..4, 0u32..20, 0u64..20), 1..4).prop_map(|list| {
            list.into_iter()
                .map(|(s, seconds, bytes)| Choice {
                    strategy: LayerStrategy::ALL[s],
                    seconds: Seconds(seconds.into()),
                    bytes: Bytes(bytes),
                })
                .collect()
        })
    }

    /// The seconds and bytes of every selection.
    fn all(layers: &[Vec<Choice>]) -> Vec<(f64, u64)> {
        layers.iter().fold(vec![(0.0, 0)], |sums, choices| {
            let with =
                |(s, b): (f64, u64)| choices.iter().map(move |c| (s + c.seconds.0, b + c.bytes.0));
            sums.into_iter().flat_map(with).collect()
        })
    }

    proptest! {
        #[test]
        fn the_front_is_the_front_of_all_selections(layers in proptest::collection::vec(choices(), 1..6)) {
            let every = all(&layers);
            let beaten = |s: f64, b: u64| every.iter().any(|&(t, c)| t <= s && c <= b && (t < s || c < b));
            let found = front(&layers, usize::MAX);
            for selection in &found {
                prop_assert!(!beaten(selection.seconds.0, selection.bytes.0));
                prop_assert!(every.contains(&(selection.seconds.0, selection.bytes.0)));
            }
            let mut best: Vec<_> = every.iter().filter(|&&(s, b)| !beaten(s, b)).map(|&(s, b)| (s as u64, b)).collect();
            best.sort_unstable();
            best.dedup();
            prop_assert_eq!(found.len(), best.len());
        }

        #[test]
        fn few_candidates_include_both_ends(layers in proptest::collection::vec(choices(), 1..6), limit in 2usize..8) {
            let (every, few) = (front(&layers, usize::MAX), front(&layers, limit));
            prop_assert!(few.len() <= limit && few.iter().all(|s| every.contains(s)));
            prop_assert_eq!((few.first(), few.last()), (every.first(), every.last()));
            prop_assert!(few.windows(2).all(|w| w[0].seconds.0 < w[1].seconds.0 && w[0].bytes > w[1].bytes));
        }
    }

    #[test]
    fn a_hundred_layers_are_quick_and_near_the_front() {
        let choice = |strategy, seconds, bytes| Choice {
            strategy,
            seconds: Seconds(seconds),
            bytes: Bytes(bytes),
        };
        let layer = vec![
            choice(LayerStrategy::Keep, 3.0, 1000),
            choice(LayerStrategy::Selective, 3.3, 871),
            choice(LayerStrategy::Offload, 3.71, 3),
            choice(LayerStrategy::Full, 4.0, 31),
        ];
        let found = front(&vec![layer; 100], CANDIDATES);
        assert_eq!(found.len(), CANDIDATES);
        assert_eq!(found[0].layers, [LayerStrategy::Keep; 100]);
        assert_eq!(found[CANDIDATES - 1].layers, [LayerStrategy::Offload; 100]);
        for s in &found {
            // The convex hull of this front mixes `keep` and `offload`.
            let hull = 300.0 + 71.0 * (100_000 - s.bytes.0) as f64 / 99_700.0;
            assert!(s.seconds.0 < hull + 0.71, "{s:?}");
        }
    }
}
