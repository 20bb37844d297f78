//! Evens out sequences that are packed already. Their documents change places, and every sequence still has room for its own.

use super::rule::Fitting;
use super::waiting::{WaitingDocument, used};
use crate::data::document::Room;

/// Most steps for each sequence.
const STEPS: usize = 16;
/// Most documents of two sequences that are divided anew in every way. Of more, at most two change places.
const FEW: usize = 10;

/// Evens out the patches of sequences: two at a time divide their documents anew. It ends when no two sequences can come closer
/// together.
pub(in crate::data) fn balance(sequences: &mut [&mut Vec<WaitingDocument>], room: Room) {
    let mut patches: Vec<u64> = sequences.iter().map(|s| used(s).patches).collect();
    for _ in 0..STEPS * sequences.len() {
        let Some(Step { pair: [from, to], moved, .. }) = best_step(sequences, &patches, room)
        else {
            break;
        };
        let mut both = std::mem::take(sequences[from]);
        both.append(sequences[to]);
        for (i, document) in both.into_iter().enumerate() {
            sequences[if moved >> i & 1 == 1 { to } else { from }].push(document);
        }
        for changed in [from, to] {
            sequences[changed].sort_by_key(|document| document.size.number);
            patches[changed] = used(sequences[changed]).patches;
        }
    }
}

/// Another division of the documents of two sequences.
struct Step {
    pair: [usize; 2],
    /// A bit for each document of the first, then of the second sequence: 1 if it is in the second afterwards.
    moved: u128,
    /// How much closer to their mean the two come.
    gain: u128,
}

/// The best step of the sequence that is furthest from the mean and has one.
fn best_step(sequences: &[&mut Vec<WaitingDocument>], patches: &[u64], room: Room) -> Option<Step> {
    let mean = patches.iter().sum::<u64>() / patches.len().max(1) as u64;
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(patches[i].abs_diff(mean)));
    order.iter().find_map(|&i| {
        let others = (0..sequences.len()).filter(|&j| patches[j] != patches[i]);
        let steps = others.filter_map(|j| {
            let pair = if patches[i] > patches[j] { [i, j] } else { [j, i] };
            step_between(pair.map(|k| &**sequences[k]), room).map(|step| Step { pair, ..step })
        });
        // The first of equals.
        steps.reduce(|best, next| if next.gain > best.gain { next } else { best })
    })
}

/// The best step between a sequence and one with fewer patches.
fn step_between([from, to]: [&[WaitingDocument]; 2], room: Room) -> Option<Step> {
    let both: Vec<Fitting> = from.iter().chain(to).map(|document| document.size).collect();
    if both.len() > u128::BITS as usize {
        return None;
    }
    let now = u128::MAX << from.len() & (u128::MAX >> (u128::BITS as usize - both.len()));
    let (before, all) = (used(from), both.iter().fold(Fitting::NOTHING, |sum, &d| sum.with(d)));
    let difference = before.patches - used(to).patches;
    let mut best: Option<Step> = None;
    let mut try_division = |moved: u128| {
        let second = (0..both.len()).filter(|i| moved >> i & 1 == 1);
        let second = second.fold(Fitting::NOTHING, |sum, i| sum.with(both[i]));
        let first = all.without(second);
        let apart = first.patches.abs_diff(second.patches);
        if apart >= difference || !first.fits(room) || !second.fits(room) {
            return;
        }
        let gain = u128::from(difference).pow(2) - u128::from(apart).pow(2);
        if best.as_ref().is_none_or(|best| gain > best.gain) {
            best = Some(Step { pair: [0, 1], moved, gain });
        }
    };
    if both.len() <= FEW {
        // Neither is left empty.
        (1..(1 << both.len()) - 1).for_each(&mut try_division);
        return best;
    }
    for i in 0..from.len() {
        if from.len() > 1 {
            try_division(now | 1 << i);
        }
        (from.len()..both.len()).for_each(|k| try_division((now | 1 << i) & !(1 << k)));
    }
    best
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sequence(documents: &[(u32, u64)], first: u64) -> Vec<WaitingDocument> {
        let document = |(number, &(tokens, patches)): (u64, &(u32, u64))| WaitingDocument {
            size: Fitting { number, tokens, images: u32::from(patches > 0), patches },
            document: Default::default(),
        };
        (first..).zip(documents).map(document).collect()
    }

    fn deviation(sequences: &[Vec<WaitingDocument>]) -> f64 {
        let all: Vec<f64> = sequences.iter().map(|s| used(s).patches as f64).collect();
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        all.iter().map(|x| (x - mean).powi(2)).sum()
    }

    #[test]
    fn documents_with_pictures_are_dealt_evenly() {
        let mut sequences = [
            sequence(&[(8, 6), (8, 6)], 0),
            sequence(&[(8, 0), (8, 0)], 2),
            sequence(&[(8, 3)], 4),
        ];
        let room = Room { tokens: 16, images: 8, patches: 99 };
        balance(&mut sequences.iter_mut().collect::<Vec<_>>(), room);
        let patches = sequences.each_ref().map(|s| used(s).patches);
        assert_eq!(patches.iter().sum::<u64>(), 15);
        assert_eq!(patches, [6, 6, 3]);
    }

    proptest! {
        #[test]
        fn no_document_is_lost_no_sequence_overflows_and_none_is_less_even(
            sizes in prop::collection::vec(prop::collection::vec((1u32..9, 0u64..50), 1..5), 2..9),
        ) {
            let mut first = 0;
            let mut sequences = Vec::new();
            for documents in &sizes {
                sequences.push(sequence(documents, first));
                first += documents.len() as u64;
            }
            let room = Room { tokens: 36, images: 4, patches: 200 };
            let before = deviation(&sequences);
            balance(&mut sequences.iter_mut().collect::<Vec<_>>(), room);
            prop_assert!(deviation(&sequences) <= before);
            let mut numbers: Vec<u64> = sequences.iter().flatten().map(|d| d.size.number).collect();
            numbers.sort_unstable();
            prop_assert!(numbers.into_iter().eq(0..first));
            for sequence in &sequences {
                let used = used(sequence);
                prop_assert!(!sequence.is_empty());
                prop_assert!(sequence.is_sorted_by_key(|document| document.size.number));
                prop_assert!(used.tokens <= 36 && used.images <= 4 && used.patches <= 200);
            }
        }
    }
}
