//! Checkpoints: a folder to which every rank writes its own tensors, and which appears whole or not at all.
//!
//! ```text
//! checkpoint-00000100/
//!   model-000.safetensors           weights of rank 0
//!   optimizer-000-000.safetensors   optimiser state and averages that replica 0 of rank 0 keeps
//!   ...                             the same of the other ranks
//!   index.json                      progress of the run, sizes of files, and file, type and shape of every tensor
//!   checksums.xxh3                  checksums of all other files, in the format of `xxhsum -H3`
//! ```
//!
//! A [`Draft`] is filled under a temporary name by all ranks at once, flushed to the disk and renamed, so a killed run leaves only
//! whole checkpoints. Tensors have the names of [`params`](crate::params), which do not depend on the partition: a
//! [`CheckpointReader`] gives each rank of another partition only its own tensors. Neither holds more than one tensor in memory.

mod checksums;
mod draft;
mod error;
mod folder;
mod index;
mod reader;
mod shard;
#[cfg(test)]
mod tests;

pub use checksums::renew as renew_checksums;
pub use draft::Draft;
pub use error::CheckpointError;
pub use folder::{list, path_of};
pub use index::SCHEMA;
pub use reader::CheckpointReader;
pub use shard::{ShardFile, write_shard};

/// Name of the file with the weights of a rank.
pub fn model_file(rank: usize) -> String {
    format!("{MODEL}{rank:03}.safetensors")
}

/// Name of the file with the optimiser state of a rank that one replica keeps.
pub fn optimizer_file(rank: usize, replica: usize) -> String {
    format!("optimizer-{rank:03}-{replica:03}.safetensors")
}

/// The beginning of the names of files with weights.
const MODEL: &str = "model-";
const INDEX: &str = "index.json";
const CHECKSUMS: &str = "checksums.xxh3";
