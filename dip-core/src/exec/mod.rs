//! Execution: [`compile()`] turns a plan into one action list per rank, and the [`Interpreter`] runs these lists in every
//! executor.
//!
//! ```text
//! Plan -> compile -> Program (actions of each rank) -> Interpreter (RankHost + Link) -> spans -> Trace
//! ```
//!
//! Training runs one interpreter per rank thread; the emulator advances all interpreters in one thread, in virtual time.

mod action;
mod compile;
mod error;
mod interpreter;
mod source;
#[cfg(test)]
mod tests;
mod trace;
mod trace_file;
mod traits;

pub use action::{Action, Message};
pub use compile::{Program, RankProgram, TaskCall, TaskOutput, compile};
pub use error::{ExecError, LinkError, StageError};
pub use interpreter::{Interpreter, RankProgress};
pub use source::{MeasuredIteration, PlanError, PlanSource, PlannedBatch};
pub use trace::{Span, Trace, TraceError};
#[cfg(feature = "schema")]
pub(crate) use trace_file::TraceLine;
pub use trace_file::{TRACE_SCHEMA, TraceFile, TraceFileError};
pub use traits::{Executor, Link, RankHost, Received, Stage, StageCall};
