//! A model chunk as a [`Stage`]: it runs forwards and backwards, and holds activations only between them.

mod countdown;
mod finite;
mod forward;
mod held;
mod place;
mod tied;

use std::collections::HashMap;
use std::sync::Arc;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::{
    Bytes, LayerStrategy, MicrobatchId, ModuleSpec, PairKey, Received, Stage, StageCall,
    StageError, SubMicrobatchId,
};

use crate::batch::Batch;
use crate::model::{
    AnyChunk, ChunkSpec, Gradients, Init, InitialWeights, Modalities, ModelError, Precision, cast,
};
use crate::params::Bucket;
use crate::params::bucket;
use crate::params::{
    self, LazyTensor, LoadParameters, MapParameters, NamedTensors, Naming, ParameterError,
    ParameterMap, ReadError, TensorSource,
};
use crate::uploads::Uploads;
use crate::weights::{ReadWeights, Weights, is_adapter};
use countdown::Countdown;
pub use finite::NonFinite;
pub use forward::{ForwardGoal, ForwardStage, ForwardWork};
pub use held::RankMemory;
use held::{Account, DeferredState, HeldState};
use place::{ModulePlace, inputs_in_order};

/// The message between two stages: tensors `[tokens, width]`.
#[derive(Debug, Clone)]
pub struct Payload<B: Backend>(pub Vec<Tensor<B, 2>>);

/// One model chunk on one device.
pub struct ChunkStage<B: Backend> {
    /// The layers, with weights in f32.
    chunk: Box<dyn AnyChunk<B>>,
    /// A copy in the precision of the layers, if that is not f32.
    low: Option<Box<dyn AnyChunk<B>>>,
    precision: Precision,
    loss_scale: f64,
    device: B::Device,
    naming: Naming,
    place: ModulePlace<B>,
    layers: usize,
    runs_backward: bool,
    batch: Option<Arc<Batch>>,
    held: HashMap<(MicrobatchId, SubMicrobatchId), HeldState>,
    left: HashMap<(MicrobatchId, SubMicrobatchId), DeferredState>,
    gradients: Gradients<B>,
    losses: Vec<Tensor<B, 2>>,
    bytes: Account,
    countdown: Option<Countdown<B>>,
    /// True if every tensor is checked for values that are not finite.
    checks: bool,
    /// True if every task waits until the device has run it.
    waits: bool,
    uploads: Uploads,
}

impl<B: Backend> ChunkStage<B> {
    /// A chunk with weights that are drawn from a seed or read from files. Reads only the weights of its layers.
    ///
    /// # Errors
    /// [`ModelError`] if the module's kind or a field is not supported, or the weights cannot be read.
    pub fn new<'a>(
        chunk: &ChunkSpec<'_>,
        modalities: &Modalities<B>,
        weights: impl Into<InitialWeights<'a>>,
        device: &B::Device,
    ) -> Result<Self, ModelError> {
        let (model, spec) = (chunk.model, chunk.module());
        let InitialWeights { seed, weights } = weights.into();
        let init = Init { seed, module: &spec.name, device, read: weights.is_some() };
        let naming = Naming { module: spec.name.clone(), first_layer: chunk.layers.start as usize };
        let mut stage = Self {
            chunk: modalities.build(chunk, &init)?,
            low: None,
            precision: Precision::F32,
            loss_scale: 1.0,
            device: device.clone(),
            naming,
            place: ModulePlace::of(model, chunk.module, modalities)?,
            layers: chunk.layers.len(),
            runs_backward: model.runs_backward()[chunk.module.index()],
            batch: None,
            held: HashMap::new(),
            left: HashMap::new(),
            gradients: Gradients::of(spec),
            losses: Vec::new(),
            bytes: Account::default(),
            countdown: None,
            checks: false,
            waits: false,
            uploads: Uploads::default(),
        };
        stage.restrict(spec);
        stage.read(weights)?;
        Ok(stage)
    }

    /// Leaves out the gradients of parameters that are not trained although the module is.
    fn restrict(&mut self, spec: &ModuleSpec) {
        if !spec.trainable || (spec.lora.is_none() && spec.frozen.is_empty()) {
            return;
        }
        let trained = params::selected(&*self.chunk, &self.naming, |name| {
            let path = name.split_once('.').map_or("", |(_, path)| path);
            spec.trains(path, is_adapter(name))
        });
        self.gradients = Gradients::of(spec).only(trained);
    }

    /// The names of its parameters.
    pub(crate) fn names(&self) -> Vec<String> {
        params::names(&*self.chunk, &self.naming)
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

    /// Adds the activations of this stage to the memory of its rank.
    pub fn share_memory(&mut self, rank: Arc<RankMemory>) {
        self.bytes.rank = rank;
    }

    /// Keeps the tables that are on the device together with other stages of its rank.
    pub(crate) fn share_uploads(&mut self, uploads: Uploads) {
        self.uploads = uploads;
    }

    /// Updates the copy of the weights.
    fn copy_weights(&mut self) {
        self.low = (self.precision != Precision::F32).then(|| {
            let mut chunk = self.chunk.clone();
            let mut copy = CastParameters(self.precision);
            params::map_parameters(&mut *chunk, &self.naming, None, &mut copy);
            chunk
        });
    }

    /// The chunk in the precision of the layers.
    fn layers(&self) -> &dyn AnyChunk<B> {
        self.low.as_deref().unwrap_or(&*self.chunk)
    }

    /// Starts an iteration: clears the gradients and losses of the previous one. The loss, and so every gradient, is multiplied
    /// by `loss_scale`.
    pub fn begin(&mut self, batch: Arc<Batch>, loss_scale: f64) {
        self.batch = Some(batch);
        self.loss_scale = loss_scale;
        self.held.clear();
        self.left.clear();
        self.gradients.clear();
        self.losses.clear();
        self.bytes.restart();
        self.countdown = None;
        self.checks = false;
        self.waits = false;
    }

    /// Ends every task of this iteration only when the device has run it, so that its time is the time of its kernels. Otherwise a
    /// task ends when its kernels are launched.
    pub fn wait_for_device(&mut self) {
        self.waits = true;
    }

    /// The end of a task.
    fn finish_task(&self) -> Result<(), StageError> {
        match self.waits {
            true => B::sync(&self.device)
                .map_err(|error| StageError::Failed(Box::new(ReadError::new(error)))),
            false => Ok(()),
        }
    }

    /// Calls `then` with the gradients of this iteration as soon as `backwards` tasks have added to them; at once if `backwards` is
    /// 0. Gradients are in the same order on all replicas.
    ///
    /// # Errors
    /// As `then`.
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
        bucket::flat_gradients(&*self.chunk, self.gradients.sums())
    }

    /// The length of every parameter, in the order of [`when_gradients_are_done`](Self::when_gradients_are_done).
    pub fn flat_lengths(&self) -> Vec<usize> {
        bucket::flat_lengths(&*self.chunk)
    }

    /// Replaces the gradients of this iteration.
    pub fn set_gradients(&mut self, bucket: Bucket<B>) {
        self.gradients.replace(bucket::shaped_gradients(&*self.chunk, bucket));
    }

    /// Sum of the losses of the tokens of this iteration; 0 if the chunk has no loss.
    ///
    /// # Errors
    /// [`ReadError`] if the device has failed.
    pub fn loss_sum(&mut self) -> Result<f64, ReadError> {
        params::sum_on_host(std::mem::take(&mut self.losses))
    }

    /// Bytes of activations held now.
    pub fn held_bytes(&self) -> Bytes {
        self.bytes.now()
    }

    /// Peak bytes of activations in this iteration.
    pub fn peak_bytes(&self) -> Bytes {
        self.bytes.peak()
    }

    /// Sum of the squares of all gradients of this iteration. A tied head is the token table, which counts once.
    ///
    /// # Errors
    /// [`ReadError`] if the device has failed.
    pub fn squared_gradient_norm(&self) -> Result<f64, ReadError> {
        let tied_head = self.chunk.tied_ends().head.map(|head| head.id);
        params::squared_norm(&*self.chunk, self.gradients.sums(), tied_head)
    }

    /// The parameters, by name.
    pub fn parameters(&self) -> NamedTensors {
        params::parameters(&*self.chunk, &self.naming)
    }

    /// The parameters, to be copied to the host one by one.
    pub fn lazy_parameters(&self) -> Vec<LazyTensor> {
        params::lazy_parameters(&*self.chunk, &self.naming)
    }

    /// The gradients of this iteration, by parameter name.
    pub fn gradients(&self) -> NamedTensors {
        params::gradients::<B, B>(&*self.chunk, &self.naming, self.gradients.sums())
    }

    /// Runs `map` over every parameter and its gradient, and takes the new values.
    pub fn map_parameters<P: ParameterMap<B>>(&mut self, map: &mut P) {
        let sums = Some(self.gradients.sums());
        params::map_parameters(&mut *self.chunk, &self.naming, sums, map);
        self.copy_weights();
    }

    /// Replaces every parameter by the tensor of the same name.
    ///
    /// # Errors
    /// [`ParameterError`] for the first one that is missing or has another shape.
    pub fn load(&mut self, tensors: &dyn TensorSource) -> Result<(), ParameterError> {
        let mut loader = LoadParameters { tensors, error: None };
        self.map_parameters(&mut loader);
        loader.error.map_or(Ok(()), Err)
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

/// Casts parameters to a lower precision.
struct CastParameters(Precision);

impl<B: Backend> ParameterMap<B> for CastParameters {
    fn map<const D: usize>(
        &mut self,
        _: &str,
        parameter: Tensor<B, D>,
        _: Option<Tensor<B, D>>,
    ) -> Tensor<B, D> {
        cast(parameter, self.0.dtype())
    }
}

impl<B: Backend> MapParameters<B> for ChunkStage<B> {
    fn map_parameters<P: ParameterMap<B>>(&mut self, map: &mut P) {
        Self::map_parameters(self, map);
    }
}

impl<B: Backend> Stage for ChunkStage<B> {
    type Payload = Payload<B>;

    fn forward(
        &mut self,
        call: &StageCall,
        inputs: Vec<Received<Payload<B>>>,
    ) -> Result<Vec<Payload<B>>, StageError> {
        let (from, inputs) = inputs_in_order(inputs);
        let batch = self.batch.clone().ok_or_else(|| protocol(call, "runs before a batch"))?;
        let on = self.place.slice_of(&batch, call, &from)?;
        let output = if self.runs_backward {
            let strategies = self.strategies(call)?;
            let layers = self.layers();
            let (output, kept) =
                self.uploads.scope(|| layers.forward_kept(inputs, &on, &strategies));
            self.bytes.take(kept.bytes());
            let key = (call.pair.microbatch, call.pair.sub_microbatch);
            self.held.insert(key, HeldState { from, kept });
            output
        } else {
            self.uploads.scope(|| self.layers().forward(inputs, &on))
        };
        self.check(call, "forward", [&output])?;
        self.finish_task()?;
        if self.chunk.has_loss() {
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
        let on = self.place.slice_of(&batch, call, &held.from)?;
        let dy = self.output_gradient(call, gradients, &batch)?;
        let HeldState { from, kept } = held;
        let bytes = kept.bytes();
        if call.split {
            self.gradients.defer();
        }
        let chunk = self.low.as_deref().unwrap_or(&*self.chunk);
        let gradients = &mut self.gradients;
        let inputs = self.uploads.scope(|| chunk.backward(kept, dy, &on, gradients));
        self.check(call, "backward", &inputs)?;
        let inputs: Vec<(PairKey, Tensor<B, 2>)> = from.into_iter().zip(inputs).collect();
        if call.split {
            let deferred = self.gradients.deferred();
            let key = (call.pair.microbatch, call.pair.sub_microbatch);
            self.left.insert(key, DeferredState { deferred, bytes });
        } else {
            self.bytes.give_back(bytes);
            self.count_backward()?;
        }
        self.finish_task()?;
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
        self.count_backward()?;
        self.finish_task()
    }
}

impl<B: Backend> ChunkStage<B> {
    /// The gradient that the backward starts from: the sum of the incoming gradients, or the share of a token in the loss.
    fn output_gradient(
        &self,
        call: &StageCall,
        gradients: Vec<Received<Payload<B>>>,
        batch: &Batch,
    ) -> Result<Tensor<B, 2>, StageError> {
        if self.chunk.has_loss() {
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

fn protocol(call: &StageCall, what: &str) -> StageError {
    StageError::Protocol { task: call.task, what: what.into() }
}
