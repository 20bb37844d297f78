//! The whole model on one device: the oracle of the pipelined gradients, and what evaluation, captions and sampling run on.

use std::sync::{Mutex, PoisonError};

use burn::optim::GradientsParams;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{ElementConversion, Tensor};
use dip_core::{ModelSpec, ModuleId, ModuleKind};

use super::{Chunk, DecoderChunk, DitChunk, Init, InitialWeights, ModelError, Slice, VitChunk};
use crate::batch::{Batch, Image, Microbatch};
use crate::params::{self, LoadParameters, NamedTensors, Naming, ParameterError, ParameterMap};
use crate::weights::ReadWeights;

/// Held while a graph of Burn's autodiff is built and run.
static AUTODIFF: Mutex<()> = Mutex::new(());

/// A model in one piece, in autodiff or not, as `B` is: an encoder into a decoder, or a text encoder into a diffusion transformer.
#[derive(Debug, Clone)]
pub struct WholeModel<B: Backend> {
    encoder: Option<(String, VitChunk<B>)>,
    decoder: (String, DecoderChunk<B>),
    video: Option<(String, DitChunk<B>)>,
}

/// What a caption starts from.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// Tokens, those of the images included.
    pub tokens: Vec<u32>,
    /// Images.
    pub images: Vec<Image>,
    /// Where the tokens of each image start.
    pub image_offsets: Vec<u32>,
}

impl<B: Backend> WholeModel<B> {
    /// The model with weights drawn from a seed, the same ones that any partition starts from, or read from files.
    ///
    /// # Errors
    /// [`ModelError`] where a module cannot be trained, there is not exactly one decoder with a head, or the weights cannot be
    /// read.
    pub fn init<'a>(
        model: &ModelSpec,
        start: impl Into<InitialWeights<'a>>,
        device: &B::Device,
    ) -> Result<Self, ModelError> {
        let InitialWeights { seed, weights } = start.into();
        let mut encoder = None;
        let mut decoder = None;
        let mut video = None;
        for id in model.topological_order() {
            let spec = &model.modules[id.index()];
            let init = Init { seed, module: &spec.name, device, read: weights.is_some() };
            match &spec.kind {
                ModuleKind::Vit { .. } => {
                    let width = output_width(model, id);
                    let chunk = VitChunk::init(spec, 0..spec.layers, width, &init)?;
                    encoder = Some((spec.name.clone(), chunk));
                }
                ModuleKind::Decoder { .. } => {
                    let chunk = DecoderChunk::init(spec, 0..spec.layers, &init)?
                        .with_image_side(image_side(model, id));
                    decoder = Some((spec.name.clone(), chunk));
                }
                ModuleKind::Audio(_) | ModuleKind::Other(_) => {
                    return Err(unsupported(&spec.name, "audio"));
                }
                ModuleKind::Dit { .. } => {
                    let chunk = DitChunk::init(model, id, 0..spec.layers, &init)?;
                    video = Some((spec.name.clone(), chunk));
                }
            }
        }
        let decoder = decoder.ok_or_else(|| unsupported(&model.name, "without a decoder"))?;
        let mut whole = Self { encoder, decoder, video };
        if let Some(weights) = weights {
            let mut reader = ReadWeights { weights, error: None };
            whole.map_parameters(&mut reader);
            reader.error.map_or(Ok(()), |error| Err(Box::new(error)))?;
        }
        Ok(whole)
    }

    /// Scores of the next token at every place of a sequence, `[tokens, vocab]`; none where the decoder has no head.
    pub fn logits(&self, sequence: &Microbatch) -> Option<Tensor<B, 2>> {
        let rows: Vec<usize> = (0..sequence.tokens.len()).collect();
        self.decoder.1.logits(self.image_embeddings(sequence), &whole(sequence), &rows)
    }

    /// Sum of the losses of the trained tokens of one microbatch, `[1, 1]`.
    fn loss_sum(&self, microbatch: &Microbatch) -> Tensor<B, 2> {
        match &self.video {
            Some((_, video)) => {
                let (text, on) = self.captions(microbatch);
                video.forward(text, on)
            }
            None => self.decoder.1.forward(self.image_embeddings(microbatch), whole(microbatch)),
        }
    }

    /// The velocity of every token of the clips of a microbatch, `[tokens, values]`; `None` for models without video.
    pub fn velocity(&self, microbatch: &Microbatch) -> Option<Tensor<B, 2>> {
        let (_, video) = self.video.as_ref()?;
        let (text, on) = self.captions(microbatch);
        video.velocity(text, &on)
    }

    /// The captions of all clips through the text encoder, and the slice of all clips.
    fn captions<'m>(&self, microbatch: &'m Microbatch) -> (Vec<Tensor<B, 2>>, Slice<'m>) {
        let all = 0..microbatch.clips.len() as u32;
        let on = Slice { microbatch, instances: all.clone(), inputs: Vec::new() };
        let text = self.decoder.1.forward(Vec::new(), on.clone());
        (vec![text], Slice { inputs: vec![all], ..on })
    }

    fn image_embeddings(&self, microbatch: &Microbatch) -> Vec<Tensor<B, 2>> {
        let images = microbatch.images.len() as u32;
        match &self.encoder {
            Some((_, encoder)) if images > 0 => {
                let on = Slice { microbatch, instances: 0..images, inputs: Vec::new() };
                vec![encoder.forward(Vec::new(), on)]
            }
            _ => Vec::new(),
        }
    }

    /// Mean loss of the trained tokens: cross-entropy in nats, or squared error of the velocity. For backends without autodiff.
    pub fn loss(&self, microbatches: &[Microbatch]) -> f64 {
        let trained: u64 = microbatches.iter().map(Microbatch::trained_tokens).sum();
        let sum = |m: &Microbatch| self.loss_sum(m).into_scalar().elem::<f64>();
        microbatches.iter().map(sum).sum::<f64>() / trained.max(1) as f64
    }

    /// Continues each prompt with the most likely tokens, until `stop` or `most` tokens. For backends without autodiff.
    pub fn generate(&self, prompts: &[Prompt], stop: u32, most: usize) -> Vec<Vec<u32>> {
        prompts.iter().map(|prompt| self.continued(prompt, stop, most)).collect()
    }

    fn continued(&self, prompt: &Prompt, stop: u32, most: usize) -> Vec<u32> {
        let mut sequence = prompt.sequence();
        let embeddings = self.image_embeddings(&sequence);
        let start = sequence.tokens.len();
        while sequence.tokens.len() < start + most {
            let last = sequence.tokens.len() - 1;
            let logits = self.decoder.1.logits(embeddings.clone(), &whole(&sequence), &[last]);
            let token = logits.map(|l| l.argmax(1).into_scalar().elem::<i64>() as u32);
            match token {
                Some(token) if token != stop => sequence.push(token),
                _ => break,
            }
        }
        sequence.tokens.split_off(start)
    }

    /// The parameters, by name.
    pub fn parameters(&self) -> NamedTensors {
        let mut all = params::parameters::<B, _>(&self.decoder.1, &naming(&self.decoder.0));
        if let Some((name, encoder)) = &self.encoder {
            all.extend(params::parameters::<B, _>(encoder, &naming(name)));
        }
        if let Some((name, video)) = &self.video {
            all.extend(params::parameters::<B, _>(video, &naming(name)));
        }
        all
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

    fn map_parameters<P: ParameterMap<B>>(&mut self, map: &mut P) {
        let (name, chunk) = &mut self.decoder;
        *chunk = params::map_parameters(chunk.clone(), &naming(name), None, map);
        if let Some((name, chunk)) = &mut self.encoder {
            *chunk = params::map_parameters(chunk.clone(), &naming(name), None, map);
        }
        if let Some((name, chunk)) = &mut self.video {
            *chunk = params::map_parameters(chunk.clone(), &naming(name), None, map);
        }
    }
}

impl<B: AutodiffBackend> WholeModel<B> {
    /// Mean loss of a batch and the gradient of every parameter, from one graph on one device.
    ///
    /// One call at a time in a process: a backward of Burn's autodiff looks into graphs that other threads are building, and now
    /// and then loses a gradient of theirs.
    pub fn loss_and_gradients(&self, batch: &Batch) -> (f64, NamedTensors) {
        let _alone = AUTODIFF.lock().unwrap_or_else(PoisonError::into_inner);
        let trained = batch.trained_tokens.max(1) as f64;
        let sums: Vec<_> = batch.microbatches.iter().map(|m| self.loss_sum(m)).collect();
        let loss = Tensor::cat(sums, 0).sum().div_scalar(trained);
        let value = loss.clone().into_scalar().elem::<f64>();
        let mut all = loss.backward();
        let (name, decoder) = &self.decoder;
        let gradients = GradientsParams::from_module(&mut all, decoder);
        let mut named =
            params::gradients::<B, B::InnerBackend, _>(decoder, &naming(name), &gradients);
        if let Some((name, encoder)) = &self.encoder {
            let gradients = GradientsParams::from_module(&mut all, encoder);
            let of_encoder =
                params::gradients::<B, B::InnerBackend, _>(encoder, &naming(name), &gradients);
            named.extend(of_encoder);
        }
        if let Some((name, video)) = &self.video {
            let gradients = GradientsParams::from_module(&mut all, video);
            named.extend(params::gradients::<B, B::InnerBackend, _>(
                video,
                &naming(name),
                &gradients,
            ));
        }
        (value, named)
    }
}

/// Width of what an encoder hands to its consumer.
pub(crate) fn output_width(model: &ModelSpec, module: ModuleId) -> usize {
    let own = model.modules[module.index()].hidden;
    let consumer = model.consumers_of(module).first().map(|c| model.modules[c.index()].hidden);
    consumer.unwrap_or(own) as usize
}

/// Tokens on a side of an image, where rows and columns of images are positions of their own; 0 where there are none.
pub(crate) fn image_side(model: &ModelSpec, module: ModuleId) -> Option<usize> {
    model.modules[module.index()].options.rope.sections?;
    let inputs = model.inputs_of(module).into_iter();
    let tokens = inputs.map(|input| model.modules[input.index()].tokens_per_image()).max();
    Some(tokens.unwrap_or(0).isqrt() as usize)
}

impl Prompt {
    /// The prompt as one document.
    fn sequence(&self) -> Microbatch {
        let mut sequence = Microbatch {
            images: self.images.clone(),
            image_offsets: self.image_offsets.clone(),
            ..Microbatch::default()
        };
        self.tokens.iter().for_each(|&token| sequence.push(token));
        sequence
    }
}

impl Microbatch {
    /// Adds a token to its only document.
    fn push(&mut self, token: u32) {
        self.positions.push(self.tokens.len() as u32);
        self.documents.push(0);
        self.tokens.push(token);
    }
}

/// The one sequence of a microbatch.
fn whole(microbatch: &Microbatch) -> Slice<'_> {
    Slice { microbatch, instances: 0..1, inputs: Vec::new() }
}

fn naming(module: &str) -> Naming {
    Naming { module: module.to_owned(), first_layer: 0 }
}

fn unsupported(module: &str, kind: &'static str) -> ModelError {
    ModelError::Kind { module: module.into(), kind }
}
