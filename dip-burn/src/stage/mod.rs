//! A model chunk as a [`Stage`]: forwards and backwards with tensors, activations held only in between.

mod held;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use burn::tensor::backend::Backend;
use burn::tensor::{ElementConversion, Tensor};
use dip_core::{
    Bytes, LayerStrategy, MicrobatchId, ModelSpec, ModuleId, ModuleKind, PairKey, Received, Stage,
    StageCall, StageError, SubMicrobatchId,
};

use crate::batch::Batch;
use crate::model::{
    Chunk, DecoderChunk, DitChunk, Gradients, Init, ModelError, Slice, VitChunk, output_width,
};
use crate::params::{self, Loader, NamedTensors, Naming, ParameterError, ParameterMap};
use held::{Account, Held, Kept, Left};

/// What travels between stages: tensors `[tokens, width]`.
#[derive(Debug, Clone)]
pub struct Payload<B: Backend>(pub Vec<Tensor<B, 2>>);

/// One model chunk on one device.
pub struct ChunkStage<B: Backend> {
    modules: Modules<B>,
    device: B::Device,
    naming: Naming,
    module: ModuleId,
    /// Names of the modules whose outputs the module consumes.
    upstream: Vec<(String, ModuleId)>,
    layers: usize,
    runs_backward: bool,
    batch: Option<Arc<Batch>>,
    held: HashMap<(MicrobatchId, SubMicrobatchId), Held<B>>,
    left: HashMap<(MicrobatchId, SubMicrobatchId), Left>,
    gradients: Gradients<B>,
    losses: Vec<Tensor<B, 2>>,
    bytes: Account,
}

/// The chunk of one of the modalities.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one a chunk, and it never moves")]
enum Modules<B: Backend> {
    Vit(VitChunk<B>),
    Decoder(DecoderChunk<B>),
    Dit(DitChunk<B>),
}

/// Runs an expression with the chunk, whatever its modality.
macro_rules! with_chunk {
    ($modules:expr, $chunk:ident => $body:expr) => {
        match $modules {
            Modules::Vit($chunk) => $body,
            Modules::Decoder($chunk) => $body,
            Modules::Dit($chunk) => $body,
        }
    };
}

impl<B: Backend> ChunkStage<B> {
    /// The layers `layers` of a module, with weights drawn from `seed`.
    ///
    /// # Errors
    /// [`ModelError`] where the module's kind or a field is not supported.
    pub fn new(
        model: &ModelSpec,
        module: ModuleId,
        layers: Range<u32>,
        seed: u64,
        device: &B::Device,
    ) -> Result<Self, ModelError> {
        let spec = &model.modules[module.index()];
        let init = Init { seed, module: &spec.name, device };
        let modules = match &spec.kind {
            ModuleKind::Vit { .. } => {
                let output = output_width(model, module);
                Modules::Vit(VitChunk::init(spec, layers.clone(), output, &init)?)
            }
            ModuleKind::Decoder { .. } => {
                Modules::Decoder(DecoderChunk::init(spec, layers.clone(), &init)?)
            }
            ModuleKind::Audio { .. } => return Err(unsupported(&spec.name, "audio")),
            ModuleKind::Dit { .. } => {
                Modules::Dit(DitChunk::init(model, module, layers.clone(), &init)?)
            }
        };
        Ok(Self {
            modules,
            device: device.clone(),
            naming: Naming { module: spec.name.clone(), first_layer: layers.start as usize },
            module,
            upstream: upstream(model, module),
            layers: layers.len(),
            runs_backward: model.runs_backward()[module.index()],
            batch: None,
            held: HashMap::new(),
            left: HashMap::new(),
            gradients: Gradients::new(spec.trainable),
            losses: Vec::new(),
            bytes: Account::default(),
        })
    }

    /// Starts an iteration: forgets the gradients and losses of the last one.
    pub fn begin(&mut self, batch: Arc<Batch>) {
        self.batch = Some(batch);
        self.held.clear();
        self.left.clear();
        self.gradients.clear();
        self.losses.clear();
        self.bytes = Account::default();
    }

    /// Sum of the losses of the tokens of this iteration; 0 where the chunk has no loss.
    pub fn loss_sum(&mut self) -> f64 {
        self.losses.drain(..).map(|loss| loss.into_scalar().elem::<f64>()).sum()
    }

    /// Activations held now.
    pub fn held_bytes(&self) -> Bytes {
        self.bytes.now()
    }

    /// The most activations that were held in this iteration.
    pub fn peak_bytes(&self) -> Bytes {
        self.bytes.peak()
    }

    /// Sum of the squares of all gradients of this iteration.
    pub fn squared_gradient_norm(&self) -> f64 {
        let sums = self.gradients.sums();
        with_chunk!(&self.modules, chunk => params::squared_norm::<B, _>(chunk, sums))
    }

    /// The parameters, by name.
    pub fn parameters(&self) -> NamedTensors {
        with_chunk!(&self.modules, chunk => params::parameters::<B, _>(chunk, &self.naming))
    }

    /// The gradients of this iteration, by parameter name.
    pub fn gradients(&self) -> NamedTensors {
        let sums = self.gradients.sums();
        with_chunk!(&self.modules, chunk => params::gradients::<B, B, _>(chunk, &self.naming, sums))
    }

    /// Runs `map` over every parameter and its gradient, and takes the new values.
    pub fn map_parameters<P: ParameterMap<B>>(&mut self, map: &mut P) {
        let sums = Some(self.gradients.sums());
        with_chunk!(&mut self.modules, chunk => {
            *chunk = params::map_parameters(chunk.clone(), &self.naming, sums, map);
        });
    }

    /// Replaces every parameter by that of the same name.
    ///
    /// # Errors
    /// [`ParameterError`] for the first one that is missing or has another shape.
    pub fn load(&mut self, tensors: &NamedTensors) -> Result<(), ParameterError> {
        let mut loader = Loader { tensors, error: None };
        self.map_parameters(&mut loader);
        loader.error.map_or(Ok(()), Err)
    }

    fn has_loss(&self) -> bool {
        with_chunk!(&self.modules, chunk => Chunk::<B>::has_loss(chunk))
    }

    /// The strategy of every layer.
    fn strategies(&self, call: &StageCall) -> Result<Vec<LayerStrategy>, StageError> {
        let unsupported = || StageError::Unsupported {
            task: call.task,
            what: format!("memory strategy {:?}", call.strategy.as_str()),
        };
        let layers = call.strategy.layers(self.layers).ok_or_else(unsupported)?;
        // Host memory is this memory on CPU; devices cannot offload yet.
        if layers.contains(&LayerStrategy::Offload) { Err(unsupported()) } else { Ok(layers) }
    }
}

fn upstream(model: &ModelSpec, module: ModuleId) -> Vec<(String, ModuleId)> {
    let named = |id: ModuleId| (model.modules[id.index()].name.clone(), id);
    model.inputs_of(module).into_iter().map(named).collect()
}

/// The instances of a sub-microbatch.
fn instances(batch: &Batch, module: ModuleId, pair: &PairKey) -> Option<Range<u32>> {
    let modules = batch.split.slices.get(pair.microbatch.index())?;
    modules.get(module.index())?.get(pair.sub_microbatch.index()).cloned()
}

impl<B: Backend> Stage for ChunkStage<B> {
    type Payload = Payload<B>;

    fn forward(
        &mut self,
        call: &StageCall,
        mut inputs: Vec<Received<Payload<B>>>,
    ) -> Result<Vec<Payload<B>>, StageError> {
        // Several inputs are slices of one module: their instances are in the order of the sub-microbatches.
        inputs.sort_by(|a, b| a.from.cmp(&b.from));
        let (from, inputs): (Vec<PairKey>, Vec<Tensor<B, 2>>) = inputs
            .into_iter()
            .flat_map(|r| r.payload.0.into_iter().map(move |x| (r.from.clone(), x)))
            .unzip();
        let batch = self.batch.clone().ok_or_else(|| protocol(call, "runs before a batch"))?;
        let on = self.slice_of(&batch, call, &from)?;
        let output = if self.runs_backward {
            let strategies = self.strategies(call)?;
            let (output, kept) = self.modules.forward_kept(inputs, on, &strategies);
            let bytes = kept.bytes();
            self.bytes.take(bytes);
            let key = (call.pair.microbatch, call.pair.sub_microbatch);
            self.held.insert(key, Held { from, kept, bytes });
            output
        } else {
            with_chunk!(&self.modules, chunk => chunk.forward(inputs, on))
        };
        if self.has_loss() {
            self.losses.push(output);
            return Ok(Vec::new());
        }
        Ok(call.consumers.iter().map(|_| Payload(vec![output.clone()])).collect())
    }

    fn backward(
        &mut self,
        call: &StageCall,
        gradients: Vec<Received<Payload<B>>>,
    ) -> Result<Vec<Payload<B>>, StageError> {
        let held = self.held.remove(&(call.pair.microbatch, call.pair.sub_microbatch));
        let held = held.ok_or_else(|| protocol(call, "runs its backward before its forward"))?;
        let batch = self.batch.clone().ok_or_else(|| protocol(call, "runs before a batch"))?;
        let on = self.slice_of(&batch, call, &held.from)?;
        let dy = self.output_gradient(call, gradients, &batch)?;
        let Held { from, kept, bytes } = held;
        if call.split {
            self.gradients.defer();
        }
        let inputs = self.modules.backward(kept, dy, on, &mut self.gradients);
        let inputs: Vec<(PairKey, Tensor<B, 2>)> = from.into_iter().zip(inputs).collect();
        if call.split {
            let deferred = self.gradients.deferred();
            let key = (call.pair.microbatch, call.pair.sub_microbatch);
            self.left.insert(key, Left { deferred, bytes });
        } else {
            self.bytes.give_back(bytes);
        }
        let outputs = call.consumers.iter().map(|consumer| {
            let of_consumer = inputs.iter().filter(|(from, _)| from == consumer);
            let tensors: Vec<_> = of_consumer.map(|(_, dx)| dx.clone()).collect();
            match tensors.is_empty() {
                false => Ok(Payload(tensors)),
                true => Err(protocol(call, "has no gradient for one of its inputs")),
            }
        });
        outputs.collect()
    }

    fn weight(&mut self, call: &StageCall) -> Result<(), StageError> {
        let left = self.left.remove(&(call.pair.microbatch, call.pair.sub_microbatch));
        let left = left.ok_or_else(|| protocol(call, "has no backward that left its weights"))?;
        self.gradients.run(left.deferred);
        self.bytes.give_back(left.bytes);
        Ok(())
    }
}

impl<B: Backend> ChunkStage<B> {
    /// The slice of the batch that a call is about, with inputs from the pairs `from`.
    fn slice_of<'b>(
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
            let (_, module) = self.upstream.iter().find(|(name, _)| **name == *pair.module)?;
            Some(instances(batch, *module, pair).ok_or_else(missing))
        };
        let inputs = from.iter().filter_map(of_input).collect::<Result<_, _>>()?;
        Ok(Slice { microbatch, instances: own, inputs })
    }

    /// What the backward starts from: the sum of the incoming gradients, or the share of a token in the loss.
    fn output_gradient(
        &self,
        call: &StageCall,
        gradients: Vec<Received<Payload<B>>>,
        batch: &Batch,
    ) -> Result<Tensor<B, 2>, StageError> {
        if self.has_loss() {
            let trained = batch.trained_tokens.max(1) as f64;
            return Ok(Tensor::full([1, 1], 1.0 / trained, &self.device));
        }
        gradients
            .into_iter()
            .flat_map(|r| r.payload.0)
            .reduce(|a, b| a + b)
            .ok_or_else(|| protocol(call, "has no loss and got no gradient"))
    }
}

impl<B: Backend> Modules<B> {
    fn forward_kept(
        &self,
        inputs: Vec<Tensor<B, 2>>,
        on: Slice<'_>,
        strategies: &[LayerStrategy],
    ) -> (Tensor<B, 2>, Kept<B>) {
        match self {
            Self::Vit(chunk) => {
                let (y, kept) = chunk.forward_kept(inputs, on, strategies);
                (y, Kept::Vit(kept))
            }
            Self::Decoder(chunk) => {
                let (y, kept) = chunk.forward_kept(inputs, on, strategies);
                (y, Kept::Decoder(kept))
            }
            Self::Dit(chunk) => {
                let (y, kept) = chunk.forward_kept(inputs, on, strategies);
                (y, Kept::Dit(kept))
            }
        }
    }

    fn backward(
        &self,
        kept: Kept<B>,
        dy: Tensor<B, 2>,
        on: Slice<'_>,
        gradients: &mut Gradients<B>,
    ) -> Vec<Tensor<B, 2>> {
        match (self, kept) {
            (Self::Vit(chunk), Kept::Vit(kept)) => chunk.backward(kept, dy, on, gradients),
            (Self::Decoder(chunk), Kept::Decoder(kept)) => chunk.backward(kept, dy, on, gradients),
            (Self::Dit(chunk), Kept::Dit(kept)) => chunk.backward(kept, dy, on, gradients),
            _ => unreachable!("a stage keeps what its own chunk gave"),
        }
    }
}

fn unsupported(module: &str, kind: &'static str) -> ModelError {
    ModelError::Kind { module: module.into(), kind }
}

fn protocol(call: &StageCall, what: &str) -> StageError {
    StageError::Protocol { task: call.task, what: what.into() }
}
