//! Shows on a terminal what a command does, and for how long.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::terminal;

/// Time between two pictures.
const TICK: Duration = Duration::from_millis(200);

/// A line on standard error that is cleared at the end. In a pipe, and in a quiet command, there is none. A verbose command keeps
/// a line for every step.
pub struct Spinner {
    bar: ProgressBar,
    start: Instant,
}

impl Spinner {
    pub fn start(message: impl Into<String>) -> Self {
        let bar =
            if terminal::is_quiet() { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
        bar.set_message(message.into());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}, {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TICK);
        Self { bar, start: Instant::now() }
    }

    /// Changes the message.
    pub fn say(&self, message: impl Into<String>) {
        self.bar.set_message(message.into());
    }

    /// Begins the next step.
    pub fn step(&mut self, message: impl Into<String>) {
        self.end_step();
        self.bar.set_message(message.into());
    }

    fn end_step(&mut self) {
        // The bar must not be asked for its message while it is suspended.
        let line = format!("{}: {:.2} s", self.bar.message(), self.start.elapsed().as_secs_f64());
        self.bar.suspend(|| terminal::detail(line));
        self.start = Instant::now();
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.end_step();
        self.bar.finish_and_clear();
    }
}
