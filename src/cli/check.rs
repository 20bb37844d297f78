//! `dip check`: the independent checker.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use dip::plan::check_plan_json;
use dip_files::Kind;

use super::files::read_text;

#[derive(Debug, Args)]
pub struct Check {
    /// The plan, `dip.plan/v1`; - for standard input
    plan: PathBuf,
}

impl Check {
    pub fn run(&self) -> Result<ExitCode> {
        let text = read_text(&self.plan, Kind::PLAN)?;
        let report = check_plan_json(&text).with_context(|| self.plan.display().to_string())?;
        println!("{report}");
        Ok(if report.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
