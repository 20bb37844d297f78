//! Inputs that are named by preset or by file.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use dip::plan::{BatchMeta, ClusterSpec, Factors, ModelSpec, did_you_mean, hf, presets};
use dip_files::Kind;

use super::files::read_text;
use super::terminal;

/// The model that `name` means: a preset, a TOML file, a `config.json` of Hugging Face, a folder with one, or a folder of
/// `diffusers`.
pub fn model(name: &str) -> Result<ModelSpec> {
    if let Some(files) = pipeline(Path::new(name))? {
        let folder = Path::new(name).canonicalize().unwrap_or_else(|_| name.into());
        let title = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let model = hf::from_pipeline(&title, &files).with_context(|| name.to_owned())?;
        return Ok(model.spec);
    }
    match (presets::model(name), config_json(Path::new(name))) {
        (Some(spec), _) => Ok(spec),
        (None, Some(config)) => {
            let shown = config.display().to_string();
            let folder = config.canonicalize().unwrap_or_else(|_| config.clone());
            let title = folder.parent().and_then(Path::file_name).unwrap_or_default();
            let model =
                hf::from_config(&title.to_string_lossy(), &read_text(&config, Kind::CONFIG)?);
            Ok(model.with_context(|| shown)?.spec)
        }
        (None, None) if is_file(name) => {
            ModelSpec::from_toml(&read_text(Path::new(name), Kind::TOML)?)
                .with_context(|| name.to_owned())
        }
        (None, None) => bail!(
            "model {name:?} is neither a preset ({}) nor a file{}; see `dip presets models`, or give a model TOML, a \
             config.json or a folder with one",
            presets::model_names().join(", "),
            did_you_mean(name, presets::model_names())
        ),
    }
}

/// Reads a run, whose paths are relative to its file, and its model with the changes that the run makes to it.
#[cfg(feature = "train")]
pub fn run(path: &Path) -> Result<(dip::train::RunConfig, ModelSpec)> {
    let shown = path.display().to_string();
    let config = dip::train::RunConfig::from_toml(&read_text(path, Kind::TOML)?);
    let mut config = config.with_context(|| shown.clone())?;
    config.resolve(path.parent().unwrap_or(Path::new(""))).with_context(|| shown.clone())?;
    let mut model = model(&config.model).with_context(|| format!("{shown}: model"))?;
    config.read_image_processor(&mut model).with_context(|| shown.clone())?;
    config.adapt(&mut model).with_context(|| shown)?;
    Ok((config, model))
}

/// The newest whole checkpoint of a run with this output folder.
#[cfg(feature = "train")]
pub fn newest_checkpoint(output: &Path) -> Result<dip::train::checkpoint::CheckpointReader> {
    dip::train::checkpoint::CheckpointReader::open_newest(output)?.with_context(|| {
        format!("{}: no checkpoint; train, or give --checkpoint", output.display())
    })
}

/// The files of a folder of `diffusers`, by the folder or its `model_index.json`; `None` for others.
fn pipeline(path: &Path) -> Result<Option<hf::PipelineFiles>> {
    let is_index = path.file_name().is_some_and(|name| name == hf::PIPELINE);
    let folder = if is_index { path.parent().unwrap_or(Path::new("")) } else { path };
    hf::PipelineFiles::read(|name| {
        let path = folder.join(name);
        path.is_file().then(|| read_text(&path, Kind::CONFIG)).transpose()
    })
}

/// The `config.json` at a path or in its folder.
fn config_json(path: &Path) -> Option<PathBuf> {
    if path.is_dir() {
        return Some(path.join("config.json"));
    }
    path.extension().is_some_and(|e| e == "json").then(|| path.to_owned())
}

/// The cluster that `name` means: a preset or a TOML file.
pub fn cluster(name: &str) -> Result<ClusterSpec> {
    match presets::cluster(name) {
        Some(spec) => Ok(spec),
        None if is_file(name) => {
            let spec = ClusterSpec::from_toml(&read_text(Path::new(name), Kind::TOML)?);
            let spec = spec.with_context(|| name.to_owned())?;
            if spec.factors == Factors::default() {
                terminal::warn(format!(
                    "{name} has no [factors], so that every operator runs at the speed of the data sheet, which no device \
                     reaches; take them from `dip presets --show h800` or fit them with `dip calibrate`"
                ));
            }
            Ok(spec)
        }
        None => bail!(
            "cluster {name:?} is neither a preset ({}) nor a file{}; see `dip presets clusters`",
            presets::cluster_names().join(", "),
            did_you_mean(name, presets::cluster_names())
        ),
    }
}

/// One iteration of a file of batch metadata; the first if no iteration is given.
pub fn batch(path: &Path, iteration: Option<u64>) -> Result<BatchMeta> {
    let shown = path.display();
    let batches = BatchMeta::from_jsonl(&read_text(path, Kind::BATCHES)?)
        .with_context(|| shown.to_string())?;
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
        (None, ..) => bail!("{shown}: has no microbatch; write one JSON object per line"),
    }
}

fn is_file(name: &str) -> bool {
    name.ends_with(".toml") || Path::new(name).exists()
}
