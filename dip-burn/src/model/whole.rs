//! The whole model on one device: the oracle of tests. Training and inference run through the pipeline.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{ElementConversion, Tensor};
use dip_core::ModelSpec;

use super::{AnyChunk, ChunkSpec, Init, InitialWeights, InputSlice, Modalities, ModelError, Slice};
use crate::batch::{Batch, Microbatch, Prompt, next_position};
use crate::params::{
    self, LoadParameters, NamedTensors, Naming, ParameterError, ParameterMap, ReadError,
};
use crate::weights::ReadWeights;

/// Locked while a graph of Burn's autodiff is built and run.
static AUTODIFF: Mutex<()> = Mutex::new(());

/// A model in one piece. It tracks gradients if `B` does.
#[derive(Clone)]
pub struct WholeModel<B: Backend> {
    spec: ModelSpec,
    modalities: Modalities<B>,
    /// In topological order: every module comes after its inputs.
    modules: Vec<WholeModule<B>>,
}

/// One module with all its layers.
#[derive(Debug, Clone)]
struct WholeModule<B: Backend> {
    /// Index of the module in the model.
    number: usize,
    name: Arc<str>,
    /// The indices of its inputs in [`WholeModel::modules`].
    inputs: Vec<usize>,
    chunk: Box<dyn AnyChunk<B>>,
}

/// The output of a module, and its instances.
#[derive(Debug, Clone)]
struct ModuleOutput<B: Backend> {
    x: Tensor<B, 2>,
    slice: InputSlice,
}

impl<B: Backend> WholeModel<B> {
    /// The model of built-in modalities, with weights that are drawn from a seed or read from files. A pipeline of any partition has
    /// the same initial weights.
    ///
    /// # Errors
    /// As [`WholeModel::with_modalities`].
    pub fn init<'a>(
        model: &ModelSpec,
        weights: impl Into<InitialWeights<'a>>,
        device: &B::Device,
    ) -> Result<Self, ModelError> {
        Self::with_modalities(model, Modalities::default(), weights, device)
    }

    /// The model with modalities of other crates.
    ///
    /// # Errors
    /// [`ModelError`] if a module cannot be trained or the weights cannot be read.
    pub fn with_modalities<'a>(
        model: &ModelSpec,
        modalities: Modalities<B>,
        weights: impl Into<InitialWeights<'a>>,
        device: &B::Device,
    ) -> Result<Self, ModelError> {
        let InitialWeights { seed, weights } = weights.into();
        let order = model.topological_order();
        let mut modules = Vec::with_capacity(order.len());
        for &id in &order {
            let spec = &model.modules[id.index()];
            let init = Init { seed, module: &spec.name, device, read: weights.is_some() };
            let inputs = model.inputs_of(id).into_iter();
            modules.push(WholeModule {
                number: id.index(),
                name: spec.name.as_str().into(),
                inputs: inputs.filter_map(|input| order.iter().position(|&m| m == input)).collect(),
                chunk: modalities.build(&ChunkSpec::whole(model, id), &init)?,
            });
        }
        let mut whole = Self { spec: model.clone(), modalities, modules };
        if let Some(weights) = weights {
            let mut reader = ReadWeights { weights, error: None };
            whole.map_parameters(&mut reader);
            reader.error.map_or(Ok(()), |error| Err(Box::new(error)))?;
        }
        Ok(whole)
    }

    /// Scores of the next token at every position of a sequence, `[tokens, vocab]`; `None` if the decoder has no head.
    pub fn logits(&self, sequence: &Microbatch) -> Option<Tensor<B, 2>> {
        self.predict(&self.outputs_before_last(sequence), sequence, None)
    }

    /// The velocity of every token of the clips of a microbatch, `[tokens, values]`; `None` for models without video.
    pub fn velocity(&self, microbatch: &Microbatch) -> Option<Tensor<B, 2>> {
        self.spec.video()?;
        self.predict(&self.outputs_before_last(microbatch), microbatch, None)
    }

    /// The sum of the losses of the trained tokens of one microbatch, `[1, 1]`.
    fn loss_sum(&self, microbatch: &Microbatch) -> Tensor<B, 2> {
        let outputs = self.outputs(microbatch, self.modules.len());
        let losses = self.modules.iter().zip(outputs).filter(|(module, _)| module.chunk.has_loss());
        let sums = losses.filter_map(|(_, output)| Some(output?.x));
        sums.reduce(|a, b| a + b).expect("a model that is trained ends in a loss")
    }

    /// The outputs of all modules except the last.
    fn outputs_before_last(&self, microbatch: &Microbatch) -> Vec<Option<ModuleOutput<B>>> {
        self.outputs(microbatch, self.modules.len().saturating_sub(1))
    }

    /// The outputs of the first `count` modules; `None` for a module without instances in this microbatch.
    fn outputs(&self, microbatch: &Microbatch, count: usize) -> Vec<Option<ModuleOutput<B>>> {
        let mut outputs: Vec<Option<ModuleOutput<B>>> = Vec::with_capacity(count);
        for module in &self.modules[..count] {
            let output = self.slice(module, microbatch, &outputs).map(|(inputs, on)| {
                let instances = on.instances.clone();
                let spec = &self.spec.modules[module.number];
                let modality = self.modalities.of(spec);
                let places =
                    modality.map_or(Vec::new(), |m| m.places(spec, microbatch, &instances));
                let slice = InputSlice { module: module.name.clone(), instances, places };
                ModuleOutput { x: module.chunk.forward(inputs, &on), slice }
            });
            outputs.push(output);
        }
        outputs
    }

    /// The inputs of a module and the slice of all its instances, from the outputs of modules before it.
    fn slice<'m>(
        &self,
        module: &WholeModule<B>,
        microbatch: &'m Microbatch,
        outputs: &[Option<ModuleOutput<B>>],
    ) -> Option<(Vec<Tensor<B, 2>>, Slice<'m>)> {
        let spec = &self.spec.modules[module.number];
        let instances = self.modalities.of(spec).map_or(0, |m| m.instances(spec, microbatch));
        let of_inputs = module.inputs.iter().filter_map(|&input| outputs[input].clone());
        let (inputs, slices) = of_inputs.map(|output| (output.x, output.slice)).unzip();
        let slice = Slice { microbatch, instances: 0..instances, inputs: slices };
        (instances > 0).then_some((inputs, slice))
    }

    /// The predictions of the last module, of the tokens `rows` or of all.
    fn predict(
        &self,
        outputs: &[Option<ModuleOutput<B>>],
        microbatch: &Microbatch,
        rows: Option<&[usize]>,
    ) -> Option<Tensor<B, 2>> {
        let last = self.modules.last()?;
        let (inputs, on) = self.slice(last, microbatch, outputs)?;
        last.chunk.predict(inputs, &on, rows)
    }

    /// Mean loss of the trained tokens: cross-entropy in nats, or squared error of the velocity. For backends without autodiff.
    ///
    /// # Errors
    /// [`ReadError`] if the device has failed.
    pub fn loss(&self, microbatches: &[Microbatch]) -> Result<f64, ReadError> {
        let trained: u64 = microbatches.iter().map(Microbatch::trained_tokens).sum();
        let sums = microbatches.iter().map(|m| params::sum_on_host(vec![self.loss_sum(m)]));
        Ok(sums.sum::<Result<f64, _>>()? / trained.max(1) as f64)
    }

    /// Continues each prompt with the most likely tokens, until `stop` or `most` tokens, and runs the whole
    /// sequence for each of them. For backends without autodiff.
    ///
    /// # Errors
    /// [`ReadError`] if the device has failed.
    pub fn generate(
        &self,
        prompts: &[Prompt],
        stop: u32,
        most: usize,
    ) -> Result<Vec<Vec<u32>>, ReadError> {
        prompts.iter().map(|prompt| self.continued(prompt, stop, most)).collect()
    }

    fn continued(&self, prompt: &Prompt, stop: u32, most: usize) -> Result<Vec<u32>, ReadError> {
        let mut sequence = Prompt::packed([prompt]);
        let outputs = self.outputs_before_last(&sequence);
        let start = sequence.tokens.len();
        while sequence.tokens.len() < start + most {
            let last = sequence.tokens.len() - 1;
            let logits = self.predict(&outputs, &sequence, Some(&[last]));
            let Some(logits) = logits else { break };
            let token = logits.argmax(1).try_into_scalar().map_err(ReadError::new)?;
            match token.elem::<i64>() as u32 {
                token if token == stop => break,
                token => sequence.push(token),
            }
        }
        Ok(sequence.tokens.split_off(start))
    }

    /// The parameters, by name.
    pub fn parameters(&self) -> NamedTensors {
        let of = |m: &WholeModule<B>| params::parameters::<B>(&*m.chunk, &m.naming());
        self.modules.iter().flat_map(of).collect()
    }

    /// Replaces every parameter by the tensor of the same name.
    ///
    /// # Errors
    /// [`ParameterError`] for the first one that is missing or has another shape.
    pub fn load(&mut self, tensors: &NamedTensors) -> Result<(), ParameterError> {
        let mut loader = LoadParameters { tensors, error: None };
        self.map_parameters(&mut loader);
        loader.error.map_or(Ok(()), Err)
    }

    fn map_parameters<P: ParameterMap<B>>(&mut self, map: &mut P) {
        for module in &mut self.modules {
            let naming = module.naming();
            params::map_parameters(&mut *module.chunk, &naming, None, map);
        }
    }
}

impl<B: AutodiffBackend> WholeModel<B> {
    /// Mean loss of a batch and the gradient of every parameter, from one graph on one device.
    ///
    /// A process runs one call at a time, because a backward of Burn's autodiff looks into graphs that other threads are building
    /// and sometimes loses one of their gradients.
    pub fn loss_and_gradients(&self, batch: &Batch) -> (f64, NamedTensors) {
        let _alone = AUTODIFF.lock().unwrap_or_else(PoisonError::into_inner);
        let trained = batch.trained_tokens.max(1) as f64;
        let sums: Vec<_> = batch.microbatches.iter().map(|m| self.loss_sum(m)).collect();
        let loss = Tensor::cat(sums, 0).sum().div_scalar(trained);
        let value = loss.clone().into_scalar().elem::<f64>();
        let mut graph = loss.backward();
        let mut named = NamedTensors::new();
        for module in &self.modules {
            let sums = params::graph_gradients::<B>(&*module.chunk, &mut graph);
            named.extend(params::gradients::<B, B::InnerBackend>(
                &*module.chunk,
                &module.naming(),
                &sums,
            ));
        }
        (value, named)
    }
}

impl<B: Backend> WholeModule<B> {
    fn naming(&self) -> Naming {
        Naming { module: self.name.to_string(), first_layer: 0 }
    }
}

impl Microbatch {
    /// Adds a token to its only document.
    fn push(&mut self, token: u32) {
        self.positions.push([next_position(&self.positions); 3]);
        self.documents.push(0);
        self.tokens.push(token);
    }
}
