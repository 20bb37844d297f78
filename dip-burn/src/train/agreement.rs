//! Agreement of the trainers of a run on weights and shared tensors.

use std::hash::Hasher;
use std::path::Path;

use twox_hash::XxHash3_64;

use super::checkpoint::{self, CheckpointError};
use crate::params::NamedTensors;
use crate::runtime::{GroupError, ProcessGroup};

/// Checks that all processes have the same weights. Equal updates keep them equal, but only on machines that round equally.
///
/// # Errors
/// [`GroupError::Differs`] names the first process with other weights.
pub(super) fn agree_on_weights(
    group: &dyn ProcessGroup,
    iteration: u64,
    weights: &NamedTensors,
) -> Result<(), GroupError> {
    let remedy = "use machines of one kind, started with the same run and weights, and start all again with --resume";
    let what = format!("the weights after iteration {iteration}");
    let parts = || weights.iter().flat_map(|(name, data)| [name.as_bytes(), data.as_bytes()]);
    group.agree_or(&what, remedy, || fingerprint(parts()))
}

/// The tensors of all processes on the first; only its own on the others.
///
/// # Errors
/// [`GroupError`] if a process has ended, and [`CheckpointError`] if tensors cannot be exchanged.
pub(super) fn gather_tensors<E>(
    group: &dyn ProcessGroup,
    own: NamedTensors,
) -> Result<NamedTensors, E>
where
    E: From<GroupError> + From<CheckpointError>,
{
    let bytes = match group.is_first() {
        true => Vec::new(),
        false => checkpoint::to_bytes(Path::new("tensors for the first node"), &own)?,
    };
    let mut all = own;
    for bytes in group.gather(bytes)? {
        all.extend(checkpoint::from_bytes(Path::new("tensors of another node"), &bytes)?);
    }
    Ok(all)
}

/// A hash of all parts and their lengths.
pub(super) fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = XxHash3_64::new();
    for part in parts {
        hash.write(&(part.len() as u64).to_le_bytes());
        hash.write(part);
    }
    format!("{:016x}", hash.finish())
}

#[cfg(test)]
mod tests {
    use super::fingerprint;

    #[test]
    fn fingerprints_distinguish_signs_and_lengths() {
        let signed = |a: f32, b: f32| [0.0, a, 0.0, b].map(f32::to_le_bytes).concat();
        assert_ne!(fingerprint([&signed(1.0, 1.0)[..]]), fingerprint([&signed(-1.0, -1.0)[..]]));
        assert_ne!(fingerprint([b"ab" as &[u8], b""]), fingerprint([b"ab\0" as &[u8], b""]));
        assert_ne!(fingerprint([b"12345678" as &[u8], b"9"]), fingerprint([b"123456789" as &[u8]]));
    }
}
