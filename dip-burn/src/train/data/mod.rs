//! The data of a run: batches to train on, and held-out data to evaluate on.

mod captions;
mod clips;
mod sources;
mod survey;

pub(super) use captions::Captioner;
pub use captions::{CaptionEvaluator, HeldOutPicture};
pub use clips::ClipEvaluator;
pub(super) use clips::ClipSampler;
pub use sources::{SampleCount, index_requests};
pub use survey::{DataSurvey, SurveyedDocument};

use std::path::Path;
use std::sync::Arc;

use dip_core::{
    AudioSpec, BatchMeta, ClipMeta, DecoderSpec, FieldError, ModelSpec, T5Spec, VitSpec,
};

use super::evaluator::Evaluator;
use super::{DataConfig, EvaluationConfig};
use crate::batch::{ClipGrid, ClipSize, Microbatch};
use crate::data::{DataError, DataReport, LatentShape, SourcePosition, Tokenizer, Wanted};

/// Batches that are decoded in advance.
const PREFETCH: usize = 2;

/// The data of a run: batches to train on, and held-out data to evaluate on.
pub struct RunData {
    /// The batches.
    pub loader: Box<dyn BatchLoader>,
    /// Measures the model on held-out data; absent without such data.
    pub evaluator: Option<Box<dyn Evaluator>>,
}

/// Gives the batches of a run, in an order that resumes from a position.
pub trait BatchLoader: Send {
    /// The next batch, with the content of the microbatches that `select` chooses. The content may still be on its way.
    ///
    /// # Errors
    /// [`DataError`] if the data ends or cannot be read.
    fn next_batch(&mut self, select: &mut SelectMicrobatches<'_>)
    -> Result<LoadedBatch, DataError>;

    /// The position after the last batch.
    fn position(&self) -> SourcePosition;

    /// Goes to a position.
    ///
    /// # Errors
    /// [`DataError::Position`] if it belongs to other data.
    fn restore(&mut self, position: &SourcePosition) -> Result<(), DataError>;

    /// What became of the samples so far.
    fn report(&self) -> DataReport {
        DataReport::default()
    }
}

/// Returns the microbatches that this process trains, each once, with the inputs that its ranks read. Only these are loaded.
pub type SelectMicrobatches<'a> = dyn FnMut(&BatchMeta) -> Vec<Wanted> + 'a;

/// A batch whose content may still be on its way.
pub struct LoadedBatch {
    /// Metadata of the whole batch, for the planner.
    pub meta: BatchMeta,
    /// Position of the loader after this batch; saved once the batch is trained.
    pub position: SourcePosition,
    /// Tokens of the backbone or of the clips in the whole batch, without padding.
    pub tokens: u64,
    /// Packed documents, or captions of clips, in the whole batch.
    pub documents: u64,
    /// Waits for the content.
    pub content: PendingContent,
}

/// Waits for the content of a batch.
pub type PendingContent = Box<dyn FnOnce() -> Result<BatchContent, DataError> + Send>;

/// The content of the selected microbatches of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchContent {
    /// The microbatches, in the order of their selection.
    pub microbatches: Vec<Microbatch>,
    /// Their tokens with a loss.
    pub trained_tokens: u64,
    /// Documents whose loss was removed when their pictures were decoded, which only those know who decode them.
    pub muted: Vec<MutedDocument>,
}

/// A document without a loss, because one of its pictures cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MutedDocument {
    /// The place of its microbatch in the selection.
    pub microbatch: usize,
    /// The document, as the tokens of the microbatch number it.
    pub document: u32,
}

impl RunData {
    /// Opens the data that a run names: packed documents for vision-language models, clips for text-to-video models.
    ///
    /// # Errors
    /// [`DataError`] names the file or setting.
    pub fn open(
        model: &ModelSpec,
        data: &DataConfig,
        evaluation: &EvaluationConfig,
        seed: u64,
    ) -> Result<Self, DataError> {
        let tokenizer = open_tokenizer(model, data)?;
        let request = DataRequest { model, data, evaluation, seed, tokenizer };
        match LatentShape::of(model) {
            Some(shape) => clips::open(&request, shape),
            None => captions::open(&request),
        }
    }
}

/// The settings with which data is opened.
struct DataRequest<'a> {
    model: &'a ModelSpec,
    data: &'a DataConfig,
    evaluation: &'a EvaluationConfig,
    seed: u64,
    tokenizer: Arc<Tokenizer>,
}

/// The size of a clip in tokens of `model`; the default for models without clips.
pub fn clip_size(model: &ModelSpec, clip: &ClipMeta) -> ClipSize {
    let Some(shape) = LatentShape::of(model) else { return ClipSize::default() };
    let columns = clip.tokens_per_frame.unwrap_or(shape.tokens_per_frame);
    ClipSize {
        grid: ClipGrid { frames: shape.frames(clip.seconds), rows: 1, columns },
        caption_tokens: u32::try_from(clip.caption_tokens).unwrap_or(u32::MAX).max(1),
    }
}

fn tokenizer(path: Option<&Path>) -> Result<Tokenizer, DataError> {
    path.map_or(Ok(Tokenizer::bytes()), Tokenizer::from_file)
}

/// The tokenizer that the data names, whose tokens the model knows.
fn open_tokenizer(model: &ModelSpec, data: &DataConfig) -> Result<Arc<Tokenizer>, DataError> {
    let tokenizer = tokenizer(data.tokenizer.as_deref())?;
    check_vocabulary(model, &tokenizer)?;
    Ok(Arc::new(tokenizer))
}

/// Checks that the vocabulary of every decoder and text encoder of `model` contains all tokens that may occur. Image and sound
/// tokens occur only with an encoder for them.
fn check_vocabulary(model: &ModelSpec, tokenizer: &Tokenizer) -> Result<(), DataError> {
    let has_images = model.modules.iter().any(|module| module.kind.get::<VitSpec>().is_some());
    let has_sounds = model.modules.iter().any(|module| module.kind.get::<AudioSpec>().is_some());
    let needed = match (has_sounds, has_images) {
        (true, _) => tokenizer.vocab_size_with_sounds(),
        (false, true) => tokenizer.vocab_size(),
        (false, false) => tokenizer.text_vocab_size(),
    };
    for module in &model.modules {
        let decoder = module.kind.get::<DecoderSpec>().map(|decoder| decoder.vocab);
        let encoder = module.kind.get::<T5Spec>().map(|t5| t5.vocab);
        if let Some(vocab) = decoder.or(encoder)
            && needed > vocab
        {
            let error = FieldError::new(
                "the size of the tokenizer's vocabulary",
                needed,
                format!("at most {vocab}, the vocab of module {:?}", module.name),
                "raise vocab in the model, or choose another tokenizer",
            );
            return Err(error.into());
        }
    }
    Ok(())
}
