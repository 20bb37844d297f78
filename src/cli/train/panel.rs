//! The panel of a run at the bottom of a terminal: progress, loss, speed, plans and memory. In a pipe there is none.

use dip::plan::{Bytes, Seconds};
use dip::train::{HeldOutLoss, IterationReport, RunTotals};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::trend::Trend;
use crate::cli::terminal;

/// Lines below the bar.
const LINES: usize = 4;

/// Lines that are drawn over and over, below all that is printed.
pub struct Panel {
    all: MultiProgress,
    bar: ProgressBar,
    lines: [ProgressBar; LINES],
    trend: Trend,
    /// Columns of the terminal when the panel was drawn last.
    columns: Option<u16>,
}

/// What the panel shows of an iteration.
pub struct Shown<'a> {
    pub report: &'a IterationReport,
    pub totals: &'a RunTotals,
    /// The newest held-out loss.
    pub held_out: Option<&'a HeldOutLoss>,
}

impl Panel {
    /// The panel of a run of `iterations`, of which `done` are completed.
    pub fn new(iterations: u64, done: u64) -> Self {
        let target = match terminal::is_quiet() {
            true => ProgressDrawTarget::hidden(),
            false => ProgressDrawTarget::stderr(),
        };
        let all = MultiProgress::with_draw_target(target);
        let bar = all.add(ProgressBar::new(iterations).with_position(done));
        let template = "{wide_bar} {pos}/{len} {percent} %, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        let line = |_| {
            let line = all.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
                line.set_style(style);
            }
            line
        };
        let lines = std::array::from_fn(line);
        Self { all, bar, lines, trend: Trend::default(), columns: columns() }
    }

    /// True if nothing is drawn, as in a pipe.
    pub fn is_hidden(&self) -> bool {
        self.all.is_hidden()
    }

    /// The lines, for those who print above them.
    pub fn lines(&self) -> MultiProgress {
        self.all.clone()
    }

    /// Prints above the panel.
    pub fn print(&self, print: impl FnOnce()) {
        self.all.suspend(print);
    }

    /// Shows an iteration.
    pub fn show(&mut self, shown: &Shown<'_>) {
        self.trend.add(shown.report.loss);
        self.follow_size();
        for (line, text) in self.lines.iter().zip(texts(shown, &self.trend)) {
            line.set_message(text);
        }
        self.bar.set_position(shown.report.iteration + 1);
    }

    /// In a terminal that has become narrower the drawn lines have been broken: the screen is cleared, and the panel drawn anew.
    fn follow_size(&mut self) {
        let now = columns();
        if now < self.columns && !self.is_hidden() {
            self.all.suspend(|| console::Term::stderr().clear_screen().ok());
        }
        self.columns = now;
    }

    /// Removes the panel.
    pub fn end(&self) {
        self.lines.iter().for_each(ProgressBar::finish_and_clear);
        self.bar.finish_and_clear();
        self.all.clear().ok();
    }
}

fn columns() -> Option<u16> {
    console::Term::stderr().size_checked().map(|(_, columns)| columns)
}

/// The lines below the bar.
fn texts(shown: &Shown<'_>, trend: &Trend) -> [String; LINES] {
    let Shown { report, totals, held_out } = shown;
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let held_out = held_out.map_or_else(String::new, |h| format!("  held-out {:.3}", h.loss));
    let mfu = report.mfu.map_or_else(String::new, |mfu| format!("  MFU {}", percent(mfu)));
    let limit = report.resident_bytes.map_or_else(String::new, |b| format!("  process {b}"));
    let stages = match totals.timed {
        0 => "not timed yet".into(),
        _ => format!(
            "predicted {}  measured {}  error {}",
            Seconds(totals.timed_mean(totals.predicted_s)),
            Seconds(totals.timed_mean(totals.makespan_s)),
            percent(totals.prediction_error())
        ),
    };
    let peak = report.peak_bytes.iter().copied().max().unwrap_or(Bytes::ZERO);
    [
        format!("loss    {:.3}{held_out}  {}", report.loss, trend.bars()),
        format!(
            "speed   {:.0} tokens/s  {}{mfu}  bubbles {}",
            report.tokens_per_s,
            report.elapsed_s,
            percent(totals.timed_mean(totals.bubble))
        ),
        format!(
            "plan    {stages}  search {}  stall {:.2} %",
            report.search_s,
            100.0 * totals.stall_ratio()
        ),
        format!("memory  {peak} on a rank{limit}"),
    ]
}
