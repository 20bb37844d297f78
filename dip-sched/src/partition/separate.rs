//! The partition of systems with encoders on ranks of their own: the backbone on the last ranks, all other modules on the first.

use dip_core::{Chunk, ModuleId, ModulePartition, Partition, RankId, SegmentId};

use super::contiguous::{TimedLayer, cut, layers};
use super::{PartitionError, Partitioner};

/// Runs of layers over consecutive ranks.
struct Group {
    layers: Vec<TimedLayer>,
    first_rank: u32,
    ranks: u32,
    runs_per_rank: u32,
}

/// Cuts the layers of the backbone, and those of all other modules, into runs of about equal latency, one group after another.
/// `encoder_ranks` ranks hold one run each of the other modules.
pub(super) fn place(
    partitioner: &Partitioner<'_>,
    backbone: ModuleId,
    encoder_ranks: u32,
    runs_per_rank: u32,
) -> Result<Partition, PartitionError> {
    let (own, others): (Vec<_>, Vec<_>) =
        layers(partitioner)?.into_iter().partition(|layer| layer.module == backbone);
    let ranks = partitioner.ranks.saturating_sub(encoder_ranks);
    let groups = [
        Group { layers: others, first_rank: 0, ranks: encoder_ranks, runs_per_rank: 1 },
        Group { layers: own, first_rank: encoder_ranks, ranks, runs_per_rank },
    ];
    let empty = || ModulePartition { sub_microbatch: u32::MAX, chunks: Vec::new() };
    let mut modules: Vec<_> = partitioner.model.modules.iter().map(|_| empty()).collect();
    for group in groups {
        group.place(&mut modules)?;
    }
    Ok(Partition { ranks: partitioner.ranks, modules })
}

impl Group {
    fn place(&self, modules: &mut [ModulePartition]) -> Result<(), PartitionError> {
        let runs = self.ranks.saturating_mul(self.runs_per_rank);
        if runs == 0 || (self.layers.len() as u64) < u64::from(runs) {
            let layers = self.layers.len() as u32;
            return Err(PartitionError::TooFewLayers { layers, runs: runs.max(1) });
        }
        let seconds: Vec<f64> = self.layers.iter().map(|l| l.seconds).collect();
        let mut start = 0;
        for (run, end) in cut(&seconds, runs as usize).into_iter().enumerate() {
            let rank = RankId::from(self.first_rank as usize + run % self.ranks as usize);
            for part in self.layers[start..end].chunk_by(|a, b| a.module == b.module) {
                let chunks = &mut modules[part[0].module.index()].chunks;
                let before = chunks.iter().filter(|c| c.rank == rank).count();
                let range = part[0].index..part[part.len() - 1].index + 1;
                chunks.push(Chunk { rank, segment: SegmentId::from(before), layers: range });
            }
            start = end;
        }
        Ok(())
    }
}
