//! What is measured, and for how long.

use dip_core::Seconds;

use crate::batch::ClipSize;
use crate::model::Precision;
use crate::runtime::Algorithm;

/// How long to measure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeasureSettings {
    /// How often everything is measured, in turn, so that what disturbs a machine for a while falls on all alike; the lower
    /// quartile counts.
    pub rounds: usize,
    /// Runs of a round that are thrown away.
    pub warm_up: usize,
    /// Most runs of a round that count: their mean, without a tenth at either end.
    pub runs: usize,
    /// Microbatches whose forwards run before the first backward: a run is the mean of them.
    pub in_flight: usize,
    /// Time after which one of them is enough: a long run is disturbed less than a short one.
    pub enough: Seconds,
    /// Threads that measure at the same time: the ranks of the pipeline.
    pub ranks: usize,
    /// Compute threads of each of them.
    pub threads: usize,
    /// Documents of a packed sequence: attention costs less in many short ones.
    pub documents: usize,
    /// What the layers compute in.
    pub precision: Precision,
    /// A clip of mean size.
    pub clip: ClipSize,
    /// How weights are updated.
    pub algorithm: Algorithm,
    /// Whether moving averages of the weights are kept.
    pub averages: bool,
}

impl Default for MeasureSettings {
    fn default() -> Self {
        let (precision, clip) = (Precision::F32, ClipSize::default());
        let (rounds, warm_up, runs, in_flight, enough) = (4, 1, 1, 3, Seconds(1.0));
        let (ranks, threads, documents) = (2, 1, 8);
        let (algorithm, averages) = (Algorithm::default(), false);
        Self {
            rounds,
            warm_up,
            runs,
            in_flight,
            enough,
            ranks,
            threads,
            documents,
            precision,
            clip,
            algorithm,
            averages,
        }
    }
}
