//! The progress bar of a run, and the summary at its end.

use std::path::Path;
use std::time::Instant;

use dip::plan::Bytes;
use dip::train::checkpoint::CheckpointError;
use dip::train::data::DataReport;
use dip::train::data::toy::SampleMatch;
use dip::train::{EarlyStop, Evaluation, IterationReport, MetricSink, SinkError};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::load::BatchLoad;

/// Shows a run on the terminal.
pub struct Progress {
    bar: ProgressBar,
    start: Instant,
    totals: Totals,
    evaluations: Vec<Evaluation>,
    /// The newest report of the data.
    data: DataReport,
    warned_of_skips: bool,
    warned_of_pictures: bool,
}

/// Sums over the iterations of a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    pub iterations: u64,
    pub tokens: u64,
    pub elapsed_s: f64,
    /// Iterations whose stages were timed by their devices. The next five sums are over these.
    pub timed: u64,
    pub makespan_s: f64,
    pub predicted_s: f64,
    /// Sum of the absolute differences between predicted and measured makespans.
    pub error_s: f64,
    pub critical_path_s: f64,
    pub bubble: f64,
    pub stall_s: f64,
    pub fallbacks: u64,
    /// Sum of the utilisations of the iterations that report one.
    pub mfu: f64,
    /// The largest memory of any rank, as planned and measured.
    pub peak_bytes: u64,
    pub skipped: u64,
    pub load: BatchLoad,
}

impl Totals {
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
        let peak = report.peak_bytes.iter().map(|bytes| bytes.0).max();
        self.peak_bytes = self.peak_bytes.max(peak.unwrap_or(0));
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

    pub fn tokens_per_s(&self) -> f64 {
        self.tokens as f64 / self.elapsed_s.max(f64::MIN_POSITIVE)
    }

    /// Share of the time spent waiting for plans, in per cent.
    pub fn stall_percent(&self) -> f64 {
        100.0 * self.stall_s / self.elapsed_s.max(f64::MIN_POSITIVE)
    }

    /// Mean absolute error of the predicted makespan, in per cent of the measured one.
    pub fn error_percent(&self) -> f64 {
        100.0 * self.error_s / self.makespan_s.max(f64::MIN_POSITIVE)
    }

    /// Excess of the makespan over the critical path of the measured stage times, in per cent of that path.
    pub fn overhead_percent(&self) -> f64 {
        100.0 * (self.makespan_s / self.critical_path_s.max(f64::MIN_POSITIVE) - 1.0)
    }
}

impl Progress {
    pub fn new(iterations: u64, done: u64) -> Self {
        let bar = ProgressBar::new(iterations).with_position(done);
        let template = "{bar:16} {pos}/{len}, {eta} left, {wide_msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        let totals = Totals::default();
        Self {
            bar,
            start: Instant::now(),
            totals,
            evaluations: Vec::new(),
            data: DataReport::default(),
            warned_of_skips: false,
            warned_of_pictures: false,
        }
    }

    /// Warns once of each thing that is wrong with the data.
    fn warn(&mut self, data: &DataReport) {
        if let (Some(text), false) = (data.skips_many(), self.warned_of_skips) {
            self.bar.suspend(|| eprintln!("warning: {text}"));
            self.warned_of_skips = true;
        }
        if let (Some(text), false) = (data.without_pictures(), self.warned_of_pictures) {
            self.bar.suspend(|| eprintln!("warning: {text}"));
            self.warned_of_pictures = true;
        }
        self.data = data.clone();
    }

    /// Prints the summary of the run.
    pub fn finish(&self) {
        self.bar.finish();
        let t = &self.totals;
        if t.iterations == 0 {
            println!("nothing to do: the run is at its end");
            return;
        }
        println!(
            "{} iterations in {:.0} s: {:.0} tokens/s, {:.1} ms per iteration",
            t.iterations,
            self.start.elapsed().as_secs_f64(),
            t.tokens_per_s(),
            1e3 * t.mean(t.elapsed_s)
        );
        match t.timed {
            0 => println!("stages were not timed; on a GPU, pipeline.timed_every times them"),
            _ => println!(
                "stages {:.1} ms, predicted {:.1} ms (mean error {:.1} %), bubble {:.1} %, runtime overhead {:.1} %",
                1e3 * t.timed_mean(t.makespan_s),
                1e3 * t.timed_mean(t.predicted_s),
                t.error_percent(),
                100.0 * t.timed_mean(t.bubble),
                t.overhead_percent()
            ),
        }
        println!(
            "planner stall {:.2} %, default schedule {} times, skipped samples {}",
            t.stall_percent(),
            t.fallbacks,
            t.skipped
        );
        if let Some(load) = t.load.describe() {
            println!("{load}, {:.0} patches/s", t.load.patches_per_s(t.elapsed_s));
        }
        print_data(&self.data);
        if t.mfu > 0.0 {
            println!("model FLOPs utilisation {:.1} %", 100.0 * t.mean(t.mfu));
        }
        println!("most memory of a rank {}", Bytes(t.peak_bytes));
        if let (Some(first), Some(last)) = (self.evaluations.first(), self.evaluations.last()) {
            if self.evaluations.len() == 1 {
                println!("held-out {} {:.3}", last.what, last.loss);
            } else {
                println!(
                    "held-out {} {:.3} -> {:.3} ({:.0} % of the first)",
                    first.what,
                    first.loss,
                    last.loss,
                    100.0 * last.loss / first.loss
                );
            }
            print_generated(last, Path::new("the folder `samples` of the output"));
        }
    }
}

fn print_data(data: &DataReport) {
    if data.skipped.total() > 0 {
        println!("skipped {}", data.skips());
    }
    if data.cut_documents > 0 {
        println!("cut {} documents by {} tokens in all", data.cut_documents, data.cut_tokens);
    }
    if data.broken_pictures > 0 {
        println!("pictures that could not be decoded {}", data.broken_pictures);
    }
}

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

impl MetricSink for Progress {
    fn iteration(&mut self, report: &IterationReport) -> Result<(), SinkError> {
        self.totals.add(report);
        self.warn(&report.data);
        self.bar.set_position(report.iteration + 1);
        self.bar.set_message(format!(
            "loss {:.3} {:.0} tokens/s bubble {:.1} % stall {:.2} %",
            report.loss,
            report.tokens_per_s,
            100.0 * self.totals.timed_mean(self.totals.bubble),
            self.totals.stall_percent()
        ));
        Ok(())
    }

    fn evaluation(&mut self, evaluation: &Evaluation) -> Result<(), SinkError> {
        self.bar.suspend(|| {
            println!(
                "after iteration {}: held-out {} {:.3}",
                evaluation.iteration, evaluation.what, evaluation.loss
            );
        });
        self.evaluations.push(evaluation.clone());
        Ok(())
    }

    fn early_stop(&mut self, iteration: u64, early_stop: &EarlyStop) -> Result<(), SinkError> {
        let best = early_stop.best.unwrap_or(f64::NAN);
        self.bar.suspend(|| {
            println!(
                "stopped after iteration {iteration}: {} evaluations without a held-out loss below {best:.4}",
                early_stop.since
            );
        });
        Ok(())
    }

    fn checkpoint_failed(&mut self, error: &CheckpointError) -> Result<(), SinkError> {
        self.bar.suspend(|| eprintln!("warning: no checkpoint: {error}"));
        Ok(())
    }

    fn checkpoint(&mut self, path: &Path) -> Result<(), SinkError> {
        self.bar.suspend(|| println!("checkpoint {}", path.display()));
        Ok(())
    }
}
