//! Agreement of the trainers of a run on weights and shared tensors.

use std::collections::BTreeMap;
use std::hash::Hasher;

use burn::tensor::TensorData;
use dip_core::RankId;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use twox_hash::XxHash3_64;

use super::error::TrainError;
use crate::checkpoint::CheckpointError;
use crate::floats::floats;
use crate::params::NamedTensors;
use crate::runtime::{GroupError, Position, ProcessGrid, ProcessGroup};

/// Checks that all replicas of every rank have the same weights, given hashes of those of this process. Equal updates keep them equal, but only on machines that round
/// equally.
///
/// # Errors
/// [`GroupError::Differs`] names a process with other weights.
pub(super) fn agree_on_weights(
    group: &dyn ProcessGroup,
    grid: &ProcessGrid,
    iteration: u64,
    own: &BTreeMap<Position, u64>,
) -> Result<(), GroupError> {
    let own: Vec<String> = own.values().map(|hash| format!("{hash:016x}")).collect();
    let mut all = BTreeMap::new();
    for (process, bytes) in group.all_gather(own.join("\n").into_bytes())?.iter().enumerate() {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let prints = text.lines().map(str::to_owned);
        all.extend(grid.hosted(process).into_iter().zip(prints));
    }
    let print = |replica, rank| all.get(&Position { replica, rank });
    for rank in (0..grid.ranks()).map(RankId::from) {
        for replica in 1..grid.replicas() {
            if print(replica, rank) == print(0, rank) {
                continue;
            }
            let hosts = [0, replica].map(|replica| grid.host(Position { replica, rank }));
            // Each process names another one.
            let process = if hosts[1] == group.index() { hosts[0] } else { hosts[1] };
            return Err(GroupError::Differs {
                process,
                what: format!("the weights of rank {rank} after iteration {iteration}"),
                remedy: "use machines of one kind, started with the same run and weights, and start all again with --resume",
            });
        }
    }
    Ok(())
}

/// The parts of all processes, or the error of the first process that has no part: its own error on that process, and its text on
/// the others. All processes therefore agree on what the error means, also if several have one.
///
/// # Errors
/// [`CheckpointError`] as said, and [`TrainError::Group`] if a process has ended.
pub(super) fn share_results(
    group: &dyn ProcessGroup,
    own: Result<Vec<u8>, CheckpointError>,
) -> Result<Result<Vec<Vec<u8>>, CheckpointError>, TrainError> {
    const PART: u8 = 0;
    const FAILED: u8 = 1;
    const DAMAGED: u8 = 2;
    let (kind, text) = match &own {
        Ok(_) => (PART, String::new()),
        Err(error) => (if error.is_damage() { DAMAGED } else { FAILED }, error.to_string()),
    };
    let part = own.as_deref().unwrap_or(text.as_bytes());
    let mut parts = Vec::new();
    for (process, message) in group.all_gather([&[kind], part].concat())?.iter().enumerate() {
        let (&kind, part) = message.split_first().unwrap_or((&PART, &[]));
        if kind == PART {
            parts.push(part.to_vec());
            continue;
        }
        let what = String::from_utf8_lossy(part).into_owned();
        let of_other = CheckpointError::Process { process, what, is_damage: kind == DAMAGED };
        let is_own = process == group.index();
        return Ok(Err(own.err().filter(|_| is_own).unwrap_or(of_other)));
    }
    Ok(Ok(parts))
}

/// The tensors of all processes on the first; only its own on the others.
///
/// # Errors
/// [`GroupError`] if a process has ended, or sends something else.
pub(super) fn gather_tensors(
    group: &dyn ProcessGroup,
    own: NamedTensors,
) -> Result<NamedTensors, GroupError> {
    let bytes = if group.is_first() { Vec::new() } else { to_bytes(&own) };
    let mut all = own;
    for (process, bytes) in group.gather(bytes)?.iter().enumerate().skip(1) {
        let differs = || GroupError::Differs {
            process,
            what: "the format of tensors".into(),
            remedy: "start all processes with the same version",
        };
        all.extend(from_bytes(bytes).ok_or_else(differs)?);
    }
    Ok(all)
}

fn to_bytes(tensors: &NamedTensors) -> Vec<u8> {
    let views = tensors.iter().map(|(name, data)| {
        let view = TensorView::new(Dtype::F32, data.shape.to_vec(), data.as_bytes());
        (name.as_str(), view.expect("the values fill the shape"))
    });
    let views: BTreeMap<_, _> = views.collect();
    safetensors::serialize(views, None).expect("tensors in memory have a form in bytes")
}

fn from_bytes(bytes: &[u8]) -> Option<NamedTensors> {
    let file = SafeTensors::deserialize(bytes).ok()?;
    let tensor = |(name, view): (&str, TensorView<'_>)| {
        let values = floats(view.data(), view.dtype())?;
        Some((name.to_owned(), TensorData::new(values, view.shape().to_vec())))
    };
    file.iter().map(tensor).collect()
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
