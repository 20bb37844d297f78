//! `index.json`: what a checkpoint consists of.

use std::collections::BTreeMap;

use safetensors::tensor::Dtype;
use serde::{Deserialize, Serialize};

use super::ShardFile;

/// The schema name of `index.json`.
pub const SCHEMA: &str = "dip.checkpoint/v2";

/// The content of a checkpoint with progress `S`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Index<S> {
    /// [`SCHEMA`].
    pub schema: String,
    /// Progress of the run.
    pub state: S,
    /// Bytes of every file with tensors.
    pub files: BTreeMap<String, u64>,
    /// The place of every tensor.
    pub tensors: BTreeMap<String, TensorPlace>,
}

/// The place of a tensor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TensorPlace {
    pub file: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
}

impl<S> Index<S> {
    /// The index of these files.
    pub fn new(state: S, shards: &[ShardFile]) -> Self {
        let places = shards.iter().flat_map(|shard| {
            shard.tensors.iter().map(|(name, shape)| {
                let (file, shape) = (shard.name.clone(), shape.clone());
                (name.clone(), TensorPlace { file, dtype: Dtype::F32, shape })
            })
        });
        Self {
            schema: SCHEMA.into(),
            state,
            files: shards.iter().map(|shard| (shard.name.clone(), shard.bytes)).collect(),
            tensors: places.collect(),
        }
    }
}
