//! `dip presets`: lists the built-in models, clusters and schedules.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use dip::plan::{ModuleId, presets};

use super::inputs;

#[derive(Debug, Args)]
pub struct Presets {
    /// List only these
    #[arg(value_enum)]
    what: Option<PresetList>,
    /// Print the TOML of this model or cluster, to start your own from; also of a Hugging Face config.json or folder
    #[arg(long, value_name = "NAME|FOLDER", conflicts_with = "what")]
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
            match presets::source(name) {
                Some(source) => print!("{source}"),
                None => print!("{}", shown_file(name)?),
            }
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

/// The TOML of a model in a file or folder, such as one of Hugging Face, with its parameters.
fn shown_file(name: &str) -> Result<String> {
    if !Path::new(name).exists() {
        bail!(
            "{name:?} is no model, no cluster and no file; `dip presets` lists the names of the built-in ones"
        );
    }
    let model = inputs::model(name)?;
    let millions = |id: ModuleId| model.parameters(id).total() as f64 / 1e6;
    let modules: Vec<_> = (0..model.modules.len()).map(ModuleId::from).collect();
    let parts: Vec<_> = modules
        .iter()
        .map(|&id| format!("{} {:.0}", model.modules[id.index()].name, millions(id)))
        .collect();
    let total: f64 = modules.iter().map(|&id| millions(id)).sum();
    let heading = format!("# {total:.0} million weights: {}", parts.join(", "));
    Ok(format!("{heading}\n{}", model.to_toml()?))
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
