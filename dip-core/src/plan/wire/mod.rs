//! Reads `dip.graph/v1` and `dip.plan/v1`.
//!
//! ```text
//! text -> reader (JSON tokens) -> decoder (types, paths) -> draft (all readable values) -> check -> TaskGraph | Plan
//! ```
//!
//! The loaders and the checker share one decoder. It collects every violation with its path instead of stopping at the first
//! one, and the length of the text bounds its memory.
//!
//! The reader is our own because the checker reports values that a strict JSON parser rejects as syntax errors: the tokens
//! `NaN` and `Infinity` that Python writes, and numbers beyond the range of a double. It also keeps the text of a number, so
//! that `2.0` and `20000000000000000000` are reported as what they are.

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
use decoder::{DocumentDecoder, shortened};
use document::{Decoded, Format};

/// Longest text that is read, in bytes.
pub const MAX_TEXT_BYTES: usize = 1 << 31;

/// Number of violations that an error shows; the rest are counted.
const SHOWN: usize = 5;

/// A text that is not a usable graph or plan.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The text is too long.
    #[error(
        "the text has {bytes} bytes, but at most {MAX_TEXT_BYTES} are read; plan fewer microbatches at a time"
    )]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// The text is not JSON.
    #[error("line {line}, column {column}: not JSON: {message}")]
    Syntax {
        /// Line number from 1.
        line: usize,
        /// Column number in characters from 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// The document has another format or an unknown version.
    #[error("schema is {found:?}, but only {supported:?} is supported here; {remedy}")]
    Schema {
        /// The schema of the document.
        found: String,
        /// The supported schema.
        supported: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// The document has the right schema, but is not a usable graph or plan.
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
    /// Reads `dip.graph/v1`. The graph can be planned: ids and ranks are in range, stages are paired, dependencies form no
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
    /// Reads `dip.plan/v1`. The plan can be run: its graph is valid, and the order covers every rank and does not deadlock.
    /// Figures and memory limits are not checked; [`check_plan`](crate::check_plan) does that.
    ///
    /// # Errors
    /// [`FormatError`] with every violation and its path.
    pub fn from_json(text: &str) -> Result<Self, FormatError> {
        let (mut draft, mut findings) = read(text, Format::Plan)?;
        check_draft(&mut draft, &mut findings);
        let mut violations = findings.violations;
        // A truncated report may lack violations of other classes.
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

/// Returns every violation of the text of a plan, in its form and in its meaning.
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
    let mut decoder = DocumentDecoder::new(text);
    let Decoded { schema, draft } = document::decode(&mut decoder, format).map_err(|syntax| {
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
