//! Sums over the iterations of a run.

use dip_core::Bytes;

use super::load::BatchLoad;
use crate::train::report::IterationReport;

/// Sums over the iterations of a run. The means of figures follow from them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct RunTotals {
    /// Number of iterations.
    pub iterations: u64,
    /// Tokens without padding.
    pub tokens: u64,
    /// Time of whole iterations, in seconds.
    pub elapsed_s: f64,
    /// Iterations whose stages were timed by their devices. The next five sums are over these.
    pub timed: u64,
    /// Measured makespans.
    pub makespan_s: f64,
    /// Predicted makespans.
    pub predicted_s: f64,
    /// Absolute differences between predicted and measured makespans.
    pub error_s: f64,
    /// Critical paths of the measured stage times.
    pub critical_path_s: f64,
    /// Bubble ratios.
    pub bubble: f64,
    /// Waits for plans.
    pub stall_s: f64,
    /// Iterations in which a default schedule replaced the plan.
    pub fallbacks: u64,
    /// Utilisations, of iterations that report one.
    pub mfu: f64,
    /// The largest memory of any rank, as planned and measured.
    pub peak_bytes: Bytes,
    /// Broken samples skipped since the start.
    pub skipped: u64,
    /// Patches and padding of the microbatches.
    pub load: BatchLoad,
}

impl RunTotals {
    /// Adds an iteration.
    pub fn add(&mut self, report: &IterationReport) {
        self.iterations += 1;
        self.tokens += report.tokens;
        self.elapsed_s += report.elapsed_s.0;
        if report.timed {
            self.timed += 1;
            self.makespan_s += report.makespan_s.0;
            self.predicted_s += report.predicted_s.0;
            self.error_s += (report.predicted_s.0 - report.makespan_s.0).abs();
            self.critical_path_s += report.critical_path_s.0;
            self.bubble += report.bubble_ratio;
        }
        self.stall_s += report.stall_s.0;
        self.fallbacks += u64::from(report.fallback);
        self.mfu += report.mfu.unwrap_or(0.0);
        let peak = report.peak_bytes.iter().copied().max();
        self.peak_bytes = self.peak_bytes.max(peak.unwrap_or_default());
        self.skipped = report.skipped;
        self.load.add(&report.patches, report.padding);
    }

    /// The mean over the iterations of one of the sums.
    pub fn mean(&self, sum: f64) -> f64 {
        sum / self.iterations.max(1) as f64
    }

    /// The mean over the timed iterations of one of their sums.
    pub fn timed_mean(&self, sum: f64) -> f64 {
        sum / self.timed.max(1) as f64
    }

    /// Tokens per second.
    pub fn tokens_per_s(&self) -> f64 {
        self.tokens as f64 / self.elapsed_s.max(f64::MIN_POSITIVE)
    }

    /// Share of the time spent waiting for plans.
    pub fn stall_ratio(&self) -> f64 {
        self.stall_s / self.elapsed_s.max(f64::MIN_POSITIVE)
    }

    /// Mean absolute error of the predicted makespan, relative to the measured one.
    pub fn prediction_error(&self) -> f64 {
        self.error_s / self.makespan_s.max(f64::MIN_POSITIVE)
    }

    /// Excess of the makespan over the critical path of the measured stage times, relative to that path.
    pub fn overhead(&self) -> f64 {
        self.makespan_s / self.critical_path_s.max(f64::MIN_POSITIVE) - 1.0
    }
}
