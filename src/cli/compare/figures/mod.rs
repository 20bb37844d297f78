//! The figures of the paper's evaluation. All but the first use separate runs.

mod average;
mod dynamic;
mod grid;
mod ladder;
mod large;
mod memory;
mod search;
mod sizes;

use anyhow::{Result, anyhow};
use dip::emulate::report::charts::Figure;
use dip::plan::{ModelSpec, did_you_mean, presets};
use serde_json::Value;

use super::contest::{Contest, Contestant};
use super::result::ModelResult;

/// The inputs of all figures.
pub struct Inputs<'a> {
    pub contest: &'a Contest<'a>,
    /// The systems of the comparison.
    pub systems: &'a [Contestant],
    /// The results of the comparison.
    pub results: &'a [ModelResult],
    /// The models of the command line, if there are any. Figures then show these instead of the paper's.
    pub models: Option<&'a [ModelSpec]>,
    /// Number of batches whose mean is a point.
    pub iterations: u64,
}

impl Inputs<'_> {
    /// The models of a figure: those of the command line, or else these presets.
    fn models(&self, presets: &[&str]) -> Result<Vec<ModelSpec>> {
        match self.models {
            Some(models) => Ok(models.to_vec()),
            None => presets.iter().map(|name| preset(name)).collect(),
        }
    }

    /// The model of a figure of one model: the first of the command line, or else this preset.
    fn model(&self, name: &str) -> Result<ModelSpec> {
        self.models.and_then(<[_]>::first).cloned().map_or_else(|| preset(name), Ok)
    }
}

type Draw = fn(&Inputs<'_>) -> Result<(Figure, Value)>;

const FIGURES: [(&str, Draw); 8] = [
    ("average", average::draw),
    ("dynamic", dynamic::draw),
    ("ladder", ladder::draw),
    ("sizes", sizes::draw),
    ("memory", memory::draw),
    ("search", search::draw),
    ("grid", grid::draw),
    ("large", large::draw),
];

/// The figures to draw; `all` names every figure.
pub fn chosen(names: &[String]) -> Result<Vec<&'static str>> {
    if names.iter().any(|n| n == "all") {
        return Ok(FIGURES.map(|f| f.0).to_vec());
    }
    let known = |name: &String| FIGURES.iter().map(|f| f.0).find(|f| f == name);
    let missing = |name: &String| {
        let all: Vec<_> = FIGURES.iter().map(|f| f.0).collect();
        anyhow!(
            "--figures has {name:?}, but must be all or of {}{}; correct the name",
            all.join(", "),
            did_you_mean(name, all.iter().copied())
        )
    };
    names.iter().map(|name| known(name).ok_or_else(|| missing(name))).collect()
}

/// Draws one figure, with its data.
pub fn draw(name: &str, inputs: &Inputs<'_>) -> Result<(Figure, Value)> {
    let found = FIGURES.iter().find(|f| f.0 == name);
    let (_, draw) = found.ok_or_else(|| anyhow!("there is no figure {name:?}"))?;
    draw(inputs)
}

/// A model preset that a figure is about.
fn preset(name: &str) -> Result<ModelSpec> {
    presets::model(name).ok_or_else(|| anyhow!("model {name:?} is no preset"))
}
