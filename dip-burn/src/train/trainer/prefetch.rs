//! Reads batches in advance: metadata to the planner, pixels to the decoder.

use std::sync::Arc;

use burn::tensor::backend::Backend;
use dip_core::{BatchMeta, PlannedBatch};

use super::Trainer;
use crate::batch::{Batch, Microbatch};
use crate::data::{Inputs, SourcePosition, Wanted};
use crate::train::agreement::fingerprint;
use crate::train::assignment;
use crate::train::data::{BatchContent, LoadedBatch};
use crate::train::error::TrainError;

/// A batch that is planned and decoded in the background.
pub(super) struct PrefetchedBatch {
    batch: LoadedBatch,
    /// Microbatches of each replica with ranks in this process, by number.
    pub assigned: Vec<Vec<usize>>,
}

impl PrefetchedBatch {
    /// Metadata of the whole batch.
    pub fn meta(&self) -> &BatchMeta {
        &self.batch.meta
    }
}

/// A batch with its content, ready to train.
pub(super) struct TrainingBatch {
    /// Metadata of the whole batch, for the planner.
    pub meta: BatchMeta,
    /// Tokens of the whole batch, without padding.
    pub tokens: u64,
    /// Position of the loader after this batch.
    pub position: SourcePosition,
    /// The batch of each replica with ranks in this process.
    pub replicas: Vec<Arc<Batch>>,
}

impl<B: Backend> Trainer<B> {
    /// The prefetched batch; fetched now in the first iteration.
    pub(super) fn take_batch(&mut self) -> Result<PrefetchedBatch, TrainError> {
        self.prefetched.take().map_or_else(|| self.fetch(), Ok)
    }

    /// Begins to plan and decode the batch of the next iteration, if there is one.
    pub(super) fn prefetch(&mut self) -> Result<(), TrainError> {
        if self.iteration() + 1 < self.config.iterations {
            self.prefetched = Some(self.fetch()?);
        }
        Ok(())
    }

    /// Reads the next batch, assigns it to the replicas of all processes, and has this process's share planned and decoded in the
    /// background.
    fn fetch(&mut self) -> Result<PrefetchedBatch, TrainError> {
        let (own, count) = (self.pipeline.replicas().to_vec(), self.pipeline.grid().replicas());
        let wanted: Vec<(usize, Inputs)> = own.iter().map(|&r| (r, self.inputs_of(r))).collect();
        let mut assigned = Vec::new();
        let batch = self.data.loader.next_batch(&mut |meta| {
            assigned = match &self.assign {
                Some(assign) => assign(meta),
                None => assignment::in_turn(meta, count),
            };
            let of_replica = |&(replica, inputs): &(usize, Inputs)| {
                let microbatches = assigned.get(replica).into_iter().flatten();
                microbatches.map(move |&microbatch| Wanted { microbatch, inputs })
            };
            wanted.iter().flat_map(of_replica).collect()
        })?;
        let is_complete = assignment::is_complete(&assigned, &batch.meta, count);
        if !is_complete || assigned.iter().any(Vec::is_empty) {
            let microbatches = batch.meta.microbatches.len();
            return Err(TrainError::Assignment { microbatches, replicas: count });
        }
        self.group.agree(&format!("the data of batch {}", batch.meta.iteration), || {
            let text = serde_json::to_vec(&(&batch.meta.microbatches, &batch.position, &assigned));
            fingerprint([text.expect("plain data has a JSON form").as_slice()])
        })?;
        for &replica in &own {
            if self.leads(replica) {
                self.plans.submit(assignment::meta_of(&batch.meta, &assigned[replica]))?;
            }
        }
        let assigned = own.iter().map(|&replica| std::mem::take(&mut assigned[replica])).collect();
        Ok(PrefetchedBatch { batch, assigned })
    }

    /// Waits for the content of a batch and cuts it as planned.
    pub(super) fn wait_for_content(
        &self,
        prefetched: PrefetchedBatch,
        planned: &[PlannedBatch],
    ) -> Result<TrainingBatch, TrainError> {
        let PrefetchedBatch { batch, assigned } = prefetched;
        let LoadedBatch { meta, position, tokens, content, .. } = batch;
        let splits = planned.iter().map(|p| p.split.clone()).collect();
        let mut content = content()?;
        self.share_muted(&mut content, &assigned)?;
        content.trained_tokens = self.group.sum(self.led_tokens(&content, &assigned))?;
        let replicas = assignment::batches(content, &assigned, splits);
        Ok(TrainingBatch { meta, tokens, position, replicas })
    }

    /// Trained tokens of the replicas that this process plans for, so that each replica counts once in the sum over processes.
    fn led_tokens(&self, content: &BatchContent, assigned: &[Vec<usize>]) -> u64 {
        let replicas = self.pipeline.replicas();
        if replicas.iter().all(|&replica| self.leads(replica)) {
            return content.trained_tokens;
        }
        let mut microbatches = content.microbatches.iter();
        let mut tokens = 0;
        for (&replica, own) in replicas.iter().zip(assigned) {
            let of_replica = microbatches.by_ref().take(own.len());
            let trained: u64 = of_replica.map(Microbatch::trained_tokens).sum();
            tokens += if self.leads(replica) { trained } else { 0 };
        }
        tokens
    }
}
