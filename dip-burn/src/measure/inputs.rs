//! The batches of a measurement, and the inputs from the previous stage.

use std::ops::Range;

use burn::tensor::backend::Backend;
use burn::tensor::{Distribution, Tensor};
use dip_core::{BatchSplit, ModuleSpec, Received};

use super::probe::{Inputs, ModuleProbe};
use crate::batch::{Batch, Microbatch};
use crate::model::{ProbeInput, ProbeSpec, cast};
use crate::stage::Payload;

impl<B: Backend> ModuleProbe<'_, B> {
    /// The inputs of a chunk. `first` is true for the first chunk of its module.
    pub(super) fn inputs(&self, first: bool, batch: &Batch) -> Inputs<B> {
        let (spec, microbatch) = (&self.spec, &batch.microbatches[0]);
        let inputs = match first {
            true => self.modality.inputs(spec, microbatch),
            false => vec![ProbeInput {
                module: spec.module,
                rows: self.modality.inner_rows(spec, microbatch),
                width: spec.module().hidden as usize,
            }],
        };
        inputs.into_iter().map(|input| self.input(input)).collect()
    }

    fn input(&self, input: ProbeInput) -> Received<Payload<B>> {
        let shape = [input.rows, input.width];
        let x = Tensor::random(shape, Distribution::Normal(0.0, 1.0), self.device);
        let x = cast(x, self.settings.precision.dtype());
        let mut from = self.pair(0);
        from.module = self.spec.model.modules[input.module.index()].name.as_str().into();
        Received { from, payload: Payload(vec![x]) }
    }

    /// A batch of one microbatch.
    pub(super) fn batch(&self) -> Batch {
        let microbatch = self.modality.probe(&self.spec);
        let split = BatchSplit { slices: vec![self.slices(&microbatch)] };
        let trained_tokens = microbatch.trained_tokens();
        Batch { microbatches: vec![microbatch], split, trained_tokens }
    }

    /// One slice of all instances of every module.
    fn slices(&self, microbatch: &Microbatch) -> Vec<Vec<Range<u32>>> {
        let ProbeSpec { model, module: measured, instances, .. } = self.spec;
        let of = |(m, spec): (usize, &ModuleSpec)| {
            let count = || self.modalities.of(spec).map_or(0, |of| of.instances(spec, microbatch));
            let all = 0..if m == measured.index() { instances } else { count() };
            Vec::from([all])
        };
        model.modules.iter().enumerate().map(of).collect()
    }

    /// A batch that repeats one microbatch for every microbatch in flight.
    pub(super) fn batch_in_flight(&self) -> Batch {
        let Batch { microbatches, split, trained_tokens } = self.batch();
        let in_flight = self.settings.in_flight.max(1);
        Batch {
            microbatches: vec![microbatches[0].clone(); in_flight],
            split: BatchSplit { slices: vec![split.slices[0].clone(); in_flight] },
            trained_tokens,
        }
    }
}
