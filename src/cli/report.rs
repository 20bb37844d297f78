//! `dip report`: timelines of plans and of measured iterations.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use dip::emulate::report::{self, TimelineRun};

use super::files::write_whole;
use super::terminal;
use super::timeline::Timeline;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dip report plan.json --html plan.html
  dip report megatron.json --against dip.json --html both.html --svg both.svg
  dip report runs/vlm-tiny/traces/100.jsonl --html measured.html   # planned above measured")]
pub struct Report {
    /// A plan, dip.plan/v1, or a measured iteration of `dip train --trace`, dip.trace/v1
    file: PathBuf,
    /// Another one, shown below the first on the same time axis
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Write an interactive page that needs no network
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write a figure for a paper
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write a trace for Perfetto or chrome://tracing
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

impl Report {
    pub fn run(&self) -> Result<ExitCode> {
        if self.html.is_none() && self.svg.is_none() && self.trace.is_none() {
            bail!("nothing to write; name a file with --html, --svg or --trace");
        }
        let mut timelines = vec![Timeline::read(&self.file)?];
        if let Some(other) = &self.against {
            timelines.push(Timeline::read(other)?);
        }
        let several = timelines.len() > 1;
        let labels: Vec<[String; 2]> = timelines.iter().map(|t| t.labels(several)).collect();
        let mut runs = Vec::new();
        for (timeline, [planned, measured]) in timelines.iter().zip(&labels) {
            let plan = &timeline.plan;
            runs.push(TimelineRun { label: planned, plan, trace: &timeline.planned, end: None });
            if let Some((trace, end)) = &timeline.measured {
                runs.push(TimelineRun { label: measured, plan, trace, end: Some(*end) });
            }
        }
        let outputs = [
            (&self.html, report::html as fn(&[TimelineRun<'_>]) -> String),
            (&self.svg, report::svg),
            (&self.trace, report::chrome),
        ];
        for (path, write) in outputs {
            if let Some(path) = path {
                write_whole(path, write(&runs).as_bytes())?;
                if !terminal::is_quiet() {
                    println!("{}", path.display());
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
