//! A rank's part in data parallelism: it sums gradients over the replicas and gathers sharded updates.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use burn::tensor::backend::Backend;
use dip_core::{Program, RankId, SegmentId, StageError, TaskCall, TaskKind};

use super::chunks::{Chunks, gradient_bucket, parameter_bucket};
use super::collective::{Collective, ReplicaGone};
use super::shard::OptimizerShard;
use crate::params::MapParameters;
use crate::params::bucket::{ReadParameters, WriteParameters};

/// One replica of a rank, and its connection with the others.
pub(super) struct Replica<B: Backend> {
    /// Its number among the replicas of all processes.
    pub number: usize,
    /// True for the first replica of the run, which reports the gradient norm: it is the same on all.
    pub reports_norm: bool,
    /// Absent in a run with one replica.
    pub collective: Option<Arc<dyn Collective<B>>>,
    /// The parameters that this replica updates; absent if every replica updates all.
    pub shard: Option<OptimizerShard>,
}

impl<B: Backend> Replica<B> {
    /// True if this replica updates a parameter.
    pub fn owns(&self, name: &str) -> bool {
        self.shard.as_ref().is_none_or(|shard| shard.owns(name))
    }

    /// Hands over the gradients of every chunk as soon as its last backward has ended.
    pub fn share_gradients(
        &self,
        chunks: &mut Chunks<B>,
        program: &Program,
        rank: RankId,
    ) -> Result<(), StageError> {
        let Some(collective) = &self.collective else { return Ok(()) };
        let backwards = backwards(program, rank);
        for (i, (key, chunk)) in chunks.iter_mut().enumerate() {
            let collective = collective.clone();
            let count = backwards.get(&(key.0.as_str(), key.1)).copied().unwrap_or(0);
            chunk.when_gradients_are_done(count, move |bucket| {
                collective.contribute(gradient_bucket(i), bucket).map_err(failed)
            })?;
        }
        Ok(())
    }

    /// Replaces the gradients of the chunks by their sums over the replicas; waits for them.
    pub fn take_gradients(&self, chunks: &mut Chunks<B>) -> Result<(), StageError> {
        let Some(collective) = &self.collective else { return Ok(()) };
        for (i, chunk) in chunks.values_mut().enumerate() {
            chunk.set_gradients(collective.sum(gradient_bucket(i)).map_err(failed)?);
        }
        Ok(())
    }

    /// Hands over the parameters that this replica updates, and receives the parameters that the others update.
    pub fn gather_parameters<K, C: MapParameters<B>>(
        &self,
        chunks: &mut BTreeMap<K, C>,
    ) -> Result<(), StageError> {
        let (Some(collective), Some(shard)) = (&self.collective, &self.shard) else {
            return Ok(());
        };
        for (i, chunk) in chunks.values_mut().enumerate() {
            let select = |name: &str| shard.owns(name);
            let mut read = ReadParameters { select, bucket: Vec::new() };
            chunk.map_parameters(&mut read);
            collective.contribute(parameter_bucket(i), read.bucket).map_err(failed)?;
        }
        for (i, chunk) in chunks.values_mut().enumerate() {
            let all = collective.sum(parameter_bucket(i)).map_err(failed)?;
            chunk.map_parameters(&mut WriteParameters(all.into_iter()));
        }
        Ok(())
    }
}

/// For each chunk of a rank: the number of tasks that add to its weight gradients.
fn backwards(program: &Program, rank: RankId) -> HashMap<(&str, SegmentId), usize> {
    let mut counts = HashMap::new();
    for task in &program.ranks[rank.index()].order {
        let TaskCall { call, kind, .. } = &program.calls[task.index()];
        if *kind == TaskKind::Weight || *kind == TaskKind::Backward && !call.split {
            *counts.entry((&*call.pair.module, call.pair.segment)).or_insert(0) += 1;
        }
    }
    counts
}

fn failed(ReplicaGone: ReplicaGone) -> StageError {
    StageError::PeerGone { peer: "another replica of this rank" }
}
