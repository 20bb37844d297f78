//! Fits the factors of a cluster to measurements (paper section 3: micro-benchmarks of products and collectives).
//!
//! [`fit`] takes single operators. [`fit_profile`] takes whole layers, for devices of which only a profile of the trainer
//! exists. Both minimise the relative error, so that small operators count as much as large ones.

mod calibration;
mod curve;
mod layers;
mod operators;

pub use calibration::{Calibration, ErrorSummary, FitError, FittedTime};
pub use layers::fit_profile;
pub use operators::{Measurement, fit, with_measured_peaks};
