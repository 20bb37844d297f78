//! Inputs by preset name or by file.

use std::path::Path;

use anyhow::{Context, Result, bail};
use dip::core::{BatchMeta, ClusterSpec, ModelSpec, presets};

use super::files::read_text;

/// A model by preset name, or from a TOML file.
pub fn model(name: &str) -> Result<ModelSpec> {
    match presets::model(name) {
        Some(spec) => Ok(spec),
        None if is_file(name) => {
            ModelSpec::from_toml(&read_text(Path::new(name))?).with_context(|| name.to_owned())
        }
        None => bail!(
            "model {name:?} is neither a preset ({}) nor a file; see `dip presets models`",
            presets::model_names().join(", ")
        ),
    }
}

/// A cluster by preset name, or from a TOML file.
pub fn cluster(name: &str) -> Result<ClusterSpec> {
    match presets::cluster(name) {
        Some(spec) => Ok(spec),
        None if is_file(name) => {
            ClusterSpec::from_toml(&read_text(Path::new(name))?).with_context(|| name.to_owned())
        }
        None => bail!(
            "cluster {name:?} is neither a preset ({}) nor a file; see `dip presets clusters`",
            presets::cluster_names().join(", ")
        ),
    }
}

/// One iteration of a file of batch metadata.
pub fn batch(path: &Path, iteration: Option<u64>) -> Result<BatchMeta> {
    let shown = path.display();
    let batches = BatchMeta::from_jsonl(&read_text(path)?).with_context(|| shown.to_string())?;
    let numbers: Vec<_> = batches.iter().map(|b| b.iteration).collect();
    let found = match iteration {
        None => batches.into_iter().next(),
        Some(i) => batches.into_iter().find(|b| b.iteration == i),
    };
    match (found, numbers.as_slice(), iteration) {
        (Some(batch), ..) => Ok(batch),
        (None, [first, .., last], Some(i)) => {
            bail!("{shown}: has no iteration {i}, but {first} to {last}; give one with --iteration")
        }
        (None, ..) => bail!("{shown}: has no microbatch; write one JSON object a line"),
    }
}

fn is_file(name: &str) -> bool {
    name.ends_with(".toml") || Path::new(name).exists()
}
