//! One module at one size: the chunks that are measured, and the parts that their differences give.

use std::collections::VecDeque;
use std::ops::Range;

use burn::tensor::backend::Backend;
use dip_core::profile::{ImageTimes, Part, PartBytes, PartTimes, ProfileEntry};
use dip_core::{
    MicrobatchId, PairKey, RankId, Received, SegmentId, StageCall, Strategy, SubMicrobatchId,
    TaskId,
};

use super::figures::Figures;
use super::{MeasureError, MeasureSettings};
use crate::model::{Modalities, ProbeSpec, TrainableModality};
use crate::runtime::Optimizer;
use crate::stage::{ChunkStage, Payload};

/// Layers of the module that is measured: room for a first, a last and a run of middle layers.
pub(super) const LAYERS: u32 = 6;
/// The chunks that are measured: one middle layer, several, the first and the last.
pub(super) const CHUNKS: [Range<u32>; 4] = [1..2, 1..5, 0..1, LAYERS - 1..LAYERS];

/// Measures one module at one size.
pub(super) struct ModuleProbe<'a, B: Backend> {
    pub spec: ProbeSpec<'a>,
    pub modality: &'a dyn TrainableModality<B>,
    pub modalities: &'a Modalities<B>,
    pub device: &'a B::Device,
    pub settings: &'a MeasureSettings,
    pub round: usize,
}

/// A chunk with the inputs from the stage before it.
pub(super) struct MeasuredChunk<B: Backend> {
    pub stage: ChunkStage<B>,
    pub optimizer: Optimizer<B>,
    pub inputs: Inputs<B>,
    /// The outputs of its forwards, the oldest first.
    pub outputs: VecDeque<Inputs<B>>,
}

/// What one stage receives from others.
pub(super) type Inputs<B> = Vec<Received<Payload<B>>>;

impl<B: Backend> ModuleProbe<'_, B> {
    /// The entries of all parts, from the differences of the chunks.
    pub fn parts(&self) -> Result<Vec<ProfileEntry>, MeasureError> {
        let [one, several, first, last] = self.figures()?;
        let more = f64::from(CHUNKS[1].len() as u32 - 1);
        let layer = several.less(one).share(more);
        let parts = [
            (Part::Stage, one.less(layer)),
            (Part::Layer, layer),
            (Part::First, first.less(one)),
            (Part::Last, last.less(one)),
        ];
        let module = &self.spec.module().name;
        let tokens = self.modality.rows(&self.spec) as u64;
        Ok(parts
            .into_iter()
            .map(|(part, Figures { times, kept })| ProfileEntry {
                module: module.clone(),
                part,
                tokens,
                // No strategy is faster than keeping everything; smaller times are noise.
                times: PartTimes {
                    selective_backward_s: times.selective_backward_s.max(times.backward_s),
                    offload_forward_s: times.offload_forward_s.max(times.forward_s),
                    offload_backward_s: times.offload_backward_s.max(times.backward_s),
                    ..times
                },
                kept,
                images: self.images().filter(|_| part == Part::Layer),
            })
            .collect())
    }

    /// The pairs and views of the images of the probe, if images have different sizes.
    fn images(&self) -> Option<ImageTimes> {
        self.spec.has_native_images().then(|| {
            let work = self.spec.work_of_images();
            let (pairs, views) = (work.attention_pairs as f64, work.views as f64);
            ImageTimes { pairs, views, ..ImageTimes::default() }
        })
    }

    /// Seconds and bytes of every chunk.
    fn figures(&self) -> Result<[Figures; CHUNKS.len()], MeasureError> {
        let times = self.chunks()?;
        let mut figures = times.map(|times| Figures { times, kept: PartBytes::default() });
        // Bytes are exact: one round is enough.
        if self.round == 0 {
            for (figures, layers) in figures.iter_mut().zip(CHUNKS) {
                figures.kept = self.bytes_kept(layers)?;
            }
        }
        Ok(figures)
    }

    pub(super) fn pair(&self, segment: u32) -> PairKey {
        PairKey {
            rank: RankId(0),
            module: self.spec.module().name.as_str().into(),
            segment: SegmentId(segment),
            microbatch: MicrobatchId(0),
            sub_microbatch: SubMicrobatchId(0),
        }
    }

    pub(super) fn call(
        &self,
        microbatch: usize,
        strategy: &str,
        split: bool,
        consumers: Vec<PairKey>,
    ) -> StageCall {
        let strategy = Strategy::new(strategy);
        let pair = PairKey { microbatch: MicrobatchId::from(microbatch), ..self.pair(1) };
        StageCall { task: TaskId(0), pair, strategy, split, consumers }
    }
}
