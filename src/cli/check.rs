//! `dip check`: the independent checker.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use dip::plan::{Bytes, CheckReport, PlanSummary, Seconds, Violation, check_plan_json};
use dip_files::Kind;
use schemars::JsonSchema;
use serde::Serialize;

use super::files::read_text;
use super::output::{Figures, JsonOutput};
use super::terminal::{ERROR, GOOD};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dip check plan.json
  dip plan --model vlm-s --out /dev/stdout --quiet | dip check -

Exit code: 0 for a valid plan, 1 for one with violations, 2 for a file that is no plan")]
pub struct Check {
    /// The plan, `dip.plan/v1`; - for standard input
    plan: PathBuf,
    #[command(flatten)]
    json: JsonOutput,
}

/// What `dip check` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CheckFigures {
    /// True for a plan without violations.
    ok: bool,
    violations: Vec<FoundViolation>,
    /// True if there are more violations than are listed.
    truncated: bool,
    /// The figures of a valid plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<CheckedPlan>,
}

/// One thing that is wrong with a plan.
#[derive(Debug, Serialize, JsonSchema)]
struct FoundViolation {
    /// The kind of violation, a stable name.
    code: &'static str,
    /// Path in the plan, such as `tasks[3].deps[0].comm_s`.
    path: String,
    /// The value, the limit and the remedy.
    message: String,
}

/// The figures of a valid plan.
#[derive(Debug, Serialize, JsonSchema)]
struct CheckedPlan {
    model: String,
    cluster: String,
    schedule: String,
    /// Pipeline ranks.
    ranks: u32,
    tasks: usize,
    makespan_s: Seconds,
    bubble_ratio: f64,
    lower_bound_s: Seconds,
    /// The largest peak of all ranks.
    peak_bytes: Bytes,
}

impl Figures for CheckFigures {
    const SCHEMA: &'static str = "dip.check/v1";
}

impl From<&CheckReport> for CheckFigures {
    fn from(report: &CheckReport) -> Self {
        let violation = |found: &Violation| FoundViolation {
            code: found.code.as_str(),
            path: found.path.clone(),
            message: found.message.clone(),
        };
        Self {
            ok: report.is_ok(),
            violations: report.violations.iter().map(violation).collect(),
            truncated: report.truncated,
            plan: report.summary.as_ref().map(CheckedPlan::from),
        }
    }
}

impl From<&PlanSummary> for CheckedPlan {
    fn from(summary: &PlanSummary) -> Self {
        Self {
            model: summary.model.clone(),
            cluster: summary.cluster.clone(),
            schedule: summary.schedule.clone(),
            ranks: summary.ranks,
            tasks: summary.tasks,
            makespan_s: summary.makespan,
            bubble_ratio: summary.bubble_ratio,
            lower_bound_s: summary.lower_bound,
            peak_bytes: summary.peak,
        }
    }
}

impl Check {
    pub fn run(&self) -> Result<ExitCode> {
        let text = read_text(&self.plan, Kind::PLAN)?;
        let report = check_plan_json(&text).with_context(|| self.plan.display().to_string())?;
        let colour = if report.is_ok() { GOOD } else { ERROR };
        let print = || anstream::println!("{colour}{report}{colour:#}");
        self.json.print(&CheckFigures::from(&report), print)?;
        Ok(if report.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
