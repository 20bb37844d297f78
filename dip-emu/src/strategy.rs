//! Candidate strategies of a stage pair: a multiple-choice knapsack over the choices of its layers (paper section 2).

use dip_core::{Bytes, LayerStrategy, Seconds};

/// Most candidates of a stage pair, `S` in the paper.
pub const CANDIDATES: usize = 10;
/// Most partial selections that are carried from one layer to the next. Up to here the front is exact; beyond, selections
/// that differ by less than one part in so many of the memory count as equal.
const STATES: usize = 256;

/// What one layer may do, and what that adds to its stage pair.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// The strategy of the layer.
    pub strategy: LayerStrategy,
    /// Seconds of the forward and the backward together.
    pub seconds: Seconds,
    /// Bytes held in between.
    pub bytes: Bytes,
}

/// One choice for each layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// The strategy of each layer.
    pub layers: Vec<LayerStrategy>,
    /// Seconds in all.
    pub seconds: Seconds,
    /// Bytes in all.
    pub bytes: Bytes,
}

/// A partial selection: its last choice and the state it extends.
#[derive(Debug, Clone, Copy)]
struct State {
    seconds: f64,
    bytes: u64,
    choice: LayerStrategy,
    parent: usize,
}

/// At most `limit` selections on the time-memory front, the fastest first: the fastest, the smallest, and the fastest
/// within each of `limit - 2` memory limits evenly between them. Empty where a layer has no choice.
pub fn front(layers: &[Vec<Choice>], limit: usize) -> Vec<Selection> {
    let start = State { seconds: 0.0, bytes: 0, choice: LayerStrategy::Keep, parent: 0 };
    let mut levels = vec![vec![start]];
    for choices in layers {
        let last = levels.last().map_or(&[][..], Vec::as_slice);
        let extended = last.iter().enumerate().flat_map(|(parent, state)| {
            choices.iter().map(move |c| State {
                seconds: state.seconds + c.seconds.0,
                bytes: state.bytes.saturating_add(c.bytes.0),
                choice: c.strategy,
                parent,
            })
        });
        let level = thin(pareto(extended.collect()), STATES);
        levels.push(level);
    }
    let Some(last) = levels.last() else { return Vec::new() };
    let picked = thin((0..last.len()).map(|i| (i, last[i])).collect(), limit);
    picked.into_iter().map(|(i, state)| select(&levels, i, state)).collect()
}

/// States that no other beats in both time and memory, by rising time and falling memory.
fn pareto(mut states: Vec<State>) -> Vec<State> {
    states.sort_by(|a, b| a.seconds.total_cmp(&b.seconds).then(a.bytes.cmp(&b.bytes)));
    let mut least = None;
    states.retain(|s| {
        let better = least.is_none_or(|bytes| s.bytes < bytes);
        if better {
            least = Some(s.bytes);
        }
        better
    });
    states
}

/// What is thinned by its memory.
trait HasBytes {
    fn bytes(&self) -> u64;
}

impl HasBytes for State {
    fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl HasBytes for (usize, State) {
    fn bytes(&self) -> u64 {
        self.1.bytes
    }
}

/// At most `limit` states of a front: both ends, and the fastest within each of `limit - 2` memory limits evenly between.
fn thin<T: HasBytes + Copy>(front: Vec<T>, limit: usize) -> Vec<T> {
    let (Some(first), Some(last)) = (front.first(), front.last()) else { return front };
    if front.len() <= limit || limit < 2 {
        return front.into_iter().take(limit).collect();
    }
    let (most, least) = (first.bytes(), last.bytes());
    let steps = limit as u128 - 1;
    let within = |i: u128| most - (u128::from(most - least) * i / steps) as u64;
    let mut picked = vec![*first];
    let mut i = 1;
    for s in &front[1..front.len() - 1] {
        if i < steps && s.bytes() <= within(i) {
            picked.push(*s);
            while i < steps && s.bytes() <= within(i) {
                i += 1;
            }
        }
    }
    picked.push(*last);
    picked
}

/// Follows the parents of a state back to the first layer.
fn select(levels: &[Vec<State>], index: usize, state: State) -> Selection {
    let mut layers = Vec::with_capacity(levels.len() - 1);
    let mut at = index;
    for level in levels[1..].iter().rev() {
        layers.push(level[at].choice);
        at = level[at].parent;
    }
    layers.reverse();
    Selection { layers, seconds: Seconds(state.seconds), bytes: Bytes(state.bytes) }
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

    /// Every selection, as (seconds, bytes).
    fn all(layers: &[Vec<Choice>]) -> Vec<(f64, u64)> {
        layers.iter().fold(vec![(0.0, 0)], |sums, choices| {
            let with =
                |(s, b): (f64, u64)| choices.iter().map(move |c| (s + c.seconds.0, b + c.bytes.0));
            sums.into_iter().flat_map(with).collect()
        })
    }

    proptest! {
        #[test]
        fn the_front_is_that_of_every_selection(layers in proptest::collection::vec(choices(), 1..6)) {
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
        fn few_candidates_keep_both_ends(layers in proptest::collection::vec(choices(), 1..6), limit in 2usize..8) {
            let (every, few) = (front(&layers, usize::MAX), front(&layers, limit));
            prop_assert!(few.len() <= limit && few.iter().all(|s| every.contains(s)));
            prop_assert_eq!((few.first(), few.last()), (every.first(), every.last()));
            prop_assert!(few.windows(2).all(|w| w[0].seconds.0 < w[1].seconds.0 && w[0].bytes > w[1].bytes));
        }
    }

    #[test]
    fn a_hundred_layers_stay_quick_and_near_the_front() {
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
