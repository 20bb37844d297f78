//! The shards that a run names.

use std::path::{Path, PathBuf};

use dip_core::ModelSpec;

use crate::data::{
    DataError, DataSource, Folders, IndexRequest, LatentShape, Mixture, MixturePart, WebDataset,
    WebDatasetConfig,
};
use crate::train::DataConfig;

/// Most shards whose samples are counted; the others count like them.
const COUNTED_SHARDS: usize = 64;

/// The number of samples of one pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleCount {
    /// Samples, usable or not.
    pub samples: u64,
    /// False if some shards were not opened, and count like those that were.
    pub is_exact: bool,
}

/// Opens shards as a source of documents or videos.
pub(super) type OpenShards<D> =
    fn(&[PathBuf], WebDatasetConfig) -> Result<WebDataset<D>, DataError>;

/// The folders beside some shards of a run, whose pictures may be in a folder of their own.
fn folders(data: &DataConfig, images: Option<&Path>) -> Folders {
    let images = images.or(data.images.as_deref()).map(Path::to_owned);
    Folders { images, cache: data.shard_cache(), indexes: data.indexes.clone() }
}

/// What to index for a run of `model`: its training and held-out shards, with indexes in the folder `out`, or beside the shards
/// without one.
pub fn index_requests(
    model: &ModelSpec,
    data: &DataConfig,
    out: Option<&Path>,
) -> Vec<IndexRequest> {
    let request = |shards: &[PathBuf], images: Option<&Path>| IndexRequest {
        shards: shards.to_vec(),
        folders: Folders { indexes: out.map(Path::to_owned), ..folders(data, images) },
        holds_clips: LatentShape::of(model).is_some(),
        rebuilds: false,
    };
    let sets = [request(&data.shards, None), request(&data.held_out, None)].into_iter();
    let parts = data.mixture.iter().map(|part| request(&part.shards, part.images.as_deref()));
    sets.chain(parts).filter(|request| !request.shards.is_empty()).collect()
}

/// The training data in shards, one set or a mixture; `None` if the run names no shards.
///
/// # Errors
/// [`DataError`] names the file.
pub(super) fn train_shards<D: 'static>(
    data: &DataConfig,
    seed: u64,
    open: OpenShards<D>,
) -> Result<Option<Box<dyn DataSource<D>>>, DataError> {
    let opened = |shards: &[PathBuf], images: Option<&Path>| {
        let folders = folders(data, images);
        let shuffle_buffer = data.shuffle_buffer;
        open(shards, WebDatasetConfig { seed, shuffle_buffer, folders, ..Default::default() })
    };
    if !data.has_shards() {
        return Ok(None);
    }
    if data.mixture.is_empty() {
        return Ok(Some(Box::new(opened(&data.shards, None)?)));
    }
    let part = |part: &crate::train::MixtureConfig| {
        let source = Box::new(opened(&part.shards, part.images.as_deref())?);
        Ok(MixturePart { source: source as Box<dyn DataSource<D>>, weight: part.weight })
    };
    let parts = data.mixture.iter().map(part).collect::<Result<_, DataError>>()?;
    Ok(Some(Box::new(Mixture::new(parts, seed))))
}

/// The samples of one pass over the training shards; `None` if the run names no shards.
///
/// # Errors
/// [`DataError`] names the file.
pub(super) fn count_samples<D: 'static>(
    data: &DataConfig,
    seed: u64,
    open: OpenShards<D>,
) -> Result<Option<SampleCount>, DataError> {
    let mut all = data.has_shards().then_some(SampleCount { samples: 0, is_exact: true });
    let parts = data.mixture.iter().map(|part| (&part.shards, &part.images));
    let parts = parts.chain(data.mixture.is_empty().then_some((&data.shards, &data.images)));
    for (shards, images) in parts.filter(|(shards, _)| !shards.is_empty()) {
        let folders = folders(data, images.as_deref());
        let mut shards = open(shards, WebDatasetConfig { seed, folders, ..Default::default() })?;
        let (samples, is_exact) = shards.count_samples(COUNTED_SHARDS)?;
        if let Some(all) = &mut all {
            (all.samples, all.is_exact) = (all.samples + samples, all.is_exact && is_exact);
        }
    }
    Ok(all)
}

/// The held-out shards in their order; `None` if the run names none.
///
/// # Errors
/// [`DataError`] names the file.
pub(super) fn held_out_shards<D: 'static>(
    data: &DataConfig,
    seed: u64,
    open: OpenShards<D>,
) -> Result<Option<Box<dyn DataSource<D>>>, DataError> {
    if data.held_out.is_empty() {
        return Ok(None);
    }
    let folders = folders(data, None);
    let config = WebDatasetConfig { seed, shuffle_buffer: 1, folders, ..Default::default() };
    Ok(Some(Box::new(open(&data.held_out, config)?)))
}
