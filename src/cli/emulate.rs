//! `dip emulate`: runs a plan in virtual time.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use dip::emulate::{Executor, LinkModel, VirtualExecutor, report};
use dip::prelude::*;

use super::files::{read_text, write_whole};

#[derive(Debug, Args)]
pub struct Emulate {
    /// The plan, dip.plan/v1
    plan: PathBuf,
    /// Write the timeline to this HTML page
    #[arg(long)]
    html: Option<PathBuf>,
    /// Write a trace for Perfetto or chrome://tracing to this file
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Let each link carry one message at a time, instead of any number
    #[arg(long)]
    contended_links: bool,
}

impl Emulate {
    pub fn run(&self) -> Result<ExitCode> {
        let shown = || self.plan.display().to_string();
        let plan = Plan::from_json(&read_text(&self.plan)?).with_context(shown)?;
        let links = if self.contended_links {
            LinkModel::Ports { latency: Seconds::ZERO }
        } else {
            LinkModel::Uncontended
        };
        let executor: &mut dyn Executor = &mut VirtualExecutor::new(links);
        let trace = executor.execute(&plan).with_context(shown)?;
        trace.check(&plan).with_context(shown)?;
        if let Some(path) = &self.html {
            write_whole(path, report::html(&plan, &trace).as_bytes())?;
        }
        if let Some(path) = &self.trace {
            write_whole(path, report::chrome(&plan, &trace).as_bytes())?;
        }
        print!("{}", report::table(&plan, &trace));
        Ok(ExitCode::SUCCESS)
    }
}
