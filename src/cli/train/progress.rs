//! The progress of a run on the terminal: a panel, or lines in a pipe.

use std::path::Path;
use std::time::{Duration, Instant};

use dip::train::checkpoint::CheckpointError;
use dip::train::data::DataReport;
use dip::train::{
    EarlyStop, Evaluation, HeldOutLoss, IterationReport, MetricSink, RunConfig, RunSummarizer,
    SinkError,
};
use indicatif::MultiProgress;

use super::generated::print_generated;
use super::panel::{Panel, Shown};
use crate::cli::output::{Figures, JsonOutput};
use crate::cli::terminal;

/// Time between two lines in a pipe.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shows a run on the terminal.
pub struct Progress {
    json: JsonOutput,
    panel: Panel,
    iterations: u64,
    summarizer: RunSummarizer,
    last_line: Option<Instant>,
    held_out: Option<HeldOutLoss>,
    last_evaluation: Option<Evaluation>,
    warned_of_skips: bool,
    warned_of_pictures: bool,
}

impl Figures for dip::train::RunSummary {
    const SCHEMA: &'static str = "dip.summary/v1";
}

impl Progress {
    /// The progress of a run that begins after `done` iterations.
    pub fn new(config: &RunConfig, done: u64, json: JsonOutput) -> Self {
        Self {
            json,
            panel: Panel::new(config.iterations, done),
            iterations: config.iterations,
            summarizer: RunSummarizer::new(config),
            last_line: None,
            held_out: None,
            last_evaluation: None,
            warned_of_skips: false,
            warned_of_pictures: false,
        }
    }

    /// The lines of the panel, for those who print above them.
    pub fn lines(&self) -> MultiProgress {
        self.panel.lines()
    }

    fn say(&self, text: String) {
        self.panel.print(|| self.json.say(text));
    }

    /// Warns once of each thing that is wrong with the data.
    fn warn(&mut self, data: &DataReport) {
        if let (Some(text), false) = (data.skips_many(), self.warned_of_skips) {
            self.panel.print(|| terminal::warn(text));
            self.warned_of_skips = true;
        }
        if let (Some(text), false) = (data.without_pictures(), self.warned_of_pictures) {
            self.panel.print(|| terminal::warn(text));
            self.warned_of_pictures = true;
        }
    }

    /// True if a line is due: in a pipe now and then, and always in a verbose command.
    fn is_line_due(&mut self) -> bool {
        let is_late = self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY);
        let is_due = terminal::is_verbose() || self.panel.is_hidden() && is_late;
        if is_due {
            self.last_line = Some(Instant::now());
        }
        is_due
    }

    /// Prints the summary of the run.
    pub fn finish(&self) -> anyhow::Result<()> {
        self.panel.end();
        let summary = self.summarizer.summary();
        self.json.print(&summary, || {
            if summary.iterations == 0 {
                println!("nothing to do: the run is at its end");
                return;
            }
            print!("{}", summary.to_text());
            if let Some(last) = &self.last_evaluation {
                print_generated(last, Path::new("the folder `samples` of the output"));
            }
        })
    }
}

/// The figures of an iteration on one line.
fn line(report: &IterationReport, summarizer: &RunSummarizer) -> String {
    let totals = summarizer.totals();
    format!(
        "loss {:.3} {:.0} tokens/s bubble {:.1} % stall {:.2} %",
        report.loss,
        report.tokens_per_s,
        100.0 * totals.timed_mean(totals.bubble),
        100.0 * totals.stall_ratio()
    )
}

impl MetricSink for Progress {
    fn start(&mut self, iteration: u64) -> Result<(), SinkError> {
        self.summarizer.start(iteration)
    }

    fn iteration(&mut self, report: &IterationReport) -> Result<(), SinkError> {
        self.summarizer.iteration(report)?;
        for notice in &report.notices {
            self.say(format!("after iteration {}: {notice}", report.iteration + 1));
        }
        self.warn(&report.data);
        if self.is_line_due() {
            let line = line(report, &self.summarizer);
            self.say(format!("iteration {} of {}: {line}", report.iteration + 1, self.iterations));
        }
        let (totals, held_out) = (self.summarizer.totals(), self.held_out.as_ref());
        self.panel.show(&Shown { report, totals, held_out });
        Ok(())
    }

    fn evaluation(&mut self, evaluation: &Evaluation) -> Result<(), SinkError> {
        self.summarizer.evaluation(evaluation)?;
        self.say(format!(
            "after iteration {}: held-out {} {:.3}",
            evaluation.iteration, evaluation.what, evaluation.loss
        ));
        let Evaluation { iteration, what, loss, .. } = *evaluation;
        self.held_out = Some(HeldOutLoss { iteration, what, loss });
        self.last_evaluation = Some(evaluation.clone());
        Ok(())
    }

    fn early_stop(&mut self, iteration: u64, early_stop: &EarlyStop) -> Result<(), SinkError> {
        let best = early_stop.best.unwrap_or(f64::NAN);
        self.say(format!(
            "stopped after iteration {iteration}: {} evaluations without a held-out loss below {best:.4}",
            early_stop.since
        ));
        Ok(())
    }

    fn checkpoint_failed(&mut self, error: &CheckpointError) -> Result<(), SinkError> {
        self.panel.print(|| terminal::warn(format!("no checkpoint: {error}")));
        Ok(())
    }

    fn checkpoint(&mut self, path: &Path) -> Result<(), SinkError> {
        self.say(format!("checkpoint {}", path.display()));
        Ok(())
    }
}
