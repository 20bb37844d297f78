//! Evens out sequences that are packed already: documents change places, and every sequence still has room for its own.

use super::WaitingDocument;
use super::rule::{Fitting, Room};

/// Most exchanges for each sequence.
const EXCHANGES: usize = 16;

/// Evens out the patches of sequences by moving documents and by exchanging two. It ends when no such step between two sequences brings
/// their patches closer together.
pub(in crate::data) fn balance(sequences: &mut [&mut Vec<WaitingDocument>], room: Room) {
    let mut patches: Vec<u64> = sequences.iter().map(|s| used(s).patches).collect();
    for _ in 0..EXCHANGES * sequences.len() {
        let Some(step) = best_step(sequences, &patches, room) else { break };
        let Step { from, to, gives, takes, .. } = step;
        let given = gives.map(|i| sequences[from].remove(i));
        let taken = takes.map(|i| sequences[to].remove(i));
        sequences[to].extend(given);
        sequences[from].extend(taken);
        for changed in [from, to] {
            sequences[changed].sort_by_key(|document| document.size.number);
            patches[changed] = used(sequences[changed]).patches;
        }
    }
}

/// A document that moves, and one that comes back for it.
struct Step {
    from: usize,
    to: usize,
    gives: Option<usize>,
    takes: Option<usize>,
    /// How much closer to their mean the two sequences come.
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
            let (from, to) = if patches[i] > patches[j] { (i, j) } else { (j, i) };
            step_between(sequences, patches, [from, to], room)
        });
        // The first of equals.
        steps.reduce(|best, next| if next.gain > best.gain { next } else { best })
    })
}

/// The best step from a sequence to one with fewer patches.
fn step_between(
    sequences: &[&mut Vec<WaitingDocument>],
    patches: &[u64],
    [from, to]: [usize; 2],
    room: Room,
) -> Option<Step> {
    let difference = patches[from] - patches[to];
    let (source, target) = (&*sequences[from], &*sequences[to]);
    let (source_used, target_used) = (used(source), used(target));
    let mut best: Option<Step> = None;
    let nothing = Fitting { number: 0, tokens: 0, images: 0, patches: 0 };
    for (i, given) in source.iter().enumerate() {
        // A sequence is never left empty.
        let alone = source.len() == 1;
        let back = target.iter().enumerate().map(|(k, document)| (Some(k), document.size));
        for (takes, taken) in back.chain((!alone).then_some((None, nothing))) {
            let Some(moved) = given.size.patches.checked_sub(taken.patches) else { continue };
            if moved == 0 || moved >= difference {
                continue;
            }
            let gain = u128::from(moved) * u128::from(difference - moved);
            let is_better = best.as_ref().is_none_or(|best| gain > best.gain);
            if is_better
                && has_room(room, source_used, given.size, taken)
                && has_room(room, target_used, taken, given.size)
            {
                best = Some(Step { from, to, gives: Some(i), takes, gain });
            }
        }
    }
    best
}

/// True if a sequence has room after one document has gone and another has come.
fn has_room(room: Room, used: Fitting, gone: Fitting, come: Fitting) -> bool {
    used.tokens - gone.tokens + come.tokens <= room.tokens
        && used.images - gone.images + come.images <= room.images
        && used.patches - gone.patches + come.patches <= room.patches
}

/// What the documents of a sequence take together.
pub(super) fn used(sequence: &[WaitingDocument]) -> Fitting {
    let nothing = Fitting { number: 0, tokens: 0, images: 0, patches: 0 };
    sequence.iter().fold(nothing, |sum, WaitingDocument { size, .. }| Fitting {
        number: 0,
        tokens: sum.tokens + size.tokens,
        images: sum.images + size.images,
        patches: sum.patches + size.patches,
    })
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
