//! Files with a timeline: a plan, or a measured iteration beside its plan.

use std::path::Path;

use anyhow::{Context, Result};
use dip::emulate::report::TimelineRun;
use dip::emulate::{Executor, LinkModel, Trace, TraceFile, VirtualExecutor};
use dip::prelude::*;
use dip_files::Kind;

use super::files::read_text;

/// A plan with one run of it.
pub struct Timeline {
    pub label: String,
    pub plan: Plan,
    pub planned: Trace,
    /// The measured run with the end of its iteration.
    pub measured: Option<(Trace, Seconds)>,
}

impl Timeline {
    /// Reads `dip.plan/v1` or `dip.trace/v1`.
    pub fn read(path: &Path) -> Result<Self> {
        let shown = || path.display().to_string();
        let text = read_text(path, Kind::PLAN)?;
        let label = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let (plan, measured) = if TraceFile::is_one(&text) {
            let file = TraceFile::from_text(&text).with_context(shown)?;
            (file.plan, Some((file.trace, file.elapsed_s)))
        } else {
            (Plan::from_json(&text).with_context(shown)?, None)
        };
        let planned =
            VirtualExecutor::new(LinkModel::Uncontended).execute(&plan).with_context(shown)?;
        Ok(Self { label, plan, planned, measured })
    }

    /// The labels of the planned and the measured run.
    pub fn labels(&self, several: bool) -> [String; 2] {
        let Self { label, plan, .. } = self;
        if several {
            let name = match plan.schedule == *label {
                true => label.clone(),
                false => format!("{} ({label})", plan.schedule),
            };
            [name.clone(), format!("{name}, measured")]
        } else {
            [format!("planned by {}", plan.schedule), "measured".into()]
        }
    }

    /// The measured run, or else the planned one.
    pub fn run(&self) -> TimelineRun<'_> {
        match &self.measured {
            Some((trace, end)) => {
                TimelineRun { label: "measured", plan: &self.plan, trace, end: Some(*end) }
            }
            None => {
                TimelineRun { label: "planned", plan: &self.plan, trace: &self.planned, end: None }
            }
        }
    }
}
