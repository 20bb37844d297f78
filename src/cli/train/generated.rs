//! Captions and clips of an evaluation, on the terminal.

use std::path::Path;

use dip::train::Evaluation;
use dip::train::data::toy::SampleMatch;

/// Prints captions, and the match of clips that are in `folder`.
pub fn print_generated(evaluation: &Evaluation, folder: &Path) {
    print_captions(evaluation);
    print_samples(evaluation, folder);
}

fn print_captions(evaluation: &Evaluation) {
    let captions = &evaluation.captions;
    for c in captions {
        let mark = match c.right {
            Some(true) => "right",
            Some(false) => "wrong",
            None => "",
        };
        println!("  {mark:5} | {} | generated: {}", c.expected.trim(), c.generated.trim());
    }
    let free = || captions.iter().filter(|c| c.right.is_none());
    if free().next().is_some() {
        let exact = free().filter(|c| c.generated.trim() == c.expected.trim()).count();
        println!(
            "{exact} of {} held-out captions are word for word those of the data",
            free().count()
        );
    }
    let known: Vec<bool> = captions.iter().filter_map(|c| c.right).collect();
    if !known.is_empty() {
        let right = known.iter().filter(|&&r| r).count();
        println!(
            "{right} of {} held-out captions are right in every colour and shape",
            known.len()
        );
    }
}

fn print_samples(evaluation: &Evaluation, folder: &Path) {
    let samples = &evaluation.samples;
    if samples.is_empty() {
        return;
    }
    println!("{} clips sampled for held-out captions, in {}", samples.len(), folder.display());
    let mark = |right: bool| if right { "right" } else { "wrong" };
    let known = samples.iter().filter_map(|s| Some((&s.caption, s.seen?)));
    for (caption, seen) in known.clone() {
        let (colour, shape) = (mark(seen.colour), mark(seen.shape));
        println!(
            "  {caption:32} | colour {colour}, shape {shape}, direction {}",
            mark(seen.direction)
        );
    }
    let count_known = known.clone().count();
    if count_known > 0 {
        let count =
            |right: fn(&SampleMatch) -> bool| known.clone().filter(|(_, s)| right(s)).count();
        println!(
            "of {count_known} held-out combinations {} show the named colour, {} the shape, {} the direction, {} all three",
            count(|s| s.colour),
            count(|s| s.shape),
            count(|s| s.direction),
            count(|s| s.all())
        );
    }
}
