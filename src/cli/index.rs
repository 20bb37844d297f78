//! `dip index`: makes the indexes of shards, so that training plans batches without opening pictures.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, bail};
use clap::Args;
use dip::train::data::{Folders, IndexRequest, IndexedShard, SkipCounts};
use dip::train::index_requests;
use schemars::JsonSchema;
use serde::Serialize;

use super::inputs;
use super::output::{Figures, JsonOutput};
use super::spinner::Spinner;

/// Samples after which the number on the terminal changes.
const SHOWN_EVERY: u64 = 64;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dip index data/train-*.tar
  dip index run.toml --out indexes")]
pub struct Index {
    /// Shards: files, folders, patterns or URLs; or a run, a TOML file, for all its shards
    #[arg(required = true, value_name = "DATA")]
    data: Vec<PathBuf>,
    /// The folder of the pictures that JSON files name; by default the folder of each file
    #[arg(long, value_name = "FOLDER")]
    images: Option<PathBuf>,
    /// The folder of the indexes; by default each comes beside its shard, or into `data.indexes` of the run
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// The samples are captioned videos, as text-to-video models read them
    #[arg(long)]
    clips: bool,
    /// Index again what has a valid index
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    json: JsonOutput,
}

/// What `dip index` prints.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct IndexFigures {
    shards: Vec<ShardFigures>,
    samples: u64,
    pictures: u64,
    videos: u64,
    sounds: u64,
    /// Samples that cannot be used, by reason.
    skipped: SkipCounts,
}

/// A shard with its index.
#[derive(Debug, Serialize, JsonSchema)]
struct ShardFigures {
    shard: PathBuf,
    index: PathBuf,
    samples: u64,
    /// False if the shard had a valid index.
    is_new: bool,
}

impl Figures for IndexFigures {
    const SCHEMA: &'static str = "dip.indexing/v1";
}

impl Index {
    pub fn run(&self) -> Result<ExitCode> {
        let spinner = Spinner::start("indexing");
        let samples = AtomicU64::new(0);
        let see = || {
            let done = samples.fetch_add(1, Ordering::Relaxed) + 1;
            if done.is_multiple_of(SHOWN_EVERY) {
                spinner.say(format!("indexing, {done} samples"));
            }
        };
        let mut indexed = Vec::new();
        for request in self.requests()? {
            indexed.extend(request.run(&see)?);
        }
        drop(spinner);
        let figures = IndexFigures::new(&indexed);
        self.json.print(&figures, || print!("{}", figures.text()))?;
        Ok(ExitCode::SUCCESS)
    }

    fn requests(&self) -> Result<Vec<IndexRequest>> {
        let is_run = |path: &PathBuf| path.extension().is_some_and(|end| end == "toml");
        if !self.data.iter().any(is_run) {
            let (images, indexes) = (self.images.clone(), self.out.clone());
            return Ok(vec![IndexRequest {
                shards: self.data.clone(),
                folders: Folders { images, indexes, ..Folders::default() },
                holds_clips: self.clips,
                rebuilds: self.force,
            }]);
        }
        let [run] = &self.data[..] else {
            bail!("a run and other data are given; index them one after another")
        };
        if self.images.is_some() || self.clips {
            bail!("--images and --clips are given with a run, which says so itself; leave them out")
        }
        let (config, model) = inputs::run(run)?;
        let out = self.out.as_deref().or(config.data.indexes.as_deref());
        let mut requests = index_requests(&model, &config.data, out);
        if requests.is_empty() {
            bail!("{}: the run names no shards, so its data are drawn", run.display());
        }
        requests.iter_mut().for_each(|request| request.rebuilds = self.force);
        Ok(requests)
    }
}

impl IndexFigures {
    fn new(indexed: &[IndexedShard]) -> Self {
        let mut figures = Self::default();
        for shard in indexed {
            figures.samples += shard.samples;
            figures.pictures += shard.media.pictures;
            figures.videos += shard.media.videos;
            figures.sounds += shard.media.sounds;
            figures.skipped.merge(&shard.skipped);
            figures.shards.push(ShardFigures {
                shard: shard.shard.clone(),
                index: shard.index.clone(),
                samples: shard.samples,
                is_new: shard.is_new,
            });
        }
        figures
    }

    /// A line for each shard, then the sums.
    fn text(&self) -> String {
        let mut text = String::new();
        for ShardFigures { shard, index, samples, is_new } in &self.shards {
            let made = if *is_new { "indexed in" } else { "has" };
            text +=
                &format!("{}: {samples} samples, {made} {}\n", shard.display(), relative(index));
        }
        let Self { shards, samples, pictures, videos, sounds, skipped } = self;
        text += &format!(
            "{} shards: {samples} samples, {pictures} pictures, {videos} videos, {sounds} sounds; unusable: {skipped}\n",
            shards.len()
        );
        text
    }
}

fn relative(path: &Path) -> String {
    let current = std::env::current_dir().ok();
    let short = current.as_deref().and_then(|current| path.strip_prefix(current).ok());
    short.unwrap_or(path).display().to_string()
}
