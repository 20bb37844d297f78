//! Finds shards by path, folder or pattern.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::format::{Format, is_remote};
use crate::data::error::DataError;

/// The shards that `paths` name, each once, ordered by path.
///
/// # Errors
/// [`DataError`] names a path without shards.
pub(super) fn find_shards(paths: &[PathBuf]) -> Result<Vec<PathBuf>, DataError> {
    let mut shards = BTreeSet::new();
    for path in paths {
        let before = shards.len();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if is_remote(path) {
            shards.insert(path.clone());
            continue;
        }
        if path.is_dir() {
            shards.extend(named(path, Format::is_shard_name)?);
        } else if name.contains(['*', '?']) && !path.exists() {
            let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
            let is_match = |found: &str| matches(found.as_bytes(), name.as_bytes());
            shards.extend(named(folder.unwrap_or(Path::new(".")), is_match)?);
        } else {
            shards.insert(path.clone());
            continue;
        }
        if shards.len() == before {
            return Err(DataError::NoShards { path: path.clone() });
        }
    }
    if shards.is_empty() {
        return Err(DataError::NoShards { path: PathBuf::new() });
    }
    Ok(shards.into_iter().collect())
}

/// The files of a folder whose names are chosen.
fn named(folder: &Path, chosen: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, DataError> {
    let io = |source| DataError::Io { path: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name();
        if name.to_str().is_some_and(&chosen) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// True if `name` matches a pattern of `*` (anything) and `?` (one byte). It goes back to the last star only, so that the time is
/// at most quadratic.
fn matches(name: &[u8], pattern: &[u8]) -> bool {
    let (mut n, mut p, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => (n, p) = (n + 1, p + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (n, p) = (from + 1, at + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_like_a_shell() {
        assert!(matches(b"train-0001.tar", b"train-*.tar"));
        assert!(matches(b"a.tar", b"?.tar"));
        assert!(!matches(b"ab.tar", b"?.tar"));
        assert!(!matches(b"train.tar.gz", b"*.tar"));
    }
}
