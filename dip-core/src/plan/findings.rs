//! Collects the violations of a document.

use std::fmt;

use crate::plan::violation::{MAX_VIOLATIONS, Violation, ViolationCode};

/// Collects violations, up to [`MAX_VIOLATIONS`].
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) violations: Vec<Violation>,
    /// True if there were more.
    pub(crate) truncated: bool,
}

impl Findings {
    pub(crate) fn add(
        &mut self,
        code: ViolationCode,
        path: impl fmt::Display,
        message: impl Into<String>,
    ) {
        if self.is_full() {
            self.truncated = true;
            return;
        }
        self.violations.push(Violation { code, path: path.to_string(), message: message.into() });
    }

    pub(crate) fn is_full(&self) -> bool {
        self.violations.len() >= MAX_VIOLATIONS
    }

    /// Returns a time that is finite and not negative. Any other time is reported and becomes NaN, so that later comparisons
    /// with it are false.
    pub(crate) fn duration(&mut self, seconds: f64, path: impl fmt::Display) -> f64 {
        let seconds = self.finite(seconds, &path);
        if seconds < 0.0 {
            let message =
                format!("{seconds} is negative, but must be at least 0; correct the time");
            self.add(ViolationCode::Negative, path, message);
            return f64::NAN;
        }
        seconds
    }

    /// Returns a finite number. Any other number is reported and becomes NaN.
    pub(crate) fn finite(&mut self, number: f64, path: impl fmt::Display) -> f64 {
        if number.is_finite() {
            return number;
        }
        let message = format!("{number} is not finite; give a finite number");
        self.add(ViolationCode::NotFinite, path, message);
        f64::NAN
    }
}
