//! Reading of `dip.graph/v1` and `dip.plan/v1`.
//!
//! ```text
//! text -> reader (JSON values) -> decoder (types, paths) -> draft (as far as readable) -> check -> TaskGraph | Plan
//! ```
//!
//! One decoder serves the strict loaders and the checker. It collects every violation with its path instead of stopping at
//! the first one, and bounds what it allocates by the text it was given.

mod decoder;
mod document;
mod reader;

use std::fmt;

use thiserror::Error;

use crate::plan::check::{CheckReport, PlanSummary, check_draft};
use crate::plan::draft::DocumentDraft;
use crate::plan::findings::Findings;
use crate::plan::graph::{GRAPH_SCHEMA, TaskGraph};
use crate::plan::plan::{PLAN_SCHEMA, Plan};
use crate::plan::violation::{Violation, ViolationClass};
use decoder::{Decoder, shortened};
use document::Format;

/// Longest text that is read, in bytes.
pub const MAX_TEXT_BYTES: usize = 1 << 31;

/// Violations that an error shows before it only counts them.
const SHOWN: usize = 5;

/// A text that is not a usable graph or plan.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum FormatError {
    /// The text is longer than any document that is read.
    #[error(
        "the text has {bytes} bytes, but at most {MAX_TEXT_BYTES} are read; plan fewer microbatches at a time"
    )]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The text is not JSON.
    #[error("line {line}, column {column}: not JSON: {message}")]
    Syntax {
        /// Line, counted from 1.
        line: usize,
        /// Column in characters, counted from 1.
        column: usize,
        /// What is wrong there.
        message: String,
    },
    /// The document is of another format, or of a version that is not known.
    #[error("schema is {found:?}, but only {supported:?} is supported here; {remedy}")]
    Schema {
        /// What it says.
        found: String,
        /// What is read here.
        supported: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// The document is JSON of the right schema, but not a graph or plan that can be used.
    #[error("{}", Shown(.0))]
    Invalid(Vec<Violation>),
}

struct Shown<'a>(&'a [Violation]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0.len();
        write!(f, "{n} violation{}", if n == 1 { "" } else { "s" })?;
        for violation in self.0.iter().take(SHOWN) {
            write!(f, "\n  {violation}")?;
        }
        if n > SHOWN { write!(f, "\n  and {} more", n - SHOWN) } else { Ok(()) }
    }
}

impl TaskGraph {
    /// Reads `dip.graph/v1`. The graph can be planned: ids and ranks are in range, stages are paired, dependencies have no
    /// cycle, and the static bytes fit.
    ///
    /// # Errors
    /// [`FormatError`] with every violation and its path.
    pub fn from_json(text: &str) -> Result<Self, FormatError> {
        let (mut draft, mut findings) = read(text, Format::Graph)?;
        check_draft(&mut draft, &mut findings);
        accept(findings.violations, draft.into_graph())
    }
}

impl Plan {
    /// Reads `dip.plan/v1`. The plan can be run: besides what holds for a graph, the order covers every rank and does not
    /// deadlock. Its figures and limits are not judged; [`check_plan`](crate::check_plan) does that.
    ///
    /// # Errors
    /// [`FormatError`] with every violation and its path.
    pub fn from_json(text: &str) -> Result<Self, FormatError> {
        let (mut draft, mut findings) = read(text, Format::Plan)?;
        check_draft(&mut draft, &mut findings);
        let mut violations = findings.violations;
        // A full report may lack violations that would matter here.
        if !findings.truncated {
            violations.retain(|v| v.code.class() != ViolationClass::Figures);
        }
        accept(violations, draft.into_plan())
    }
}

fn accept<T>(violations: Vec<Violation>, document: Option<T>) -> Result<T, FormatError> {
    match document {
        Some(document) if violations.is_empty() => Ok(document),
        _ => Err(FormatError::Invalid(violations)),
    }
}

/// Every violation of the text of a plan, of its form and of its meaning together.
///
/// # Errors
/// [`FormatError`] if the text is not JSON or has another schema.
pub fn check_plan_json(text: &str) -> Result<CheckReport, FormatError> {
    let (mut draft, mut findings) = read(text, Format::Plan)?;
    check_draft(&mut draft, &mut findings);
    let Findings { violations, truncated } = findings;
    let plan = if violations.is_empty() { draft.into_plan() } else { None };
    Ok(CheckReport { summary: plan.map(PlanSummary::of), violations, truncated })
}

fn read(text: &str, format: Format) -> Result<(DocumentDraft, Findings), FormatError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(FormatError::TooLong { bytes: text.len() });
    }
    let mut decoder = Decoder::new(text);
    let (schema, draft) = document::decode(&mut decoder, format).map_err(|syntax| {
        let (line, column) = reader::position(text, syntax.at);
        FormatError::Syntax { line, column, message: syntax.message }
    })?;
    let supported = match format {
        Format::Graph => GRAPH_SCHEMA,
        Format::Plan => PLAN_SCHEMA,
    };
    match schema {
        Some(found) if found != supported => Err(FormatError::Schema {
            remedy: remedy(&found),
            found: shortened(&found).into(),
            supported,
        }),
        _ => Ok((draft, decoder.findings)),
    }
}

fn remedy(found: &str) -> &'static str {
    match found {
        GRAPH_SCHEMA => "this is a task graph: plan it with `dip plan --graph`",
        PLAN_SCHEMA => "this is a plan: give the task graph it was made from",
        _ => "write the document with this version of dip, or use the version that wrote it",
    }
}
