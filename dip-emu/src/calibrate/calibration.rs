//! The result of a fit: the fitted cluster and the errors of the fit.

use dip_core::{ClusterSpec, Seconds};
use thiserror::Error;

use crate::operators::OperatorKind;

/// A cluster with fitted factors, and the error for each measurement.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// The cluster with its new factors and link latency.
    pub cluster: ClusterSpec,
    /// The fitted time of each measurement, in the order of the measurements.
    pub times: Vec<FittedTime>,
}

/// The fitted time of one measurement. Errors are relative to the measured time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FittedTime {
    /// The name of the measured operator or pass.
    pub name: &'static str,
    /// The time that the fitted cluster predicts.
    pub seconds: Seconds,
    /// The error of that prediction.
    pub error: f64,
    /// The error of a fit to all other measurements: the error to expect for operators that were not measured. `None` if
    /// the other measurements are too few for a fit.
    pub left_out: Option<f64>,
}

/// The mean errors of all measurements with one name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ErrorSummary {
    /// The name of the measured operator or pass.
    pub name: &'static str,
    /// The number of measurements.
    pub measurements: usize,
    /// The mean error of the fit.
    pub error: f64,
    /// The mean error of fits to the other measurements.
    pub leave_one_out: f64,
}

/// Measurements that cannot be fitted.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum FitError {
    /// There are too few measurements of a kind.
    #[error(
        "there are {found} measurements of kind {kind:?} with different sizes, but the fit needs {needed}; \
         measure more sizes"
    )]
    TooFew {
        /// The kind.
        kind: OperatorKind,
        /// The number of different sizes.
        found: usize,
        /// The number of different sizes that the fit needs.
        needed: usize,
    },
    /// A measured time is not a positive number.
    #[error(
        "measurement {index} of {name:?} took {seconds} s, but must be finite and above 0; measure it again"
    )]
    Time {
        /// The index of the measurement.
        index: usize,
        /// The name of its operator.
        name: &'static str,
        /// The measured time.
        seconds: f64,
    },
    /// A profile has no layer of the model.
    #[error("the profile has no layer of model {model:?} with times above 0; measure this model")]
    Empty {
        /// The name of the model.
        model: String,
    },
    /// Larger operators took no more time.
    #[error(
        "the times of kind {kind:?} do not grow with its size; measure larger sizes on an idle device"
    )]
    NoGrowth {
        /// The kind.
        kind: OperatorKind,
    },
}

impl Calibration {
    /// The mean error over all measurements.
    pub fn error(&self) -> f64 {
        mean(self.times.iter().map(|t| t.error))
    }

    /// The mean error of each measurement under factors that are fitted to the others.
    pub fn leave_one_out(&self) -> f64 {
        mean(self.times.iter().filter_map(|t| t.left_out))
    }

    /// The mean errors by name, in the order of the measurements.
    pub fn by_name(&self) -> Vec<ErrorSummary> {
        let mut names: Vec<&'static str> = Vec::new();
        for time in &self.times {
            if !names.contains(&time.name) {
                names.push(time.name);
            }
        }
        let summary = |name| {
            let times = || self.times.iter().filter(|t| t.name == name);
            ErrorSummary {
                name,
                measurements: times().count(),
                error: mean(times().map(|t| t.error)),
                leave_one_out: mean(times().filter_map(|t| t.left_out)),
            }
        };
        names.into_iter().map(summary).collect()
    }
}

/// The mean of `values`; 0 if there are none.
pub fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0u32), |(sum, n), v| (sum + v, n + 1));
    if n > 0 { sum / f64::from(n) } else { 0.0 }
}
