//! `dip presets`: lists the built-in models, clusters and schedules.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use dip::plan::{ModuleId, did_you_mean, presets};
use schemars::JsonSchema;
use serde::Serialize;

use super::inputs;
use super::output::{Figures, JsonOutput};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dip presets schedules
  dip presets --show vlm-m > mine.toml")]
pub struct Presets {
    /// List only these
    #[arg(value_enum)]
    what: Option<PresetList>,
    /// Print the TOML of this model or cluster, to start your own from; also of a Hugging Face config.json or folder
    #[arg(long, value_name = "NAME|FOLDER", conflicts_with_all = ["what", "json"])]
    show: Option<String>,
    #[command(flatten)]
    json: JsonOutput,
}

/// What `dip presets` prints.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct PresetFigures {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    models: Vec<Preset>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    clusters: Vec<Preset>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    schedules: Vec<Preset>,
}

/// Something that is built in.
#[derive(Debug, Serialize, JsonSchema)]
struct Preset {
    name: String,
    description: String,
}

impl Figures for PresetFigures {
    const SCHEMA: &'static str = "dip.presets/v1";
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
        let is_listed = |kind| self.what.is_none_or(|what| what == kind);
        let mut found = PresetFigures::default();
        if is_listed(PresetList::Models) {
            found.models = list(presets::models());
        }
        if is_listed(PresetList::Clusters) {
            found.clusters = list(presets::clusters());
        }
        if is_listed(PresetList::Schedules) {
            let schedules: Vec<_> = dip::plan::schedules().collect();
            found.schedules = list(schedules.iter().map(|s| (s.name(), s.description())));
        }
        self.json.print(&found, || found.print())?;
        Ok(ExitCode::SUCCESS)
    }
}

impl PresetFigures {
    fn print(&self) {
        let kinds = [
            ("models", &self.models),
            ("clusters", &self.clusters),
            ("schedules", &self.schedules),
        ];
        for (title, presets) in kinds.into_iter().filter(|(_, presets)| !presets.is_empty()) {
            println!("{title}");
            for Preset { name, description } in presets {
                println!("  {name:14} {description}");
            }
        }
    }
}

fn list<'a>(rows: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<Preset> {
    let preset = |(name, description): (&str, &str)| Preset {
        name: name.into(),
        description: description.into(),
    };
    rows.into_iter().map(preset).collect()
}

/// The TOML of a model in a file or folder, such as one of Hugging Face, with its parameters.
fn shown_file(name: &str) -> Result<String> {
    if !Path::new(name).exists() {
        bail!(
            "{name:?} is no model, no cluster and no file{}; `dip presets` lists the names of the built-in ones",
            did_you_mean(name, presets::model_names().into_iter().chain(presets::cluster_names()))
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
