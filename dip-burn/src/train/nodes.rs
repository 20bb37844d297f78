//! What a trainer decides together with other nodes; alone, every answer is its own.

use std::path::Path;
use std::sync::Arc;

use super::checkpoint::{self, CheckpointError};
use crate::params::NamedTensors;
use crate::runtime::nodes::{NodeError, NodeGroup};

/// The nodes of a run, if there are others.
#[derive(Clone, Default)]
pub(super) struct Together(pub Option<Arc<NodeGroup>>);

impl Together {
    /// Whether this is the node that writes and evaluates.
    pub fn is_first(&self) -> bool {
        self.0.as_ref().is_none_or(|nodes| nodes.is_first())
    }

    pub fn number(&self) -> usize {
        self.0.as_ref().map_or(0, |nodes| nodes.number())
    }

    pub fn count(&self) -> usize {
        self.0.as_ref().map_or(1, |nodes| nodes.count())
    }

    /// What `make` gives on the first node, on all of them.
    pub fn first_gives<E: From<NodeError>>(
        &self,
        make: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<Vec<u8>, E> {
        let own = if self.is_first() { make()? } else { Vec::new() };
        Ok(match &self.0 {
            Some(nodes) => nodes.broadcast(own)?,
            None => own,
        })
    }

    /// Makes sure that all nodes have the same value.
    pub fn agree(&self, what: &str, own: impl FnOnce() -> String) -> Result<(), NodeError> {
        self.0.as_ref().map_or(Ok(()), |nodes| nodes.agree(what, &own()))
    }

    /// The tensors of all nodes on the first one; its own on each other.
    pub fn gathered<E>(&self, own: NamedTensors) -> Result<NamedTensors, E>
    where
        E: From<NodeError> + From<CheckpointError>,
    {
        let Some(nodes) = &self.0 else { return Ok(own) };
        let bytes = match self.is_first() {
            true => Vec::new(),
            false => checkpoint::to_bytes(Path::new("tensors for the first node"), &own)?,
        };
        let mut all = own;
        for bytes in nodes.gather(bytes)? {
            all.extend(checkpoint::from_bytes(Path::new("tensors of another node"), &bytes)?);
        }
        Ok(all)
    }

    /// Ends what the nodes do together.
    pub fn leave(&self, error: Option<&str>) {
        if let Some(nodes) = &self.0 {
            nodes.transport().leave(error);
        }
    }
}

/// FNV-1a over words of eight bytes.
pub(super) fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        for word in part.chunks(8) {
            let mut padded = [0; 8];
            padded[..word.len()].copy_from_slice(word);
            hash = (hash ^ u64::from_le_bytes(padded)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    format!("{hash:016x}")
}

/// That of tensors and their names.
pub(super) fn fingerprint_of(tensors: &NamedTensors) -> String {
    fingerprint(tensors.iter().flat_map(|(name, data)| [name.as_bytes(), data.as_bytes()]))
}
