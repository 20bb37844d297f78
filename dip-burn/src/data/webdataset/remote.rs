//! Shards by URL: `s3://`, `gs://`, `az://`, `http://` and `https://`.
//!
//! A shard is fetched in pieces when it is opened, each tried several times, and lies on disk while it is open. In a cache folder it
//! stays for the next epoch and the next run. Credentials come from the variables of the environment that the tools of each cloud
//! use, such as `AWS_ACCESS_KEY_ID`.

use std::fs::{self, File};
use std::hash::Hasher;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fnv::FnvHasher;
use object_store::path::Path as Location;
use object_store::{ObjectStore, parse_url_opts};
use tokio::runtime::{Builder, Runtime};
use url::Url;

use super::cache::ShardCache;
use super::format::IDENTITY_BYTES;
use crate::data::error::{BoxError, DataError};

/// Bytes of one request.
const PIECE_BYTES: u64 = 16 << 20;
/// Most bytes of one shard.
const MAX_BYTES: u64 = 256 << 30;
/// Tries of one request; the store itself also tries again after errors of the server.
const TRIES: u32 = 4;
/// Pause after the first failed try; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// An object that a URL names.
struct Remote {
    url: PathBuf,
    store: Box<dyn ObjectStore>,
    location: Location,
    runtime: Runtime,
    bytes: u64,
}

/// Fetches a shard: into `cache` if it is given, otherwise into a file that is deleted when it is closed. Older shards of the cache make
/// room for it.
///
/// # Errors
/// [`DataError`] names the URL or the file of the cache.
pub(super) fn fetch(url: &Path, cache: Option<&ShardCache>) -> Result<File, DataError> {
    let remote = Remote::open(url)?;
    let Some(cache) = cache else {
        let mut file = tempfile::tempfile().map_err(|source| io(url, source))?;
        remote.copy(&mut file)?;
        return Ok(file);
    };
    let (folder, path) = (&cache.folder, cache.path(remote.identity()?, &name(url)));
    if let Some(kept) = cache.open(&path).map_err(|source| io(&path, source))? {
        return Ok(kept);
    }
    fs::create_dir_all(folder).map_err(|source| io(folder, source))?;
    cache.make_room(remote.bytes).map_err(|source| io(folder, source))?;
    let file = tempfile::NamedTempFile::new_in(folder).map_err(|source| io(folder, source))?;
    remote.copy(&mut file.as_file())?;
    file.persist(&path).map_err(|error| io(&path, error.error))
}

/// As for a shard on disk: a number that follows from the name, the length, the first and the last bytes.
///
/// # Errors
/// [`DataError`] names the URL.
pub(super) fn identity(url: &Path) -> Result<u64, DataError> {
    Remote::open(url)?.identity()
}

impl Remote {
    fn open(url: &Path) -> Result<Self, DataError> {
        let wrong = |source: BoxError| DataError::Remote { url: url.to_owned(), source };
        let parsed = url.to_str().ok_or("it is not UTF-8").map_err(|e| wrong(e.into()))?;
        let parsed = Url::parse(parsed).map_err(|e| wrong(e.into()))?;
        let clouds = ["aws_", "google_", "azure_"];
        let own = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?.to_ascii_lowercase();
            let is_cloud = clouds.iter().any(|cloud| name.starts_with(cloud));
            Some((name, value.into_string().ok()?)).filter(|_| is_cloud)
        });
        let plain = ("allow_http".to_owned(), (parsed.scheme() == "http").to_string());
        let options = own.chain([plain]);
        let (store, location) = parse_url_opts(&parsed, options).map_err(|e| wrong(e.into()))?;
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|source| io(url, source))?;
        let mut new = Self { url: url.to_owned(), store, location, runtime, bytes: 0 };
        new.bytes = new.tried(|| new.runtime.block_on(new.store.head(&new.location)))?.size;
        if new.bytes > MAX_BYTES {
            let limit = format!("it has {} bytes; at most {MAX_BYTES} are fetched", new.bytes);
            return Err(wrong(limit.into()));
        }
        Ok(new)
    }

    fn identity(&self) -> Result<u64, DataError> {
        let mut hash = FnvHasher::default();
        hash.write(name(&self.url).as_bytes());
        hash.write(&self.bytes.to_le_bytes());
        for start in [0, self.bytes.saturating_sub(IDENTITY_BYTES)] {
            hash.write(&self.piece(start, (start + IDENTITY_BYTES).min(self.bytes))?);
        }
        Ok(hash.finish())
    }

    fn copy(&self, out: &mut (impl Write + ?Sized)) -> Result<(), DataError> {
        let mut at = 0;
        while at < self.bytes {
            let end = (at + PIECE_BYTES).min(self.bytes);
            let piece = self.piece(at, end)?;
            out.write_all(&piece).map_err(|source| io(&self.url, source))?;
            at = end;
        }
        Ok(())
    }

    /// The bytes from `start` to `end`.
    fn piece(&self, start: u64, end: u64) -> Result<Vec<u8>, DataError> {
        if start == end {
            return Ok(Vec::new());
        }
        let piece = self.tried(|| {
            let bytes = self.store.get_range(&self.location, start..end);
            self.runtime.block_on(bytes)
        })?;
        if piece.len() as u64 != end - start {
            let source = "the server gave fewer bytes than it said".into();
            return Err(DataError::Remote { url: self.url.clone(), source });
        }
        Ok(piece.to_vec())
    }

    /// The result of a request that is tried several times.
    fn tried<T>(
        &self,
        request: impl Fn() -> Result<T, object_store::Error>,
    ) -> Result<T, DataError> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..TRIES {
            match request() {
                Ok(result) => return Ok(result),
                // Trying again does not help.
                Err(object_store::Error::NotFound { .. }) => break,
                Err(_) => std::thread::sleep(pause),
            }
            pause *= 2;
        }
        request()
            .map_err(|source| DataError::Remote { url: self.url.clone(), source: source.into() })
    }
}

/// The name of the file that a URL ends with.
fn name(url: &Path) -> String {
    url.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn io(path: &Path, source: std::io::Error) -> DataError {
    DataError::Io { path: path.to_owned(), source }
}
