//! Stands in for shards by URL in programs without the feature `remote`.

use std::fs::File;
use std::path::Path;

use super::cache::ShardCache;
use crate::data::error::DataError;

/// Refuses a URL.
///
/// # Errors
/// Always.
pub(super) fn fetch(url: &Path, _cache: Option<&ShardCache>) -> Result<File, DataError> {
    let source = "this program was built without the feature `remote`".into();
    Err(DataError::Remote { url: url.to_owned(), source })
}

/// Refuses a URL.
///
/// # Errors
/// Always.
pub(super) fn identity(url: &Path) -> Result<u64, DataError> {
    fetch(url, None).map(|_| 0)
}
