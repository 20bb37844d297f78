//! Errors of specifications and batch metadata.

use std::fmt::Display;
use std::ops::RangeInclusive;

use thiserror::Error;

/// A field whose value is outside its limit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{path} is {value}, but must be {limit}; {remedy}")]
pub struct FieldError {
    /// Path of the field, such as `device.memory_bytes`.
    pub path: String,
    /// The value of the field.
    pub value: String,
    /// The values that are allowed, as they follow "must be".
    pub limit: String,
    /// What the user can do about it.
    pub remedy: String,
}

impl FieldError {
    /// An error of the field at `path`.
    pub fn new(
        path: impl Into<String>,
        value: impl Display,
        limit: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            path: path.into(),
            value: value.to_string(),
            limit: limit.into(),
            remedy: remedy.into(),
        }
    }

    /// Checks that a value is within `range`. NaN is outside every range.
    ///
    /// # Errors
    /// [`FieldError`] if it is outside.
    pub fn check_range<T: PartialOrd + Display>(
        path: impl Into<String>,
        value: T,
        range: RangeInclusive<T>,
        remedy: impl Into<String>,
    ) -> Result<(), Self> {
        if range.contains(&value) {
            return Ok(());
        }
        let limit = format!("{} to {}", range.start(), range.end());
        Err(Self::new(path, value, limit, remedy))
    }
}

/// A specification of a model, cluster or run, or a line of batch metadata, that cannot be used.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum SpecError {
    /// The text does not parse; the parser's message has line, column and field.
    #[error("{0}")]
    Syntax(String),
    /// A field is outside its limit.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// The `inputs` of the modules form a cycle.
    #[error("the inputs of modules {modules:?} form a cycle; remove one of these edges")]
    Cycle {
        /// Modules on the cycle, and modules that depend on it.
        modules: Vec<String>,
    },
    /// A line of a JSON Lines file is wrong.
    #[error("line {line}: {source}")]
    Line {
        /// Line number from 1.
        line: usize,
        /// The error of the line.
        source: Box<SpecError>,
    },
}
