//! A model chunk as a [`Stage`]: forwards and backwards with tensors, activations held only in between.

mod held;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use burn::module::{AutodiffModule, Module};
use burn::optim::GradientsParams;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{ElementConversion, Tensor};
use dip_core::{
    Bytes, LayerStrategy, MicrobatchId, ModelSpec, ModuleId, ModuleKind, ModuleSpec, PairKey,
    Received, Stage, StageCall, StageError, SubMicrobatchId,
};

use crate::batch::Batch;
use crate::model::{Chunk, DecoderChunk, Init, ModelError, VitChunk, output_width};
use crate::params::{self, Loader, NamedTensors, Naming, ParameterError, ParameterMap};
use held::{Account, Held};

/// What travels between stages: tensors `[tokens, width]` that belong to no autodiff graph.
#[derive(Debug, Clone)]
pub struct Payload<I: Backend>(pub Vec<Tensor<I, 2>>);

/// One model chunk on one device.
pub struct ChunkStage<B: AutodiffBackend> {
    modules: Modules<B>,
    naming: Naming,
    spec: ModuleSpec,
    module: ModuleId,
    layers: usize,
    runs_backward: bool,
    batch: Option<Arc<Batch>>,
    held: HashMap<(MicrobatchId, SubMicrobatchId), Held<B>>,
    gradients: GradientsParams,
    losses: Vec<Tensor<B::InnerBackend, 2>>,
    bytes: Account,
}

/// The chunk of one of the modalities.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one a chunk, and it never moves")]
enum Modules<B: AutodiffBackend> {
    Vit(VitChunk<B>),
    Decoder(DecoderChunk<B>),
}

/// Runs an expression with the chunk, whatever its modality.
macro_rules! with_chunk {
    ($modules:expr, $chunk:ident => $body:expr) => {
        match $modules {
            Modules::Vit($chunk) => $body,
            Modules::Decoder($chunk) => $body,
        }
    };
}

impl<B: AutodiffBackend> ChunkStage<B> {
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
            ModuleKind::Dit { .. } => return Err(unsupported(&spec.name, "dit")),
        };
        let modules = match modules {
            trained if spec.trainable => trained,
            Modules::Vit(chunk) => Modules::Vit(chunk.no_grad()),
            Modules::Decoder(chunk) => Modules::Decoder(chunk.no_grad()),
        };
        Ok(Self {
            modules,
            naming: Naming { module: spec.name.clone(), first_layer: layers.start as usize },
            spec: spec.clone(),
            module,
            layers: layers.len(),
            runs_backward: model.runs_backward()[module.index()],
            batch: None,
            held: HashMap::new(),
            gradients: GradientsParams::new(),
            losses: Vec::new(),
            bytes: Account::default(),
        })
    }

    /// Starts an iteration: forgets the gradients and losses of the last one.
    pub fn begin(&mut self, batch: Arc<Batch>) {
        self.batch = Some(batch);
        self.held.clear();
        self.gradients = GradientsParams::new();
        self.losses.clear();
        self.bytes = Account::default();
    }

    /// Sum of the cross-entropies of this iteration, in nats; 0 where the chunk has no loss.
    pub fn loss_sum(&mut self) -> f64 {
        self.losses.drain(..).map(|loss| loss.into_scalar().elem::<f64>()).sum()
    }

    /// Activations held now, estimated from shapes.
    pub fn held_bytes(&self) -> Bytes {
        self.bytes.now()
    }

    /// The most activations that were held in this iteration, estimated from shapes.
    pub fn peak_bytes(&self) -> Bytes {
        self.bytes.peak()
    }

    /// Sum of the squares of all gradients of this iteration.
    pub fn squared_gradient_norm(&self) -> f64 {
        with_chunk!(&self.modules, chunk => params::squared_norm::<B, _>(chunk, &self.gradients))
    }

    /// The parameters, by name.
    pub fn parameters(&self) -> NamedTensors {
        with_chunk!(&self.modules, chunk => params::parameters::<B, _>(chunk, &self.naming))
    }

    /// The gradients of this iteration, by parameter name.
    pub fn gradients(&self) -> NamedTensors {
        with_chunk!(&self.modules, chunk => params::gradients::<B, _>(chunk, &self.naming, &self.gradients))
    }

    /// Runs `map` over every parameter and its gradient, and takes the new values.
    pub fn map_parameters<P: ParameterMap<B::InnerBackend>>(&mut self, map: &mut P) {
        let gradients = Some(&self.gradients);
        with_chunk!(&mut self.modules, chunk => {
            *chunk = params::map_parameters(chunk.clone(), &self.naming, gradients, map);
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

    fn forward_on<T: Backend>(
        &self,
        chunk: &impl Chunk<T>,
        call: &StageCall,
        inputs: Vec<Tensor<T, 2>>,
    ) -> Result<Tensor<T, 2>, StageError> {
        let batch = self.batch_of(call)?;
        let (microbatch, slice) = self.slice_of(batch, call)?;
        Ok(chunk.forward(inputs, microbatch, slice))
    }

    fn batch_of(&self, call: &StageCall) -> Result<&Batch, StageError> {
        self.batch.as_deref().ok_or_else(|| protocol(call, "runs before a batch was given"))
    }

    fn slice_of<'b>(
        &self,
        batch: &'b Batch,
        call: &StageCall,
    ) -> Result<(&'b crate::batch::Microbatch, Range<u32>), StageError> {
        let (k, s) = (call.pair.microbatch.index(), call.pair.sub_microbatch.index());
        let microbatch = batch.microbatches.get(k);
        let slice = batch.split.slices.get(k).and_then(|m| m.get(self.module.index())?.get(s));
        match (microbatch, slice) {
            (Some(microbatch), Some(slice)) => Ok((microbatch, slice.clone())),
            _ => Err(protocol(call, "asks for a slice that the batch does not have")),
        }
    }
}

impl<B: AutodiffBackend> Stage for ChunkStage<B> {
    type Payload = Payload<B::InnerBackend>;

    fn forward(
        &mut self,
        call: &StageCall,
        mut inputs: Vec<Received<Self::Payload>>,
    ) -> Result<Vec<Self::Payload>, StageError> {
        // Several inputs are slices of one module: their instances are in the order of the sub-microbatches.
        inputs.sort_by(|a, b| a.from.cmp(&b.from));
        let inputs: Vec<(PairKey, Tensor<B::InnerBackend, 2>)> = inputs
            .into_iter()
            .flat_map(|r| r.payload.0.into_iter().map(move |x| (r.from.clone(), x)))
            .collect();
        let output = if self.runs_backward && !self.recomputes(call)? {
            self.forward_with_graph(call, inputs)?
        } else {
            self.forward_without_graph(call, inputs)?
        };
        if with_chunk!(&self.modules, chunk => Chunk::<B>::has_loss(chunk)) {
            self.losses.push(output);
            return Ok(Vec::new());
        }
        Ok(call.consumers.iter().map(|_| Payload(vec![output.clone()])).collect())
    }

    fn backward(
        &mut self,
        call: &StageCall,
        gradients: Vec<Received<Self::Payload>>,
    ) -> Result<Vec<Self::Payload>, StageError> {
        let key = (call.pair.microbatch, call.pair.sub_microbatch);
        let held = self.held.remove(&key);
        let held = held.ok_or_else(|| protocol(call, "runs its backward before its forward"))?;
        let (inputs, output, bytes) = match held {
            Held::Graph { inputs, output, bytes } => (inputs, output, bytes),
            Held::Inputs { inputs, bytes } => {
                let (inputs, output) = self.graph(call, inputs)?;
                (inputs, output, bytes)
            }
        };
        let output_gradient = self.output_gradient(call, gradients, &output)?;
        let mut all = (output * Tensor::from_inner(output_gradient)).sum().backward();
        let outputs = call.consumers.iter().map(|consumer| {
            let leaves = inputs.iter().filter(|(from, _)| from == consumer);
            let gradients: Option<Vec<_>> = leaves.map(|(_, x)| x.grad_remove(&mut all)).collect();
            match gradients {
                Some(gradients) if !gradients.is_empty() => Ok(Payload(gradients)),
                _ => Err(protocol(call, "has no gradient for one of its inputs")),
            }
        });
        let outputs = outputs.collect::<Result<Vec<_>, _>>()?;
        with_chunk!(&self.modules, chunk => params::accumulate::<B, _>(chunk, &mut all, &mut self.gradients));
        self.bytes.give_back(bytes);
        Ok(outputs)
    }
}

type Inputs<T> = Vec<(PairKey, Tensor<T, 2>)>;

impl<B: AutodiffBackend> ChunkStage<B> {
    /// Whether the strategy of a call runs the forward again in the backward.
    fn recomputes(&self, call: &StageCall) -> Result<bool, StageError> {
        let layers = call.strategy.layers(self.layers).unwrap_or_default();
        let all = |strategy| layers.iter().all(|&l| l == strategy);
        match (layers.is_empty(), all(LayerStrategy::Keep), all(LayerStrategy::Full)) {
            (false, true, _) => Ok(false),
            (false, _, true) => Ok(true),
            _ => Err(StageError::Unsupported {
                task: call.task,
                what: format!("memory strategy {:?}", call.strategy.as_str()),
            }),
        }
    }

    fn forward_with_graph(
        &mut self,
        call: &StageCall,
        inputs: Inputs<B::InnerBackend>,
    ) -> Result<Tensor<B::InnerBackend, 2>, StageError> {
        let (inputs, output) = self.graph(call, inputs)?;
        let bytes = self.graph_bytes(call)?;
        let result = output.clone().inner();
        self.hold(call, Held::Graph { inputs, output, bytes }, bytes);
        Ok(result)
    }

    /// On the inner backend, so that no graph is left behind; keeps the inputs only where a backward will need them.
    fn forward_without_graph(
        &mut self,
        call: &StageCall,
        inputs: Inputs<B::InnerBackend>,
    ) -> Result<Tensor<B::InnerBackend, 2>, StageError> {
        let tensors = inputs.iter().map(|(_, x)| x.clone()).collect();
        let output =
            with_chunk!(&self.modules, chunk => self.forward_on(&chunk.valid(), call, tensors))?;
        if self.runs_backward {
            let bytes =
                Bytes(inputs.iter().map(|(_, x)| 4 * x.shape().num_elements() as u64).sum());
            self.hold(call, Held::Inputs { inputs, bytes }, bytes);
        }
        Ok(output)
    }

    /// The forward with autodiff, from leaves that are detached from everything upstream.
    fn graph(
        &self,
        call: &StageCall,
        inputs: Inputs<B::InnerBackend>,
    ) -> Result<(Inputs<B>, Tensor<B, 2>), StageError> {
        let leaf = |(from, x)| (from, Tensor::<B, 2>::from_inner(x).require_grad());
        let inputs: Inputs<B> = inputs.into_iter().map(leaf).collect();
        let tensors = inputs.iter().map(|(_, x)| x.clone()).collect();
        let output = with_chunk!(&self.modules, chunk => self.forward_on(chunk, call, tensors))?;
        Ok((inputs, output))
    }

    fn hold(&mut self, call: &StageCall, held: Held<B>, bytes: Bytes) {
        self.bytes.take(bytes);
        self.held.insert((call.pair.microbatch, call.pair.sub_microbatch), held);
    }

    /// What the backward starts from: the sum of the incoming gradients, or that of the loss by its own sum.
    fn output_gradient(
        &self,
        call: &StageCall,
        gradients: Vec<Received<Payload<B::InnerBackend>>>,
        output: &Tensor<B, 2>,
    ) -> Result<Tensor<B::InnerBackend, 2>, StageError> {
        if with_chunk!(&self.modules, chunk => Chunk::<B>::has_loss(chunk)) {
            let trained = self.batch_of(call)?.trained_tokens.max(1) as f64;
            return Ok(Tensor::full([1, 1], 1.0 / trained, &output.device()));
        }
        gradients
            .into_iter()
            .flat_map(|r| r.payload.0)
            .reduce(|a, b| a + b)
            .ok_or_else(|| protocol(call, "has no loss and got no gradient"))
    }

    /// Estimated bytes of the graph of one call.
    fn graph_bytes(&self, call: &StageCall) -> Result<Bytes, StageError> {
        let (microbatch, slice) = self.slice_of(self.batch_of(call)?, call)?;
        let (tokens, pairs) = match self.modules {
            Modules::Vit(_) => {
                let patches = u64::from(self.spec.patches_per_image());
                (slice.len() as u64 * patches, slice.len() as u64 * patches * patches)
            }
            Modules::Decoder(_) => {
                let tokens = microbatch.tokens.len() as u64;
                (tokens, tokens * tokens)
            }
        };
        Ok(held::layer_bytes(&self.spec, self.layers as u64, tokens, pairs))
    }
}

fn unsupported(module: &str, kind: &'static str) -> ModelError {
    ModelError::Kind { module: module.into(), kind }
}

fn protocol(call: &StageCall, what: &str) -> StageError {
    StageError::Protocol { task: call.task, what: what.into() }
}
