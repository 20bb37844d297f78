//! The place of a chunk in the model: its slices of a batch, and the inputs that come with them.

use std::ops::Range;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::{ModelSpec, ModuleId, PairKey, Received, StageCall, StageError};

use super::{Payload, protocol};
use crate::batch::Batch;
use crate::model::{Modalities, ModelError, Slice, Upstream};

/// The module of a chunk, and the modules whose outputs it consumes.
#[derive(Clone)]
pub(super) struct ModulePlace<B: Backend> {
    pub module: ModuleId,
    upstream: Vec<Upstream<B>>,
}

impl<B: Backend> ModulePlace<B> {
    /// The place of a module.
    ///
    /// # Errors
    /// [`ModelError::Kind`] if the modality of an upstream module cannot be trained.
    pub fn of(
        model: &ModelSpec,
        module: ModuleId,
        modalities: &Modalities<B>,
    ) -> Result<Self, ModelError> {
        Ok(Self { module, upstream: Upstream::of(model, module, modalities)? })
    }

    /// The slice of the batch for a call, with inputs from the pairs `from`.
    ///
    /// # Errors
    /// [`StageError::Protocol`] if the batch does not have it.
    pub fn slice_of<'b>(
        &self,
        batch: &'b Batch,
        call: &StageCall,
        from: &[PairKey],
    ) -> Result<Slice<'b>, StageError> {
        let missing = || protocol(call, "asks for a slice that the batch does not have");
        let own = instances(batch, self.module, &call.pair).ok_or_else(missing)?;
        let microbatch =
            batch.microbatches.get(call.pair.microbatch.index()).ok_or_else(missing)?;
        let of_input = |pair: &PairKey| {
            let upstream = self.upstream.iter().find(|u| u.name == pair.module)?;
            let instances = instances(batch, upstream.module, pair);
            Some(instances.map(|i| upstream.slice(microbatch, i)).ok_or_else(missing))
        };
        let inputs = from.iter().filter_map(of_input).collect::<Result<_, _>>()?;
        Ok(Slice { microbatch, instances: own, inputs })
    }
}

/// The instances of a sub-microbatch.
fn instances(batch: &Batch, module: ModuleId, pair: &PairKey) -> Option<Range<u32>> {
    let modules = batch.split.slices.get(pair.microbatch.index())?;
    modules.get(module.index())?.get(pair.sub_microbatch.index()).cloned()
}

/// The tensors of all inputs, each with the pair it comes from. Several inputs are slices of one module: their instances are in the
/// order of the sub-microbatches.
pub(super) fn inputs_in_order<B: Backend>(
    mut inputs: Vec<Received<Payload<B>>>,
) -> (Vec<PairKey>, Vec<Tensor<B, 2>>) {
    inputs.sort_by(|a, b| a.from.cmp(&b.from));
    let tensors =
        inputs.into_iter().flat_map(|r| r.payload.0.into_iter().map(move |x| (r.from.clone(), x)));
    tensors.unzip()
}
