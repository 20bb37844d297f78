//! `dip schema`: JSON Schemas of files and of documents, for editors and other programs.

mod reference;

use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::Args;
use dip::plan::did_you_mean;
use dip::plan::schema::{FileSchema, files, of_output};
use schemars::Schema;
use serde_json::json;

use super::output::Figures;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dip schema
  dip schema run > run.schema.json
  dip schema run --markdown

An editor with TOML support, such as VS Code with Even Better TOML, checks and completes a file that begins with
  #:schema ./run.schema.json")]
pub struct SchemaCommand {
    /// The file, such as run, model or cluster, or the document of --json, such as dip.plan-figures/v1; without it, all are listed
    name: Option<String>,
    /// Print a table of the fields instead
    #[arg(long, requires = "name")]
    markdown: bool,
}

impl SchemaCommand {
    pub fn run(&self) -> Result<ExitCode> {
        let all = all();
        let Some(name) = &self.name else {
            for FileSchema { name, holds, .. } in &all {
                println!("{name:24} {holds}");
            }
            return Ok(ExitCode::SUCCESS);
        };
        let found = all.iter().find(|file| file.name == name).ok_or_else(|| {
            let names: Vec<_> = all.iter().map(|file| file.name).collect();
            let meant = did_you_mean(name, names.iter().copied());
            anyhow!("there is no schema {name:?}{meant}; the names are {}", names.join(", "))
        })?;
        match self.markdown {
            true => print!("{}", reference::markdown(&found.schema)),
            false => println!("{}", serde_json::to_string_pretty(&found.schema)?),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Every schema.
fn all() -> Vec<FileSchema> {
    let mut all = files();
    #[cfg(feature = "train")]
    all.extend(dip::train::schema::files());
    all.extend(documents());
    all
}

/// The schemas of the documents of `--json`.
fn documents() -> Vec<FileSchema> {
    let all = vec![
        document::<super::plan::PlanFigures>("dip plan"),
        document::<super::check::CheckFigures>("dip check"),
        document::<super::emulate::EmulationFigures>("dip emulate"),
        document::<super::explain::ExplainFigures>("dip explain"),
        document::<super::compare::Comparison>("dip compare"),
        document::<super::tune::TuneFigures<'static>>("dip tune"),
        document::<super::sample::SampleFigures>("dip sample"),
        document::<super::presets::PresetFigures>("dip presets"),
        document::<super::doctor::DoctorFigures>("dip doctor"),
    ];
    #[cfg(feature = "train")]
    let all = [all, trained()].concat();
    all
}

/// The schemas of the documents of commands that train or use a trained model.
#[cfg(feature = "train")]
fn trained() -> Vec<FileSchema> {
    vec![
        document::<dip::train::RunSummary>("dip train"),
        document::<super::train::RaceFigures>("dip train --compare"),
        document::<dip::train::Evaluation>("dip evaluate"),
        document::<super::trained::CaptionFigures>("dip caption"),
        document::<super::trained::ClipFigures>("dip generate"),
        document::<super::export::ExportFigures>("dip export and dip merge"),
        document::<super::calibrate::CalibrationFigures>("dip calibrate"),
        document::<super::init::ProposalFigures>("dip init"),
        document::<super::index::IndexFigures>("dip index"),
    ]
}

/// The schema of the document that a command prints.
fn document<F: Figures>(command: &'static str) -> FileSchema {
    let mut schema = of_output::<F>();
    add_name(&mut schema, F::SCHEMA);
    FileSchema { name: F::SCHEMA, holds: command, schema }
}

/// Adds the field `schema`, which the printed document has beside its figures.
fn add_name(schema: &mut Schema, name: &str) {
    let object = schema.ensure_object();
    let properties = object.entry("properties").or_insert_with(|| json!({}));
    if let Some(properties) = properties.as_object_mut() {
        properties.insert("schema".into(), json!({ "const": name }));
    }
    let required = object.entry("required").or_insert_with(|| json!([]));
    if let Some(required) = required.as_array_mut() {
        required.push(json!("schema"));
    }
}
