//! Settings of a measurement: its length and its sizes.

use dip_core::Seconds;

use crate::batch::ClipSize;
use crate::model::Precision;
use crate::runtime::Algorithm;

/// The settings of a measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeasureSettings {
    /// Rounds. Each measures everything once, so that a disturbance of the machine affects all parts equally. The lower quartile
    /// of the rounds counts.
    pub rounds: usize,
    /// Warm-up runs at the start of a round, which do not count.
    pub warm_up: usize,
    /// The most runs of a round. The result is their mean without the smallest and the largest tenth.
    pub runs: usize,
    /// Microbatches whose forwards run before the first backward. The time of a run is their mean.
    pub in_flight: usize,
    /// Time after which one run is enough: long runs are disturbed less than short ones.
    pub enough: Seconds,
    /// Threads that measure at the same time: the ranks of the pipeline.
    pub ranks: usize,
    /// Compute threads of each of them.
    pub threads: usize,
    /// Documents of a packed sequence; many short documents cost less attention.
    pub documents: usize,
    /// The precision of the layers.
    pub precision: Precision,
    /// A clip of mean size.
    pub clip: ClipSize,
    /// Mean length of sounds, in seconds.
    pub sound_seconds: f64,
    /// The optimiser's algorithm.
    pub algorithm: Algorithm,
    /// True if moving averages of the weights are kept.
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
            sound_seconds: 10.0,
            algorithm,
            averages,
        }
    }
}
