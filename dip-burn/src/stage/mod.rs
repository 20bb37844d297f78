//! A model chunk as a [`Stage`]: forwards and backwards with tensors, activations held only in between.

mod countdown;
mod held;
mod tied;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::{
    Bytes, LayerStrategy, MicrobatchId, ModelSpec, ModuleId, ModuleKind, PairKey, Received, Stage,
    StageCall, StageError, SubMicrobatchId,
};

use crate::batch::Batch;
use crate::model::{
    Chunk, DecoderChunk, DitChunk, Gradients, Init, InitialWeights, ModelError, Precision, Slice,
    VitChunk, cast, image_side, output_width,
};
use crate::params::Bucket;
use crate::params::bucket;
use crate::params::{
    self, LoadParameters, NamedTensors, Naming, ParameterError, ParameterMap, ReadError,
};
use crate::weights::{ReadWeights, Weights};
use countdown::Countdown;
pub use held::RankMemory;
use held::{Account, Held, Kept, Left};

/// What travels between stages: tensors `[tokens, width]`.
#[derive(Debug, Clone)]
pub struct Payload<B: Backend>(pub Vec<Tensor<B, 2>>);

/// One model chunk on one device.
pub struct ChunkStage<B: Backend> {
    /// The weights, in f32.
    modules: Modules<B>,
    /// Their copy in the precision of the layers, where that is another one.
    low: Option<Modules<B>>,
    precision: Precision,
    loss_scale: f64,
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
    countdown: Option<Countdown<B>>,
}

/// The chunk of one of the modalities.
#[derive(Debug, Clone)]
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
    /// The layers `layers` of a module, with weights drawn from a seed, or read from files: only those of these layers.
    ///
    /// # Errors
    /// [`ModelError`] where the module's kind or a field is not supported, or the weights cannot be read.
    pub fn new<'a>(
        model: &ModelSpec,
        module: ModuleId,
        layers: Range<u32>,
        start: impl Into<InitialWeights<'a>>,
        device: &B::Device,
    ) -> Result<Self, ModelError> {
        let spec = &model.modules[module.index()];
        let InitialWeights { seed, weights } = start.into();
        let init = Init { seed, module: &spec.name, device, read: weights.is_some() };
        let modules = match &spec.kind {
            ModuleKind::Vit { .. } => {
                let output = output_width(model, module);
                Modules::Vit(VitChunk::init(spec, layers.clone(), output, &init)?)
            }
            ModuleKind::Decoder { .. } => {
                let chunk = DecoderChunk::init(spec, layers.clone(), &init)?;
                Modules::Decoder(chunk.with_image_side(image_side(model, module)))
            }
            ModuleKind::Audio(_) | ModuleKind::Other(_) => {
                return Err(unsupported(&spec.name, "audio"));
            }
            ModuleKind::Dit { .. } => {
                Modules::Dit(DitChunk::init(model, module, layers.clone(), &init)?)
            }
        };
        let mut stage = Self {
            modules,
            low: None,
            precision: Precision::F32,
            loss_scale: 1.0,
            device: device.clone(),
            naming: Naming { module: spec.name.clone(), first_layer: layers.start as usize },
            module,
            upstream: upstream(model, module),
            layers: layers.len(),
            runs_backward: model.runs_backward()[module.index()],
            batch: None,
            held: HashMap::new(),
            left: HashMap::new(),
            gradients: Gradients::of(spec),
            losses: Vec::new(),
            bytes: Account::default(),
            countdown: None,
        };
        stage.read(weights)?;
        Ok(stage)
    }

    fn read(&mut self, weights: Option<&Weights>) -> Result<(), ModelError> {
        let Some(weights) = weights else { return Ok(()) };
        let mut reader = ReadWeights { weights, error: None };
        self.map_parameters(&mut reader);
        Ok(reader.error.map_or(Ok(()), |error| Err(Box::new(error)))?)
    }

    /// The same stage with layers that compute in `precision`.
    #[must_use]
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self.copy_weights();
        self
    }

    /// Has the activations of this stage count towards those of its rank.
    pub fn share_memory(&mut self, rank: Arc<RankMemory>) {
        self.bytes.rank = rank;
    }

    /// Brings the copy of the weights up to date.
    fn copy_weights(&mut self) {
        self.low = (self.precision != Precision::F32).then(|| {
            let mut modules = self.modules.clone();
            let mut copy = Copy(self.precision);
            with_chunk!(&mut modules, chunk => {
                *chunk = params::map_parameters(chunk.clone(), &self.naming, None, &mut copy);
            });
            modules
        });
    }

    /// What the layers compute with.
    fn layers(&self) -> &Modules<B> {
        self.low.as_ref().unwrap_or(&self.modules)
    }

    /// Starts an iteration: forgets the gradients and losses of the last one. The loss, and so every gradient, is multiplied
    /// with `loss_scale`.
    pub fn begin(&mut self, batch: Arc<Batch>, loss_scale: f64) {
        self.batch = Some(batch);
        self.loss_scale = loss_scale;
        self.held.clear();
        self.left.clear();
        self.gradients.clear();
        self.losses.clear();
        self.bytes.restart();
        self.countdown = None;
    }

    /// Has `then` called with the gradients of this iteration, in an order that all replicas share, as soon as `backwards`
    /// tasks have added to them.
    ///
    /// # Errors
    /// Those of `then`, which is called at once where there are no such tasks.
    pub fn when_gradients_are_done(
        &mut self,
        backwards: usize,
        then: impl FnOnce(Bucket<B>) -> Result<(), StageError> + Send + 'static,
    ) -> Result<(), StageError> {
        self.countdown = Some(Countdown::new(backwards, Box::new(then)));
        self.gradients_are_done()
    }

    fn gradients_are_done(&mut self) -> Result<(), StageError> {
        match self.countdown.as_mut().and_then(Countdown::due) {
            Some(then) => then(self.flat_gradients()),
            None => Ok(()),
        }
    }

    fn count_backward(&mut self) -> Result<(), StageError> {
        if let Some(countdown) = &mut self.countdown {
            countdown.tick();
        }
        self.gradients_are_done()
    }

    fn flat_gradients(&self) -> Bucket<B> {
        let sums = self.gradients.sums();
        with_chunk!(&self.modules, chunk => bucket::flat_gradients(chunk, sums))
    }

    /// The length of every parameter, in the order of [`when_gradients_are_done`](Self::when_gradients_are_done).
    pub fn flat_lengths(&self) -> Vec<usize> {
        with_chunk!(&self.modules, chunk => bucket::flat_lengths(chunk))
    }

    /// Replaces the gradients of this iteration.
    pub fn set_gradients(&mut self, bucket: Bucket<B>) {
        let sums = with_chunk!(&self.modules, chunk => bucket::shaped_gradients(chunk, bucket));
        self.gradients.replace(sums);
    }

    /// Sum of the losses of the tokens of this iteration; 0 where the chunk has no loss.
    ///
    /// # Errors
    /// [`ReadError`] if the device has failed.
    pub fn loss_sum(&mut self) -> Result<f64, ReadError> {
        params::sum_on_host(std::mem::take(&mut self.losses))
    }

    /// Activations held now.
    pub fn held_bytes(&self) -> Bytes {
        self.bytes.now()
    }

    /// The most activations that were held in this iteration.
    pub fn peak_bytes(&self) -> Bytes {
        self.bytes.peak()
    }

    /// Sum of the squares of all gradients of this iteration. A tied head is the token table, which counts once.
    ///
    /// # Errors
    /// [`ReadError`] if the device has failed.
    pub fn squared_gradient_norm(&self) -> Result<f64, ReadError> {
        let sums = self.gradients.sums();
        let counted = self.decoder().and_then(DecoderChunk::tied_head).map(|head| head.id);
        with_chunk!(&self.modules, chunk => params::squared_norm::<B, _>(chunk, sums, counted))
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
        self.copy_weights();
    }

    /// Replaces every parameter by that of the same name.
    ///
    /// # Errors
    /// [`ParameterError`] for the first one that is missing or has another shape.
    pub fn load(&mut self, tensors: &NamedTensors) -> Result<(), ParameterError> {
        let mut loader = LoadParameters { tensors, error: None };
        self.map_parameters(&mut loader);
        loader.error.map_or(Ok(()), Err)
    }

    fn decoder(&self) -> Option<&DecoderChunk<B>> {
        match &self.modules {
            Modules::Decoder(chunk) => Some(chunk),
            _ => None,
        }
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
        call.strategy.layers(self.layers).ok_or_else(unsupported)
    }
}

/// Copies parameters into a lower precision.
struct Copy(Precision);

impl<B: Backend> ParameterMap<B> for Copy {
    fn map<const D: usize>(
        &mut self,
        _: &str,
        parameter: Tensor<B, D>,
        _: Option<Tensor<B, D>>,
    ) -> Tensor<B, D> {
        cast(parameter, self.0.dtype())
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
            let (output, kept) = self.layers().forward_kept(inputs, on, &strategies);
            let bytes = kept.bytes();
            self.bytes.take(bytes);
            let key = (call.pair.microbatch, call.pair.sub_microbatch);
            self.held.insert(key, Held { from, kept, bytes });
            output
        } else {
            with_chunk!(self.layers(), chunk => chunk.forward(inputs, on))
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
        let modules = self.low.as_ref().unwrap_or(&self.modules);
        let inputs = modules.backward(kept, dy, on, &mut self.gradients);
        let inputs: Vec<(PairKey, Tensor<B, 2>)> = from.into_iter().zip(inputs).collect();
        if call.split {
            let deferred = self.gradients.deferred();
            let key = (call.pair.microbatch, call.pair.sub_microbatch);
            self.left.insert(key, Left { deferred, bytes });
        } else {
            self.bytes.give_back(bytes);
            self.count_backward()?;
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
        self.count_backward()
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
            return Ok(Tensor::full([1, 1], self.loss_scale / trained, &self.device));
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
