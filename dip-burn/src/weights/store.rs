//! Reads tensors of safetensors files one by one.
//!
//! Opening a store reads only headers. It checks every size in them against the length of the file before it allocates, so that a
//! broken file takes no more memory than it has bytes.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use dip_core::hf::PIPELINE;
use dip_files::Kind;
use safetensors::tensor::{Dtype, TensorInfo};
use serde::Deserialize;
use serde_json::Value;

use super::WeightsError;
use super::names::{TEXT_ENCODER, TRANSFORMER};
use crate::floats::floats;

/// The weights of one part of a model: the folder of the part in the folder of the model, and the name of its files.
#[derive(Debug, PartialEq, Eq)]
pub struct WeightFiles {
    /// With a slash at its end; empty for the folder of the model.
    pub folder: &'static str,
    stem: &'static str,
}

impl WeightFiles {
    const WHOLE: [Self; 1] = [Self { folder: "", stem: "model" }];
    const PIPELINE: [Self; 2] = [
        Self { folder: TRANSFORMER, stem: "diffusion_pytorch_model" },
        Self { folder: TEXT_ENCODER, stem: "model" },
    ];

    /// The weights of the model in `folder`: one part, or the parts of a folder of `diffusers`.
    pub fn of(folder: &Path) -> &'static [Self] {
        match folder.join(PIPELINE).exists() {
            true => &Self::PIPELINE,
            false => &Self::WHOLE,
        }
    }

    /// True if `folder` has weights of this part.
    pub fn exist_in(&self, folder: &Path) -> bool {
        let folder = folder.join(self.folder);
        [self.single(), self.index()].iter().any(|name| folder.join(name).exists())
    }

    /// The file without shards.
    pub fn single(&self) -> String {
        format!("{}.safetensors", self.stem)
    }

    /// The file that lists the shard of each tensor.
    pub fn index(&self) -> String {
        format!("{}.safetensors.index.json", self.stem)
    }

    /// File `number` of `count` shards.
    pub fn shard(&self, number: usize, count: usize) -> String {
        format!("{}-{number:05}-of-{count:05}.safetensors", self.stem)
    }
}
/// Longest header. Even the largest published models have much shorter ones.
const MAX_HEADER_BYTES: u64 = 64 << 20;

/// The tensors of one file or of all shards of a model.
#[derive(Debug)]
pub struct TensorStore {
    path: PathBuf,
    files: Vec<PathBuf>,
    tensors: BTreeMap<String, TensorLocation>,
}

/// The place of a tensor.
#[derive(Debug, Clone)]
struct TensorLocation {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    /// Offset of its first byte in the file.
    start: u64,
    bytes: u64,
}

#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

impl TensorStore {
    /// Opens the model in `folder`: its shards if it has an index, otherwise its one file. In a folder of `diffusers`, the names of
    /// the tensors begin with the folder of their part, such as `transformer/`.
    ///
    /// # Errors
    /// [`WeightsError`] names the file and what is wrong with it.
    pub fn open(folder: &Path) -> Result<Self, WeightsError> {
        let mut store = Self::empty(folder);
        for part in WeightFiles::of(folder) {
            store.add_part(folder, part)?;
        }
        Ok(store)
    }

    fn add_part(&mut self, folder: &Path, part: &WeightFiles) -> Result<(), WeightsError> {
        let (prefix, folder) = (part.folder, folder.join(part.folder));
        let index = folder.join(part.index());
        if !index.exists() {
            return self.add(&folder.join(part.single()), prefix);
        }
        let shards = shards(&index)?;
        for shard in shards.values().collect::<std::collections::BTreeSet<_>>() {
            self.add(&folder.join(shard), prefix)?;
        }
        let is_missing = |name: &&String| !self.tensors.contains_key(&format!("{prefix}{name}"));
        match shards.keys().find(is_missing) {
            None => Ok(()),
            Some(name) => {
                let what = format!("{:?} should hold {name:?}, but does not", shards[name]);
                let remedy = "get the shards and the index of one version";
                Err(WeightsError::format(&index, what, remedy))
            }
        }
    }

    /// Opens one file.
    ///
    /// # Errors
    /// As [`TensorStore::open`].
    pub fn open_file(path: &Path) -> Result<Self, WeightsError> {
        let mut store = Self::empty(path);
        store.add(path, "")?;
        Ok(store)
    }

    /// Opens several files of the folder `path` as one store.
    ///
    /// # Errors
    /// As [`TensorStore::open`].
    pub fn open_files(path: &Path, files: &[PathBuf]) -> Result<Self, WeightsError> {
        let mut store = Self::empty(path);
        files.iter().try_for_each(|file| store.add(file, ""))?;
        Ok(store)
    }

    fn empty(path: &Path) -> Self {
        Self { path: path.to_owned(), files: Vec::new(), tensors: BTreeMap::new() }
    }

    /// The folder or file that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all tensors, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|t| t.shape.as_slice())
    }

    /// Reads rows of a tensor as f32; a row holds all dimensions after the first.
    ///
    /// # Errors
    /// [`WeightsError`] if the tensor is missing, has fewer rows or another type, or cannot be read.
    pub fn rows(&self, name: &str, rows: Range<usize>) -> Result<Vec<f32>, WeightsError> {
        let t = self.located(name)?;
        let count = t.shape.first().copied().unwrap_or(1).max(1);
        if rows.end > count {
            let what = format!("tensor {name:?} has {count} rows, not {}", rows.end);
            return Err(WeightsError::format(&self.files[t.file], what, "get the file again"));
        }
        let row = t.bytes / count as u64;
        let bytes = self.read(t, rows.start as u64 * row, rows.len() as u64 * row)?;
        floats(&bytes, t.dtype).ok_or_else(|| {
            let what = format!("tensor {name:?} is {:?}, not F32, F16 or BF16", t.dtype);
            WeightsError::format(
                &self.files[t.file],
                what,
                "quantised weights cannot be trained: get the originals",
            )
        })
    }

    /// Reads a whole tensor as f32.
    ///
    /// # Errors
    /// As [`TensorStore::rows`].
    pub fn all(&self, name: &str) -> Result<Vec<f32>, WeightsError> {
        let rows = self.located(name)?.shape.first().copied().unwrap_or(1);
        self.rows(name, 0..rows)
    }

    fn located(&self, name: &str) -> Result<&TensorLocation, WeightsError> {
        self.tensors.get(name).ok_or_else(|| WeightsError::Missing {
            path: self.path.clone(),
            count: 1,
            name: name.to_owned(),
        })
    }

    fn read(&self, t: &TensorLocation, offset: u64, length: u64) -> Result<Vec<u8>, WeightsError> {
        let path = &self.files[t.file];
        let io = || WeightsError::io(path);
        let mut file = dip_files::open(path, Kind::WEIGHTS).map_err(io())?;
        file.seek(SeekFrom::Start(t.start + offset)).map_err(io())?;
        let mut bytes = vec![0; length as usize];
        file.read_exact(&mut bytes).map_err(io())?;
        Ok(bytes)
    }

    /// Reads the header of one file. The names of its tensors get the prefix.
    fn add(&mut self, path: &Path, prefix: &str) -> Result<(), WeightsError> {
        let again = "get the file again: it is broken or cut off";
        let mut file = dip_files::open(path, Kind::WEIGHTS).map_err(WeightsError::io(path))?;
        let length = file.metadata().map_err(WeightsError::io(path))?.len();
        let mut size = [0; 8];
        file.read_exact(&mut size).map_err(WeightsError::io(path))?;
        let size = u64::from_le_bytes(size);
        let limit = MAX_HEADER_BYTES.min(length.saturating_sub(8));
        if size > limit {
            let what = format!("a header of {size} bytes is over the limit of {limit}");
            return Err(WeightsError::format(path, what, again));
        }
        let mut header = vec![0; size as usize];
        file.read_exact(&mut header).map_err(WeightsError::io(path))?;
        let header: BTreeMap<String, Value> =
            serde_json::from_slice(&header).map_err(|e| WeightsError::format(path, e, again))?;
        for (name, info) in header.into_iter().filter(|(name, _)| name != "__metadata__") {
            let info: TensorInfo = serde_json::from_value(info)
                .map_err(|e| WeightsError::format(path, format!("tensor {name:?}: {e}"), again))?;
            let (start, end) = info.data_offsets;
            let bytes = elements(&info.shape).and_then(|n| n.checked_mul(info.dtype.bitsize()));
            let inside = start <= end && end as u64 <= length - 8 - size;
            if !inside || bytes != (end - start).checked_mul(8) {
                let what = format!(
                    "tensor {name:?} of shape {:?} has bytes {start} to {end} of {}",
                    info.shape,
                    length - 8 - size
                );
                return Err(WeightsError::format(path, what, again));
            }
            let located = TensorLocation {
                file: self.files.len(),
                dtype: info.dtype,
                shape: info.shape,
                start: 8 + size + start as u64,
                bytes: (end - start) as u64,
            };
            if self.tensors.insert(format!("{prefix}{name}"), located).is_some() {
                let what = format!("tensor {name:?} is also in another shard");
                return Err(WeightsError::format(path, what, "get the shards of one version"));
            }
        }
        self.files.push(path.to_owned());
        Ok(())
    }
}

/// The shard of every tensor.
fn shards(index: &Path) -> Result<BTreeMap<String, String>, WeightsError> {
    let remedy = "get the index again";
    let text = read_text(index)?;
    let Index { weight_map } =
        serde_json::from_str(&text).map_err(|e| WeightsError::format(index, e, remedy))?;
    let outside = |shard: &&String| Path::new(shard).file_name() != Some(shard.as_ref());
    if let Some(shard) = weight_map.values().find(outside) {
        let what = format!("shard {shard:?} is no plain file name");
        return Err(WeightsError::format(index, what, remedy));
    }
    Ok(weight_map.into_iter().collect())
}

/// Reads a text that describes a model.
pub(super) fn read_text(path: &Path) -> Result<String, WeightsError> {
    dip_files::read_text(path, Kind::CONFIG).map_err(WeightsError::io(path))
}

fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opens a file of this header and `data` zero bytes.
    fn opened(header: &str, data: usize) -> Result<TensorStore, WeightsError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend(std::iter::repeat_n(0, data));
        std::fs::write(&path, bytes).unwrap();
        TensorStore::open(folder.path())
    }

    #[test]
    fn a_header_that_promises_more_than_the_file_has_is_refused() {
        let tensor = |dtype: &str, shape: &str, offsets: &str| {
            format!(
                "{{\"a\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":{offsets}}}}}"
            )
        };
        assert_eq!(
            opened(&tensor("F32", "[2,2]", "[0,16]"), 16).unwrap().shape("a"),
            Some(&[2, 2][..])
        );
        for (header, data) in [
            (tensor("F32", "[2,2]", "[0,16]"), 15),
            (tensor("F32", "[2,3]", "[0,16]"), 16),
            (tensor("F32", "[4294967296,4294967296,4294967296]", "[0,16]"), 16),
            (tensor("F32", "[2,2]", "[16,0]"), 16),
            (tensor("F99", "[2,2]", "[0,16]"), 16),
            ("{".to_owned(), 0),
            ("[]".to_owned(), 0),
        ] {
            let error = opened(&header, data).unwrap_err().to_string();
            assert!(error.contains("get the file again"), "{error}");
        }
    }

    #[test]
    fn a_header_longer_than_its_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        for (bytes, named) in [
            (u64::MAX.to_le_bytes().to_vec(), "a header of 18446744073709551615 bytes"),
            (vec![1, 2, 3], "model.safetensors"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let error = TensorStore::open(folder.path()).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn an_index_must_name_existing_files_of_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        for (shard, named) in [("../x", "no plain file name"), ("x.safetensors", "x.safetensors")] {
            let index = format!("{{\"weight_map\":{{\"a\":\"{shard}\"}}}}");
            std::fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
            let error = TensorStore::open(folder.path()).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
