//! Errors of a group of processes.

use thiserror::Error;

/// Processes that cannot start or continue together.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum GroupError {
    /// A process no longer answers.
    #[error(
        "process {process}{} {what}; its own output may say why. Start all processes again with --resume",
        shown(.host)
    )]
    Gone {
        /// The process.
        process: usize,
        /// Its machine.
        host: String,
        /// The reason.
        what: String,
    },
    /// A process was started for another run.
    #[error("process {process} differs from this process in {what}; {remedy}")]
    Differs {
        /// The process.
        process: usize,
        /// What differs.
        what: String,
        /// The remedy.
        remedy: &'static str,
    },
    /// The processes cannot be started.
    #[error("{field} is {value}, but {limit}; {remedy}")]
    Start {
        /// The argument.
        field: &'static str,
        /// Its value.
        value: String,
        /// Its limit.
        limit: String,
        /// The remedy.
        remedy: &'static str,
    },
}

/// A machine in parentheses, if it is known.
fn shown(host: &str) -> String {
    if host.is_empty() { String::new() } else { format!(" ({host})") }
}
