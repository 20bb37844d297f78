//! `dip evaluate`, `dip caption` and `dip generate`: what a trained model can do.

mod caption;
mod evaluate;
mod generate;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use dip::train::{RunConfig, TrainedRun, WeightsConfig, weights};

use super::inputs;

pub use caption::{CaptionCommand, CaptionFigures};
pub use evaluate::Evaluate;
pub use generate::{ClipFigures, Generate};

/// Where a trained model comes from.
#[derive(Debug, Args)]
pub struct From {
    /// The run that trained the model, a TOML file: takes its newest checkpoint. Or a folder of Hugging Face, such as an export
    #[arg(long, value_name = "RUN.toml|FOLDER")]
    from: PathBuf,
    /// A checkpoint folder of the run, instead of the newest
    #[arg(long)]
    checkpoint: Option<PathBuf>,
    /// The tokenizer.json of the model, if it is not beside it; "bytes" for a model that reads bytes
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
}

impl From {
    fn trained(&self) -> Result<TrainedRun> {
        let mut trained = trained(&self.from, self.checkpoint.clone())?;
        let data = &mut trained.config.data;
        data.tokenizer = self.tokenizer.clone().or(data.tokenizer.take());
        Ok(trained)
    }
}

/// The model of a run file or of a folder of Hugging Face.
fn trained(from: &Path, checkpoint: Option<PathBuf>) -> Result<TrainedRun> {
    if from.extension().is_some_and(|extension| extension == "toml") {
        let (config, model) = inputs::run(from)?;
        let checkpoint = match checkpoint {
            Some(path) => path,
            None => inputs::newest_checkpoint(&config.output)?.path().to_owned(),
        };
        return Ok(TrainedRun { config, model, checkpoint: Some(checkpoint) });
    }
    let shown = from.display();
    let Some(folder) = weights::model_folder(&from.to_string_lossy()).filter(|f| f.is_dir()) else {
        bail!("{shown}: is neither a run TOML nor a folder with config.json; give one of them");
    };
    let name = from.to_string_lossy().into_owned();
    let text = format!("name = {name:?}\nmodel = {name:?}\niterations = 1\noutput = \"runs\"\n");
    let mut config = RunConfig::from_toml(&text).context(name.clone())?;
    let (adapter, frozen, trained) = (None, Vec::new(), Vec::new());
    config.weights = Some(WeightsConfig { from: folder, adapter, frozen, trained });
    let mut model = inputs::model(&name)?;
    config.read_image_processor(&mut model).context(name.clone())?;
    config.adapt(&mut model).context(name)?;
    Ok(TrainedRun { config, model, checkpoint })
}
