//! The data of a run: what differs between kinds of models stands behind [`Feed`] and [`Judge`].

mod captions;
mod clips;

pub use captions::{CaptionJudge, HeldOut};
pub use clips::SampleJudge;

use std::path::Path;
use std::sync::Arc;

use burn::tensor::backend::Backend;
use dip_core::{BatchMeta, ClipMeta, ModelSpec, ModuleKind};

use super::report::Evaluation;
use super::{DataConfig, EvaluationConfig};
use crate::batch::ClipSize;
use crate::batch::Microbatch;
use crate::data::{DataError, LatentShape, SourcePosition, Tokenizer};
use crate::model::WholeModel;

/// Batches that are decoded ahead.
const PREFETCH: usize = 2;

/// What a run trains and is judged on.
pub struct RunData {
    /// Batches.
    pub feed: Box<dyn Feed>,
    /// Data held out.
    pub judge: Judge,
}

/// Gives the batches of a run, in an order that a position can resume.
pub trait Feed: Send {
    /// The next batch, with the content of those microbatches that `wanted` names; it may still be on its way.
    ///
    /// # Errors
    /// [`DataError`] where the data has no more.
    fn next_batch(&mut self, wanted: &mut Wanted<'_>) -> Result<FedBatch, DataError>;

    /// Where the feed stands behind the last batch.
    fn position(&self) -> SourcePosition;

    /// Goes to a position.
    ///
    /// # Errors
    /// [`DataError::Position`] where it belongs to other data.
    fn restore(&mut self, position: &SourcePosition) -> Result<(), DataError>;

    /// Samples that were skipped since the beginning.
    fn skipped(&self) -> u64;
}

/// A batch that can be planned.
pub struct FedBatch {
    /// What the planner sees.
    pub meta: BatchMeta,
    /// Where the feed stands behind it: saved when the batch is trained.
    pub position: SourcePosition,
    /// Tokens of the backbone or of the clips, padding not counted, whatever is wanted.
    pub tokens: u64,
    /// Packed documents, or captions of clips.
    pub documents: u64,
    /// Waits for the content.
    pub content: Content,
}

/// The microbatches of a batch, by number, whose content is wanted, each once: with several nodes, those that are trained here.
pub type Wanted<'a> = dyn FnMut(&BatchMeta) -> Vec<usize> + 'a;

/// Waits for the content of a batch.
pub type Content = Box<dyn FnOnce() -> Result<Microbatches, DataError> + Send>;

/// The content of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Microbatches {
    /// Those that are wanted, in that order.
    pub wanted: Vec<Microbatch>,
    /// Their tokens with a loss.
    pub trained_tokens: u64,
}

/// Measures a model on data that it was not trained on.
pub enum Judge {
    /// Captions of held-out pictures.
    Captions(CaptionJudge),
    /// Velocities of held-out clips, and clips sampled for their captions.
    Samples(SampleJudge),
}

impl RunData {
    /// Opens the data of a run.
    ///
    /// # Errors
    /// [`DataError`] names the file or setting.
    pub fn open(
        model: &ModelSpec,
        data: &DataConfig,
        evaluation: &EvaluationConfig,
        seed: u64,
    ) -> Result<Self, DataError> {
        let tokenizer = Arc::new(tokenizer(data.tokenizer.as_deref())?);
        fits_vocabulary(model, &tokenizer)?;
        let opening = Opening { model, data, evaluation, seed, tokenizer };
        match LatentShape::of(model) {
            Some(shape) => clips::open(&opening, shape),
            None => captions::open(&opening),
        }
    }

    /// The size of a clip of this data, for measuring; the default where there are no clips.
    pub fn clip_size(&self, clip: &ClipMeta) -> ClipSize {
        match &self.judge {
            Judge::Samples(judge) => judge.clip_size(clip),
            Judge::Captions(_) => ClipSize::default(),
        }
    }
}

/// What data is opened with.
struct Opening<'a> {
    model: &'a ModelSpec,
    data: &'a DataConfig,
    evaluation: &'a EvaluationConfig,
    seed: u64,
    tokenizer: Arc<Tokenizer>,
}

impl Judge {
    /// Whether there is held-out data.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Captions(judge) => judge.held_out.is_empty(),
            Self::Samples(judge) => judge.held_out.is_empty(),
        }
    }

    /// The loss on held-out data; with what the model makes of it where `generates` is set.
    ///
    /// # Errors
    /// [`DataError`] where a text cannot be tokenised.
    pub fn evaluate<B: Backend>(
        &self,
        model: &WholeModel<B>,
        config: &EvaluationConfig,
        generates: bool,
    ) -> Result<Evaluation, DataError> {
        match self {
            Self::Captions(judge) => judge.evaluate(model, config, generates),
            Self::Samples(judge) => judge.evaluate(model, config, generates),
        }
    }
}

fn tokenizer(path: Option<&Path>) -> Result<Tokenizer, DataError> {
    path.map_or(Ok(Tokenizer::bytes()), Tokenizer::from_file)
}

fn fits_vocabulary(model: &ModelSpec, tokenizer: &Tokenizer) -> Result<(), DataError> {
    for module in &model.modules {
        if let ModuleKind::Decoder { vocab, .. } = module.kind
            && tokenizer.vocab_size() > vocab
        {
            return Err(DataError::Setting {
                field: "the size of the tokenizer's vocabulary",
                value: u64::from(tokenizer.vocab_size()),
                limit: format!("at most {vocab}, the vocab of module {:?}", module.name),
                remedy: "raise vocab in the model, or choose another tokenizer",
            });
        }
    }
    Ok(())
}
