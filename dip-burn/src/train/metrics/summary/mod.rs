//! The figures of a whole run: for the terminal, as `summary.md` in the output folder, or as JSON.

mod load;
mod text;
mod totals;

pub use load::BatchLoad;
pub use totals::RunTotals;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Instant;

use dip_core::{Bytes, Seconds};
use serde::Serialize;

use super::{MetricSink, SinkError};
use crate::checkpoint::CheckpointError;
use crate::data::DataReport;
use crate::train::config::RunConfig;
use crate::train::report::{Evaluation, IterationReport};

/// Iterations whose errors of prediction are given apart.
const RECENT: usize = 50;

/// The figures of a run of one process, from its start or its resumption.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct RunSummary {
    /// Name of the run.
    pub name: String,
    /// Its model.
    pub model: String,
    /// Completed iterations, with those before a resumption.
    pub iteration: u64,
    /// Iterations of this process; the figures are over these.
    pub iterations: u64,
    /// Time since the start, with evaluations and checkpoints.
    pub seconds: Seconds,
    /// Loss of the first and the last iteration; absent without iterations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub losses: Option<[f64; 2]>,
    /// Tokens without padding.
    pub tokens: u64,
    /// Tokens per second of iterations.
    pub tokens_per_s: f64,
    /// Mean time of an iteration.
    pub iteration_s: Seconds,
    /// Means over iterations whose stages were timed; absent if none was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stages: Option<StageFigures>,
    /// Share of the time spent waiting for plans.
    pub stall_ratio: f64,
    /// Iterations in which a default schedule replaced the plan.
    pub fallbacks: u64,
    /// Model FLOPs utilisation, if the peak of the devices is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mfu: Option<f64>,
    /// The largest memory of any rank, as planned and measured.
    pub peak_bytes: Bytes,
    /// Patches and padding of the microbatches; absent without pictures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadFigures>,
    /// Broken samples that were skipped.
    pub skipped: u64,
    /// The held-out losses.
    pub evaluations: Vec<HeldOutLoss>,
    /// What became of the samples.
    #[serde(skip)]
    pub data: DataReport,
}

/// Mean figures of the stages of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StageFigures {
    /// Measured time from the start of the first stage to the end of the last.
    pub makespan_s: Seconds,
    /// The same, as planned.
    pub predicted_s: Seconds,
    /// Mean absolute error of the prediction, relative to the measured time.
    pub prediction_error: f64,
    /// The mean of the absolute errors in the last 50 timed iterations, when costs are learned; absent before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recent_error: Option<f64>,
    /// Share of the ranks' time without a running stage.
    pub bubble_ratio: f64,
    /// Excess over the critical path of the measured stage times, relative to that path.
    pub overhead: f64,
}

/// How full and how even the microbatches of a run are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LoadFigures {
    /// Mean patches of a microbatch.
    pub patches: f64,
    /// Their standard deviation, relative to the mean.
    pub deviation: f64,
    /// The fewest.
    pub least: u64,
    /// The most.
    pub most: u64,
    /// Share of the sequences that holds no token.
    pub padding: f64,
    /// Patches per second of iterations.
    pub patches_per_s: f64,
}

/// A held-out loss.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HeldOutLoss {
    /// Iterations completed before the evaluation.
    pub iteration: u64,
    /// Name of the loss.
    pub what: &'static str,
    /// Its value.
    pub loss: f64,
}

/// Gathers the figures of a run while it trains.
pub struct RunSummarizer {
    name: String,
    model: String,
    start: Instant,
    iteration: u64,
    losses: Option<[f64; 2]>,
    totals: RunTotals,
    /// Absolute errors of the last predictions, relative to the measured times.
    recent_errors: VecDeque<f64>,
    evaluations: Vec<HeldOutLoss>,
    data: DataReport,
}

impl RunSummarizer {
    /// Starts with no figures.
    pub fn new(config: &RunConfig) -> Self {
        Self {
            name: config.name.clone(),
            model: config.model.clone(),
            start: Instant::now(),
            iteration: 0,
            losses: None,
            totals: RunTotals::default(),
            recent_errors: VecDeque::new(),
            evaluations: Vec::new(),
            data: DataReport::default(),
        }
    }

    /// The sums so far.
    pub fn totals(&self) -> &RunTotals {
        &self.totals
    }

    /// The mean of the last errors, once there are enough.
    fn recent_error(&self) -> Option<f64> {
        let sum: f64 = self.recent_errors.iter().sum();
        (self.recent_errors.len() == RECENT).then_some(sum / RECENT as f64)
    }

    /// The figures so far.
    pub fn summary(&self) -> RunSummary {
        let t = &self.totals;
        RunSummary {
            name: self.name.clone(),
            model: self.model.clone(),
            iteration: self.iteration,
            iterations: t.iterations,
            seconds: Seconds(self.start.elapsed().as_secs_f64()),
            losses: self.losses,
            tokens: t.tokens,
            tokens_per_s: t.tokens_per_s(),
            iteration_s: Seconds(t.mean(t.elapsed_s)),
            stages: (t.timed > 0).then(|| StageFigures {
                makespan_s: Seconds(t.timed_mean(t.makespan_s)),
                predicted_s: Seconds(t.timed_mean(t.predicted_s)),
                prediction_error: t.prediction_error(),
                recent_error: self.recent_error(),
                bubble_ratio: t.timed_mean(t.bubble),
                overhead: t.overhead(),
            }),
            stall_ratio: t.stall_ratio(),
            fallbacks: t.fallbacks,
            mfu: (t.mfu > 0.0).then(|| t.mean(t.mfu)),
            peak_bytes: t.peak_bytes,
            load: t.load.figures(t.elapsed_s),
            skipped: t.skipped,
            evaluations: self.evaluations.clone(),
            data: self.data.clone(),
        }
    }
}

impl MetricSink for RunSummarizer {
    fn start(&mut self, iteration: u64) -> Result<(), SinkError> {
        self.iteration = iteration;
        Ok(())
    }

    fn iteration(&mut self, report: &IterationReport) -> Result<(), SinkError> {
        self.iteration = report.iteration + 1;
        self.losses = Some([self.losses.map_or(report.loss, |[first, _]| first), report.loss]);
        self.totals.add(report);
        if report.timed {
            self.recent_errors.push_back(report.prediction_error().abs());
            self.recent_errors.drain(..self.recent_errors.len().saturating_sub(RECENT));
        }
        self.data = report.data.clone();
        Ok(())
    }

    fn evaluation(&mut self, evaluation: &Evaluation) -> Result<(), SinkError> {
        let Evaluation { iteration, what, loss, .. } = *evaluation;
        self.evaluations.push(HeldOutLoss { iteration, what, loss });
        Ok(())
    }
}

/// `summary.md` in the output folder, written at the end of a run.
pub struct SummaryFile {
    path: PathBuf,
    summarizer: RunSummarizer,
}

impl SummaryFile {
    /// The summary of a run in its output folder.
    pub fn new(config: &RunConfig) -> Self {
        let path = config.output.join("summary.md");
        Self { path, summarizer: RunSummarizer::new(config) }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl MetricSink for SummaryFile {
    fn start(&mut self, iteration: u64) -> Result<(), SinkError> {
        self.summarizer.start(iteration)
    }

    fn iteration(&mut self, report: &IterationReport) -> Result<(), SinkError> {
        self.summarizer.iteration(report)
    }

    fn evaluation(&mut self, evaluation: &Evaluation) -> Result<(), SinkError> {
        self.summarizer.evaluation(evaluation)
    }

    fn end(&mut self) -> Result<(), SinkError> {
        let summary = self.summarizer.summary();
        // A run that was at its end keeps the summary of its training.
        if summary.iterations == 0 {
            return Ok(());
        }
        let text = summary.to_markdown();
        let written = dip_files::write_whole(&self.path, text.as_bytes());
        Ok(written.map_err(CheckpointError::io(&self.path))?)
    }
}
