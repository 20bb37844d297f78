//! The destinations of metrics: files, and any [`MetricSink`].

mod json_lines;
mod prometheus;
mod samples;
mod scalars;
mod summary;
mod tensorboard;
mod traces;

pub use json_lines::JsonLines;
#[cfg(feature = "schema")]
pub(super) use json_lines::MetricLine;
pub use prometheus::Prometheus;
pub use samples::{SampleFiles, write as write_samples};
pub use summary::{
    BatchLoad, HeldOutLoss, LoadFigures, RunSummarizer, RunSummary, RunTotals, StageFigures,
    SummaryFile,
};
pub use tensorboard::TensorBoard;
pub use traces::TraceFiles;

use std::error::Error;
use std::path::Path;

use super::EarlyStop;
use super::config::RunConfig;
use super::report::{Evaluation, IterationReport};
use crate::checkpoint::CheckpointError;

/// The error of a sink that cannot take a report. It ends the run.
pub type SinkError = Box<dyn Error + Send + Sync>;

/// Receives the metrics of a run while it trains. By default every method ignores its argument.
pub trait MetricSink {
    /// The run starts with `iteration` iterations completed. Sinks drop later reports, which a killed run has left.
    ///
    /// # Errors
    /// [`SinkError`] if the sink cannot be opened.
    fn start(&mut self, iteration: u64) -> Result<(), SinkError> {
        let _ = iteration;
        Ok(())
    }

    /// An iteration is done.
    ///
    /// # Errors
    /// [`SinkError`] if the report cannot be taken.
    fn iteration(&mut self, report: &IterationReport) -> Result<(), SinkError> {
        let _ = report;
        Ok(())
    }

    /// The model was evaluated.
    ///
    /// # Errors
    /// [`SinkError`] if the evaluation cannot be taken.
    fn evaluation(&mut self, evaluation: &Evaluation) -> Result<(), SinkError> {
        let _ = evaluation;
        Ok(())
    }

    /// A checkpoint was written.
    ///
    /// # Errors
    /// [`SinkError`] if it cannot be reported.
    fn checkpoint(&mut self, path: &Path) -> Result<(), SinkError> {
        let _ = path;
        Ok(())
    }

    /// A checkpoint could not be written, and the run goes on, as `checkpoint.on_error` says.
    ///
    /// # Errors
    /// [`SinkError`] if it cannot be reported.
    fn checkpoint_failed(&mut self, error: &CheckpointError) -> Result<(), SinkError> {
        let _ = error;
        Ok(())
    }

    /// The run ends before its last iteration, because its held-out loss no longer falls.
    ///
    /// # Errors
    /// [`SinkError`] if it cannot be reported.
    fn early_stop(&mut self, iteration: u64, early_stop: &EarlyStop) -> Result<(), SinkError> {
        let _ = (iteration, early_stop);
        Ok(())
    }

    /// The run ends, at its last iteration or because it was asked to stop. A run that fails has no end.
    ///
    /// # Errors
    /// [`SinkError`] if it cannot be reported.
    fn end(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

/// Ignores everything.
impl MetricSink for () {}

/// The files that a run writes to its output folder: `metrics.jsonl`, samples, `summary.md`, and TensorBoard
/// events and timelines if the run asks for them.
pub(super) fn file_sinks(config: &RunConfig) -> Vec<Box<dyn MetricSink>> {
    let mut sinks: Vec<Box<dyn MetricSink>> = vec![Box::new(JsonLines::new(&config.output))];
    if config.metrics.tensorboard {
        sinks.push(Box::new(TensorBoard::new(&config.output.join("tensorboard"))));
    }
    if config.metrics.prometheus {
        sinks.push(Box::new(Prometheus::new(&config.output, &config.name)));
    }
    sinks.push(Box::new(SampleFiles::new(&config.output.join("samples"))));
    sinks.push(Box::new(TraceFiles::new(&config.output.join("traces"))));
    sinks.push(Box::new(SummaryFile::new(config)));
    sinks
}

/// Reports to several sinks, in order.
#[derive(Default)]
pub(super) struct Sinks<'a>(Vec<&'a mut (dyn MetricSink + 'a)>);

impl<'a> Sinks<'a> {
    pub fn add(&mut self, sink: &'a mut (dyn MetricSink + 'a)) {
        self.0.push(sink);
    }

    pub fn start(&mut self, iteration: u64) -> Result<(), SinkError> {
        self.each(|sink| sink.start(iteration))
    }

    pub fn iteration(&mut self, report: &IterationReport) -> Result<(), SinkError> {
        self.each(|sink| sink.iteration(report))
    }

    pub fn evaluation(&mut self, evaluation: &Evaluation) -> Result<(), SinkError> {
        self.each(|sink| sink.evaluation(evaluation))
    }

    pub fn checkpoint(&mut self, path: &Path) -> Result<(), SinkError> {
        self.each(|sink| sink.checkpoint(path))
    }

    pub fn checkpoint_failed(&mut self, error: &CheckpointError) -> Result<(), SinkError> {
        self.each(|sink| sink.checkpoint_failed(error))
    }

    pub fn early_stop(&mut self, iteration: u64, stop: &EarlyStop) -> Result<(), SinkError> {
        self.each(|sink| sink.early_stop(iteration, stop))
    }

    pub fn end(&mut self) -> Result<(), SinkError> {
        self.each(|sink| sink.end())
    }

    fn each(
        &mut self,
        mut report: impl FnMut(&mut dyn MetricSink) -> Result<(), SinkError>,
    ) -> Result<(), SinkError> {
        self.0.iter_mut().try_for_each(|sink| report(&mut **sink))
    }
}
