//! Reads batches in advance: metadata to the planner, pixels to the decoder.

use std::sync::Arc;

use burn::tensor::backend::Backend;
use dip_core::{BatchMeta, PlannedBatch};

use super::Trainer;
use crate::batch::Batch;
use crate::data::SourcePosition;
use crate::train::agreement::fingerprint;
use crate::train::assignment;
use crate::train::data::LoadedBatch;
use crate::train::error::TrainError;

/// A batch that is planned and decoded in the background.
pub(super) struct PrefetchedBatch {
    batch: LoadedBatch,
    /// Microbatches of each replica of this process, by number.
    pub assigned: Vec<Vec<usize>>,
}

/// A batch with its content, ready to train.
pub(super) struct TrainingBatch {
    /// Metadata of the whole batch, for the planner.
    pub meta: BatchMeta,
    /// Tokens of the whole batch, without padding.
    pub tokens: u64,
    /// Position of the loader after this batch.
    pub position: SourcePosition,
    /// The batch of each replica of this process.
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
        let own = self.pipeline.replicas();
        let (first, count) = (self.group.index() * own, self.group.size() * own);
        let mut assigned = Vec::new();
        let batch = self.data.loader.next_batch(&mut |meta| {
            assigned = match &self.assign {
                Some(assign) => assign(meta),
                None => assignment::in_turn(meta, count),
            };
            assigned.iter().skip(first).take(own).flatten().copied().collect()
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
        let assigned: Vec<_> = assigned.drain(first..).take(own).collect();
        for own in &assigned {
            self.plans.submit(assignment::meta_of(&batch.meta, own))?;
        }
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
        // Broken pictures mute their documents, which only the process that decodes them knows.
        content.trained_tokens = self.group.sum(content.trained_tokens)?;
        let replicas = assignment::batches(content, &assigned, splits);
        Ok(TrainingBatch { meta, tokens, position, replicas })
    }
}
