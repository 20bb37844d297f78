//! Reports as the scalars of TensorBoard.

use crate::train::report::{Evaluation, IterationReport};

/// The scalars of an iteration, each a tag and a value.
pub(super) fn of_iteration(report: &IterationReport) -> Vec<(String, f64)> {
    let r = report;
    let mut scalars = vec![
        ("train/loss", r.loss),
        ("train/gradient_norm", r.gradient_norm),
        ("train/learning_rate", r.learning_rate),
        ("throughput/tokens_per_s", r.tokens_per_s),
        ("throughput/iteration_s", r.elapsed_s.0),
        ("pipeline/planned_s", r.predicted_s.0),
        ("planner/stall_s", r.stall_s.0),
        ("planner/search_s", r.search_s.0),
        ("planner/fallback", f64::from(u8::from(r.fallback))),
        ("data/skipped_samples", r.skipped as f64),
        ("data/microbatches", r.microbatches as f64),
    ];
    let timed = [
        ("pipeline/measured_s", r.makespan_s.0),
        ("pipeline/prediction_error", r.prediction_error()),
        ("pipeline/bubble_ratio", r.bubble_ratio),
    ];
    scalars.extend(timed.into_iter().filter(|_| r.timed));
    // A plan without a proven bound has no finite gap.
    scalars.extend(r.gap.is_finite().then_some(("planner/gap", r.gap)));
    scalars.extend(r.padding.map(|padding| ("data/padding", padding)));
    scalars.extend(r.mfu.map(|mfu| ("throughput/mfu", mfu)));
    scalars.extend(r.resident_bytes.map(|bytes| ("memory/resident_bytes", bytes.0 as f64)));
    let mut scalars: Vec<(String, f64)> =
        scalars.into_iter().map(|(tag, value)| (tag.to_owned(), value)).collect();
    for (rank, peak) in r.peak_activation_bytes.iter().enumerate() {
        scalars.push((format!("memory/peak_activation_bytes/rank_{rank}"), peak.0 as f64));
    }
    scalars
}

/// The scalars of an evaluation.
pub(super) fn of_evaluation(evaluation: &Evaluation) -> Vec<(String, f64)> {
    let mut scalars = vec![("evaluation/loss".to_owned(), evaluation.loss)];
    let matches: Vec<bool> = evaluation.captions.iter().filter_map(|c| c.right).collect();
    if !matches.is_empty() {
        let right = matches.iter().filter(|&&right| right).count();
        scalars.push(("evaluation/right_captions".into(), right as f64 / matches.len() as f64));
    }
    let matches: Vec<bool> =
        evaluation.samples.iter().filter_map(|s| Some(s.seen?.all())).collect();
    if !matches.is_empty() {
        let right = matches.iter().filter(|&&right| right).count();
        scalars.push(("evaluation/right_samples".into(), right as f64 / matches.len() as f64));
    }
    scalars
}
