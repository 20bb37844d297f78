//! Seconds of the stages of chunks, under every strategy, and of the optimiser.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::backend::Backend;
use dip_core::profile::PartTimes;
use dip_core::{MicrobatchId, PairKey, Received, Seconds, Stage};

use super::figures::typical;
use super::probe::{CHUNKS, MeasuredChunk, ModuleProbe};
use super::{MeasureError, MeasureSettings, finish};
use crate::batch::Batch;
use crate::model::{ChunkSpec, ProbeSpec};
use crate::runtime::Optimizer;
use crate::runtime::OptimizerConfig;
use crate::stage::ChunkStage;

impl<B: Backend> ModuleProbe<'_, B> {
    /// Typical seconds of every chunk. All chunks run all forwards before the first backward, as in a plan, so that each chunk finds
    /// the caches full of other data. The last chunk touches new memory that the system must provide first, which can take longer
    /// than the extra work of a larger chunk. So the chunks take turns at being last.
    pub(super) fn chunks(&self) -> Result<[PartTimes; CHUNKS.len()], MeasureError> {
        let batch = Arc::new(self.batch_in_flight());
        let mut chunks = CHUNKS
            .map(|layers| self.measured(layers, &batch))
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?;
        let (mut samples, start) = (Vec::new(), Instant::now());
        let mut rotation = self.round % CHUNKS.len();
        chunks.rotate_left(rotation);
        for run in 0..self.settings.warm_up + self.settings.runs.max(1) {
            let is_late = start.elapsed().as_secs_f64() > self.settings.enough.0;
            if is_late && !samples.is_empty() {
                break;
            }
            let mut sample = [PartTimes::default(); CHUNKS.len()];
            chunks.rotate_left(1);
            rotation = (rotation + 1) % CHUNKS.len();
            chunks.iter_mut().for_each(|chunk| chunk.stage.begin(batch.clone(), 1.0));
            self.recomputed(&mut chunks, &mut sample)?;
            self.kept(&mut chunks, &mut sample)?;
            self.updates(&mut chunks, &mut sample)?;
            self.offloaded(&mut chunks, &mut sample)?;
            self.split(&mut chunks, &mut sample)?;
            sample.rotate_right(rotation);
            // Long runs need no warm-up after the first.
            if run >= self.settings.warm_up || is_late {
                samples.push(sample);
            }
        }
        let typical_of = |i: usize| {
            PartTimes::of(|time| Seconds(typical(samples.iter().map(|s| time(&s[i]).0))))
        };
        Ok(std::array::from_fn(typical_of))
    }

    pub(super) fn measured(
        &self,
        layers: Range<u32>,
        batch: &Batch,
    ) -> Result<MeasuredChunk<B>, MeasureError> {
        let inputs = self.inputs(layers.start == 0, batch);
        let ProbeSpec { model, module, .. } = self.spec;
        let chunk = ChunkSpec { model, module, layers };
        let stage = ChunkStage::new(&chunk, self.modalities, 0, self.device)?
            .with_precision(self.settings.precision);
        let &MeasureSettings { algorithm, averages, .. } = self.settings;
        let ema_decay = if averages { 0.5 } else { 0.0 };
        let optimizer = OptimizerConfig { algorithm, ema_decay, ..Default::default() };
        let optimizer = Optimizer::new(&optimizer);
        Ok(MeasuredChunk { stage, optimizer, inputs, outputs: VecDeque::new() })
    }

    /// Forwards that keep only inputs, whose backwards are not timed, and forwards and backwards without kept attention cores.
    fn recomputed(
        &self,
        chunks: &mut [MeasuredChunk<B>],
        times: &mut [PartTimes],
    ) -> Result<(), MeasureError> {
        let inference = self.forwards(chunks, "full", false)?;
        self.backwards(chunks, false)?;
        self.forwards(chunks, "selective", false)?;
        let backward = self.backwards(chunks, false)?;
        for (i, times) in times.iter_mut().enumerate() {
            (times.inference_s, times.selective_backward_s) = (inference[i], backward[i]);
        }
        Ok(())
    }

    /// Forwards that keep everything, and backwards that are not split.
    fn kept(
        &self,
        chunks: &mut [MeasuredChunk<B>],
        times: &mut [PartTimes],
    ) -> Result<(), MeasureError> {
        let forward = self.forwards(chunks, "keep", false)?;
        let backward = self.backwards(chunks, false)?;
        for (i, times) in times.iter_mut().enumerate() {
            (times.forward_s, times.backward_s) = (forward[i], backward[i]);
        }
        Ok(())
    }

    /// The optimiser's step, which changes nothing at a learning rate of 0.
    fn updates(
        &self,
        chunks: &mut [MeasuredChunk<B>],
        times: &mut [PartTimes],
    ) -> Result<(), MeasureError> {
        for (chunk, times) in chunks.iter_mut().zip(times) {
            let start = Instant::now();
            std::hint::black_box(chunk.stage.squared_gradient_norm()?);
            chunk.optimizer.step([&mut chunk.stage].into_iter(), 0.0, 1.0, &|_| true);
            times.update_s = self.since(start)?;
        }
        Ok(())
    }

    /// Forwards that offload activations to the host, and backwards that copy them back.
    fn offloaded(
        &self,
        chunks: &mut [MeasuredChunk<B>],
        times: &mut [PartTimes],
    ) -> Result<(), MeasureError> {
        let forward = self.forwards(chunks, "offload", false)?;
        let backward = self.backwards(chunks, false)?;
        for (i, times) in times.iter_mut().enumerate() {
            (times.offload_forward_s, times.offload_backward_s) = (forward[i], backward[i]);
        }
        Ok(())
    }

    /// Split backwards: input gradients first, then weight gradients.
    fn split(
        &self,
        chunks: &mut [MeasuredChunk<B>],
        times: &mut [PartTimes],
    ) -> Result<(), MeasureError> {
        self.forwards(chunks, "keep", true)?;
        let backward = self.backwards(chunks, true)?;
        let weight = self.all_in_flight(chunks, |chunk, m| {
            let call = self.call(m, "keep", true, Vec::new());
            let start = Instant::now();
            chunk.stage.weight(&call)?;
            self.since(start)
        })?;
        for (i, times) in times.iter_mut().enumerate() {
            (times.input_gradient_s, times.weight_s) = (backward[i], weight[i]);
        }
        Ok(())
    }

    fn forwards(
        &self,
        chunks: &mut [MeasuredChunk<B>],
        strategy: &str,
        split: bool,
    ) -> Result<Vec<Seconds>, MeasureError> {
        self.all_in_flight(chunks, |chunk, m| self.forward(chunk, m, strategy, split))
    }

    fn backwards(
        &self,
        chunks: &mut [MeasuredChunk<B>],
        split: bool,
    ) -> Result<Vec<Seconds>, MeasureError> {
        self.all_in_flight(chunks, |chunk, m| self.backward(chunk, m, split))
    }

    /// Mean seconds of every chunk over the microbatches in flight, one after another.
    fn all_in_flight(
        &self,
        chunks: &mut [MeasuredChunk<B>],
        stage: impl Fn(&mut MeasuredChunk<B>, usize) -> Result<Seconds, MeasureError>,
    ) -> Result<Vec<Seconds>, MeasureError> {
        let in_flight = self.settings.in_flight.max(1);
        let mut seconds = vec![Seconds::ZERO; chunks.len()];
        for m in 0..in_flight {
            for (chunk, seconds) in chunks.iter_mut().zip(&mut seconds) {
                *seconds += stage(chunk, m)? / in_flight as f64;
            }
        }
        Ok(seconds)
    }

    pub(super) fn forward(
        &self,
        chunk: &mut MeasuredChunk<B>,
        microbatch: usize,
        strategy: &str,
        split: bool,
    ) -> Result<Seconds, MeasureError> {
        // There is no stage after this one; the key only has to differ from the key of the stage before.
        let consumer = PairKey { microbatch: MicrobatchId::from(microbatch), ..self.pair(2) };
        let call = self.call(microbatch, strategy, split, vec![consumer.clone()]);
        let inputs = chunk.inputs.clone();
        let start = Instant::now();
        let outputs = chunk.stage.forward(&call, inputs)?;
        let elapsed = self.since(start)?;
        let received = |payload| Received { from: consumer.clone(), payload };
        chunk.outputs.push_back(outputs.into_iter().map(received).collect());
        Ok(elapsed)
    }

    /// Seconds of the backward of the oldest forward. Times do not depend on values: the outputs serve as gradients.
    fn backward(
        &self,
        chunk: &mut MeasuredChunk<B>,
        microbatch: usize,
        split: bool,
    ) -> Result<Seconds, MeasureError> {
        let gradients = chunk.outputs.pop_front().unwrap_or_default();
        let from = chunk.inputs.iter().map(|i| i.from.clone()).collect();
        let call = self.call(microbatch, "keep", split, from);
        let start = Instant::now();
        chunk.stage.backward(&call, gradients)?;
        self.since(start)
    }

    /// Time since `start`, once the device has finished its work.
    fn since(&self, start: Instant) -> Result<Seconds, MeasureError> {
        finish::<B>(self.device)?;
        Ok(Seconds(start.elapsed().as_secs_f64()))
    }
}
