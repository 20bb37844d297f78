//! `dip presets`: what is built in.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};
use dip::core::presets;

#[derive(Debug, Args)]
pub struct Presets {
    /// Only these
    #[arg(value_enum)]
    what: Option<Kind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Models,
    Clusters,
    Schedules,
}

impl Presets {
    pub fn run(&self) -> Result<ExitCode> {
        for kind in [Kind::Models, Kind::Clusters, Kind::Schedules] {
            if self.what.is_none_or(|what| what == kind) {
                list(kind);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn list(kind: Kind) {
    match kind {
        Kind::Models => section("models", presets::models()),
        Kind::Clusters => section("clusters", presets::clusters()),
        Kind::Schedules => section("schedules", dip::sched::descriptions()),
    }
}

fn section<'a>(title: &str, rows: impl IntoIterator<Item = (&'a str, &'a str)>) {
    println!("{title}");
    for (name, description) in rows {
        println!("  {name:14} {description}");
    }
}
