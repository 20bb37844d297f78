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

    /// What all nodes have together.
    pub fn sum(&self, own: u64) -> Result<u64, NodeError> {
        let Some(nodes) = &self.0 else { return Ok(own) };
        let all = nodes.all_gather(own.to_le_bytes().to_vec())?;
        let number = |bytes: &Vec<u8>| bytes.first_chunk().map_or(0, |x| u64::from_le_bytes(*x));
        Ok(all.iter().map(number).fold(0, u64::saturating_add))
    }

    /// Makes sure that all nodes have the same value.
    pub fn agree(&self, what: &str, own: impl FnOnce() -> String) -> Result<(), NodeError> {
        self.0.as_ref().map_or(Ok(()), |nodes| nodes.agree(what, &own()))
    }

    /// Makes sure that all nodes have the same weights: equal updates keep them equal, but only on machines that round alike.
    pub fn agree_on(&self, iteration: u64, weights: &NamedTensors) -> Result<(), NodeError> {
        let Some(nodes) = &self.0 else { return Ok(()) };
        let remedy = "use machines of one kind, started with the same run and weights, and start all again with --resume";
        let what = format!("the weights behind iteration {iteration}");
        nodes.agree_or(&what, &fingerprint_of(weights), remedy)
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
}

/// FNV-1a over the length and the words of eight bytes of every part. Turned behind each product, whose high bits would not reach
/// the low ones otherwise.
pub(super) fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut take = |word: u64| hash = (hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
    for part in parts {
        take(part.len() as u64);
        for word in part.chunks(8) {
            let mut padded = [0; 8];
            padded[..word.len()].copy_from_slice(word);
            take(u64::from_le_bytes(padded));
        }
    }
    format!("{hash:016x}")
}

/// That of tensors and their names.
fn fingerprint_of(tensors: &NamedTensors) -> String {
    fingerprint(tensors.iter().flat_map(|(name, data)| [name.as_bytes(), data.as_bytes()]))
}

#[cfg(test)]
mod tests {
    use super::fingerprint;

    #[test]
    fn fingerprints_tell_signs_and_lengths_apart() {
        // The signs of the upper floats of two words are bits 63: a product alone never moves them, and two of them cancel.
        let signed = |a: f32, b: f32| [0.0, a, 0.0, b].map(f32::to_le_bytes).concat();
        assert_ne!(fingerprint([&signed(1.0, 1.0)[..]]), fingerprint([&signed(-1.0, -1.0)[..]]));
        assert_ne!(fingerprint([b"ab" as &[u8], b""]), fingerprint([b"ab\0" as &[u8], b""]));
        assert_ne!(fingerprint([b"12345678" as &[u8], b"9"]), fingerprint([b"123456789" as &[u8]]));
    }
}
