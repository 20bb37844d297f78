//! `dip presets`: lists the built-in models, clusters and schedules.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use dip::plan::presets;

#[derive(Debug, Args)]
pub struct Presets {
    /// List only these
    #[arg(value_enum)]
    what: Option<PresetList>,
    /// Print the TOML of this model or cluster, to start your own from
    #[arg(long, value_name = "NAME", conflicts_with = "what")]
    show: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PresetList {
    Models,
    Clusters,
    Schedules,
}

impl Presets {
    pub fn run(&self) -> Result<ExitCode> {
        if let Some(name) = &self.show {
            let source = presets::source(name).with_context(|| {
                format!(
                    "{name:?} is no model and no cluster; `dip presets` lists the names of both"
                )
            })?;
            print!("{source}");
            return Ok(ExitCode::SUCCESS);
        }
        for kind in [PresetList::Models, PresetList::Clusters, PresetList::Schedules] {
            if self.what.is_none_or(|what| what == kind) {
                list(kind);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn list(kind: PresetList) {
    match kind {
        PresetList::Models => section("models", presets::models()),
        PresetList::Clusters => section("clusters", presets::clusters()),
        PresetList::Schedules => {
            let schedules: Vec<_> = dip::plan::schedules().collect();
            section("schedules", schedules.iter().map(|s| (s.name(), s.description())));
        }
    }
}

fn section<'a>(title: &str, rows: impl IntoIterator<Item = (&'a str, &'a str)>) {
    println!("{title}");
    for (name, description) in rows {
        println!("  {name:14} {description}");
    }
}
