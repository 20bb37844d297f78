//! Errors of specifications and metadata. Each names the field, its value, the limit and the remedy.

use thiserror::Error;

/// A model, cluster or run specification, or a line of batch metadata, that cannot be used.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum SpecError {
    /// The text does not parse; the parser's message has line, column and field.
    #[error("{0}")]
    Syntax(String),
    /// A field is outside its limit.
    #[error("{path} is {value}, but must be {limit}; {remedy}")]
    Field {
        /// Path of the field.
        path: String,
        /// The value it has.
        value: String,
        /// What is allowed.
        limit: String,
        /// What to do.
        remedy: String,
    },
    /// The `inputs` of the modules form a cycle.
    #[error("the inputs of modules {modules:?} form a cycle; remove one of these edges")]
    Cycle {
        /// Modules on or behind the cycle.
        modules: Vec<String>,
    },
    /// A line of a JSON Lines file is wrong.
    #[error("line {line}: {message}")]
    Line {
        /// Line number, counted from 1.
        line: usize,
        /// What is wrong with it and what to do.
        message: String,
    },
}
