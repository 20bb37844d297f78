//! Agreement of the trainers of a run on weights and shared tensors.

use std::hash::Hasher;

use twox_hash::XxHash3_64;

use super::error::TrainError;
use crate::checkpoint::CheckpointError;
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

/// The parts of all processes, or the error of the first process that has no part: its own error on that process, and its text on
/// the others.
///
/// # Errors
/// [`CheckpointError`] as said, and [`TrainError::Group`] if a process has ended.
pub(super) fn share_results(
    group: &dyn ProcessGroup,
    own: Result<Vec<u8>, CheckpointError>,
) -> Result<Result<Vec<Vec<u8>>, CheckpointError>, TrainError> {
    const FAILED: u8 = 1;
    let message = match &own {
        Ok(part) => [&[0], part.as_slice()].concat(),
        Err(error) => [&[FAILED], error.to_string().as_bytes()].concat(),
    };
    let all = group.all_gather(message)?;
    if let Err(error) = own {
        return Ok(Err(error));
    }
    let part = |(process, message): (usize, &Vec<u8>)| match message.split_first() {
        Some((&FAILED, text)) => {
            let what = String::from_utf8_lossy(text).into_owned();
            Err(CheckpointError::Process { process, what })
        }
        Some((_, part)) => Ok(part.to_vec()),
        None => Ok(Vec::new()),
    };
    Ok(all.iter().enumerate().map(part).collect())
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
