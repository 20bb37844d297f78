//! The shards that a run names.

use std::path::{Path, PathBuf};

use crate::data::{
    DataError, DataSource, Folders, Mixture, MixturePart, WebDataset, WebDatasetConfig,
};
use crate::train::DataConfig;

/// Opens shards as a source of documents or videos.
pub(super) type OpenShards<D> =
    fn(&[PathBuf], WebDatasetConfig) -> Result<WebDataset<D>, DataError>;

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
        let images = images.or(data.images.as_deref()).map(Path::to_owned);
        let folders = Folders { images, cache: data.cache.clone() };
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
    let folders = Folders { images: data.images.clone(), cache: data.cache.clone() };
    let config = WebDatasetConfig { seed, shuffle_buffer: 1, folders, ..Default::default() };
    Ok(Some(Box::new(open(&data.held_out, config)?)))
}
