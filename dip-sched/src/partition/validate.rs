//! Checks a partition against its model.

use std::collections::BTreeSet;

use dip_core::{ModelSpec, Partition};

use super::PartitionError;

/// Checks that the chunks of every module cover its layers in order, on existing ranks, with one chunk for each rank and segment.
///
/// # Errors
/// [`PartitionError::Invalid`] names the first invalid module and its fault.
pub fn validate_partition(model: &ModelSpec, partition: &Partition) -> Result<(), PartitionError> {
    if partition.ranks == 0 {
        return Err(PartitionError::NoRanks);
    }
    let invalid = |i: usize, what: String| {
        let module = model.modules.get(i).map_or_else(|| format!("#{i}"), |m| m.name.clone());
        Err(PartitionError::Invalid { module, what })
    };
    if partition.modules.len() != model.modules.len() {
        let (found, due) = (partition.modules.len(), model.modules.len());
        return invalid(
            found.min(due),
            format!("is one of {found}, but the model has {due} modules"),
        );
    }
    for (i, (spec, module)) in model.modules.iter().zip(&partition.modules).enumerate() {
        if module.sub_microbatch == 0 {
            return invalid(i, "has sub-microbatches of 0 instances".into());
        }
        let mut covered = 0;
        let mut seen = BTreeSet::new();
        for chunk in &module.chunks {
            if chunk.layers.start != covered || chunk.layers.is_empty() {
                return invalid(i, format!("has layers {:?} after layer {covered}", chunk.layers));
            }
            if chunk.rank.0 >= partition.ranks {
                let ranks = partition.ranks;
                return invalid(i, format!("has a chunk on rank {} of {ranks}", chunk.rank));
            }
            if !seen.insert((chunk.rank, chunk.segment)) {
                let (rank, segment) = (chunk.rank, chunk.segment);
                return invalid(i, format!("has segment {segment} twice on rank {rank}"));
            }
            covered = chunk.layers.end;
        }
        if covered != spec.layers {
            return invalid(i, format!("covers {covered} of {} layers", spec.layers));
        }
    }
    Ok(())
}
