//! The trace file `dip.trace/v1`: two lines of JSON, the plan of an iteration and when its stages ran.
//!
//! ```text
//! {"schema":"dip.plan/v1", ...}
//! {"schema":"dip.trace/v1","iteration":100,"replica":0,"elapsed_s":0.05,"spans":[{"task":0,"rank":0,"start_s":0.0,"end_s":0.01}, ...]}
//! ```

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Span, Trace, TraceError};
use crate::plan::{FormatError, Plan};
use crate::spec::{RankId, Seconds, TaskId};

/// The schema name of a trace file.
pub const TRACE_SCHEMA: &str = "dip.trace/v1";

/// An iteration as it was planned and as it ran.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceFile {
    /// The iteration.
    pub iteration: u64,
    /// The replica that ran it.
    pub replica: u32,
    /// Time from the start of the iteration to its end, gradient sums and optimiser included.
    pub elapsed_s: Seconds,
    /// The plan.
    pub plan: Plan,
    /// When its stages ran.
    pub trace: Trace,
}

/// A text that is not a usable trace file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TraceFileError {
    /// It has no second line with the trace.
    #[error("a trace file has two lines, a plan and its trace, but there is no second line")]
    NoTrace,
    /// The first line is not a usable plan.
    #[error("line 1: {0}")]
    Plan(#[source] FormatError),
    /// The second line is not a trace.
    #[error("line 2: {0}")]
    Json(#[source] serde_json::Error),
    /// The second line has another format or an unknown version.
    #[error("line 2: schema is {found:?}, but only {TRACE_SCHEMA:?} is supported here")]
    Schema {
        /// The schema of the line.
        found: String,
    },
    /// The times of a stage are not times.
    #[error(
        "line 2: task {task} runs from {start_s} to {end_s} s, but times must be finite, positive and in order"
    )]
    Times {
        /// The task.
        task: TaskId,
        /// Its start in seconds.
        start_s: f64,
        /// Its end in seconds.
        end_s: f64,
    },
    /// The trace is not a run of the plan.
    #[error("line 2: {0}")]
    Trace(#[source] TraceError),
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct TraceLine {
    /// `dip.trace/v1`.
    schema: String,
    /// Number of the iteration, from 0.
    iteration: u64,
    /// Number of the replica.
    replica: u32,
    /// Time of the whole iteration.
    elapsed_s: f64,
    /// When each stage ran, from the start of the iteration.
    spans: Vec<SpanRow>,
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct SpanRow {
    task: u32,
    rank: u32,
    start_s: f64,
    end_s: f64,
}

impl TraceFile {
    /// Writes `dip.trace/v1`.
    pub fn to_text(&self) -> String {
        let row = |s: &Span| SpanRow {
            task: s.task.0,
            rank: s.rank.0,
            start_s: s.start.0,
            end_s: s.end.0,
        };
        let line = TraceLine {
            schema: TRACE_SCHEMA.into(),
            iteration: self.iteration,
            replica: self.replica,
            elapsed_s: self.elapsed_s.0,
            spans: self.trace.spans.iter().map(row).collect(),
        };
        let line = serde_json::to_string(&line).expect("plain data has a JSON form");
        format!("{}\n{line}\n", self.plan.to_json())
    }

    /// True if `text` is meant to be a trace file: its second line names the schema.
    pub fn is_one(text: &str) -> bool {
        let second = text.split_once('\n').map_or("", |(_, rest)| rest);
        second.trim_start().starts_with("{\"schema\":\"dip.trace/")
    }

    /// Reads `dip.trace/v1`. The trace is a run of the plan.
    ///
    /// # Errors
    /// [`TraceFileError`] with the line.
    pub fn from_text(text: &str) -> Result<Self, TraceFileError> {
        let (plan, line) = text.split_once('\n').ok_or(TraceFileError::NoTrace)?;
        let plan = Plan::from_json(plan).map_err(TraceFileError::Plan)?;
        let line: TraceLine = serde_json::from_str(line).map_err(TraceFileError::Json)?;
        if line.schema != TRACE_SCHEMA {
            return Err(TraceFileError::Schema { found: line.schema });
        }
        let spans = line.spans.iter().map(SpanRow::span).collect::<Result<_, _>>()?;
        let trace = Trace { ranks: plan.graph.ranks, spans };
        trace.check(&plan).map_err(TraceFileError::Trace)?;
        let elapsed_s = Seconds(line.elapsed_s.max(0.0));
        Ok(Self { iteration: line.iteration, replica: line.replica, elapsed_s, plan, trace })
    }
}

impl SpanRow {
    fn span(&self) -> Result<Span, TraceFileError> {
        let &Self { task, rank, start_s, end_s } = self;
        let (task, rank) = (TaskId(task), RankId(rank));
        if !(start_s >= 0.0 && end_s >= start_s && end_s.is_finite()) {
            return Err(TraceFileError::Times { task, start_s, end_s });
        }
        Ok(Span { task, rank, start: Seconds(start_s), end: Seconds(end_s) })
    }
}
