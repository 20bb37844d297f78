//! Vision-language models: packed documents to train on, held-out pictures to caption.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dip_core::{FieldError, ModelSpec};

use super::sources::{held_out_shards, train_shards};
use super::{
    BatchContent, BatchLoader, DataRequest, LoadedBatch, MutedDocument, PREFETCH, RunData,
    SelectMicrobatches, open_tokenizer,
};
use crate::batch::{ImagePlace, Microbatch, Prompt};
use crate::data::toy::{
    CaptionMatch, DataSplit, Melodies, MelodiesConfig, Scenes, ScenesConfig, match_caption,
};
use crate::data::{
    Conversation, DataError, DataReport, DataSource, DecodedBatch, DecodedMicrobatch, Document,
    DocumentPiece, ImageProcessor, Loader, LoaderConfig, LoaderPosition, MediaProcessor,
    PackConfig, Packer, Picture, PlacedPicture, Role, SourcePosition, Tokenizer, Turn, VideoRule,
    WebDataset, decode_microbatches,
};
use crate::inference::Inference;
use crate::model::Continuation;
use crate::train::evaluator::{EvaluationError, Evaluator};
use crate::train::report::{Caption, Evaluation};
use crate::train::{DataConfig, EvaluationConfig};

/// Documents searched for each held-out picture.
const DOCUMENTS_PER_PICTURE: usize = 64;

/// Measures the loss on captions of held-out pictures, and generates captions.
pub struct CaptionEvaluator {
    /// Held-out pictures with their captions.
    pub held_out: Vec<HeldOutPicture>,
    captioner: Captioner,
    /// Seed of the tokens that are drawn.
    seed: u64,
}

/// Makes prompts, and texts of the tokens that a model writes.
#[derive(Clone)]
pub(in crate::train) struct Captioner {
    tokenizer: Arc<Tokenizer>,
    pack: PackConfig,
    media: MediaProcessor,
}

/// What a model for conversations is asked about a picture.
const QUESTION: &str = "Describe this image.";

impl Captioner {
    /// The captioner of a model, whose data names the files of tokenizer and image processor.
    ///
    /// # Errors
    /// [`DataError`] names the file or setting.
    pub fn open(model: &ModelSpec, data: &DataConfig) -> Result<Self, DataError> {
        Self::new(model, data, open_tokenizer(model, data)?)
    }

    fn new(
        model: &ModelSpec,
        data: &DataConfig,
        tokenizer: Arc<Tokenizer>,
    ) -> Result<Self, DataError> {
        let pack = PackConfig::new(model, tokenizer.special())?;
        let media = media_processor(data, model)?;
        Ok(Self { tokenizer, pack, media })
    }

    /// The prompt for a caption of a picture: the picture alone, or in a conversation a question about it.
    ///
    /// # Errors
    /// [`DataError`] if the model takes no pictures, or the text cannot be tokenised.
    pub fn ask(&self, picture: Picture, question: Option<&str>) -> Result<Prompt, DataError> {
        if self.media.images.is_none() {
            let limit = "a model with a vision encoder";
            let remedy = "choose a model that sees pictures";
            return Err(FieldError::new("the model", "without one", limit, remedy).into());
        }
        let text = |text: &str| DocumentPiece::Text(text.to_owned());
        let picture = DocumentPiece::Picture(picture);
        self.prompt(&match self.tokenizer.chat_template() {
            Some(_) => {
                let pieces = vec![picture, text(question.unwrap_or(QUESTION))];
                let turns = vec![Turn::new(Role::User, pieces)];
                Document::Conversation(Conversation { turns, ..Conversation::default() })
            }
            None => Document::Plain(std::iter::once(picture).chain(question.map(text)).collect()),
        })
    }

    /// A document that the model continues.
    fn prompt(&self, document: &Document) -> Result<Prompt, DataError> {
        let tokens = document.tokenize_open(&self.tokenizer, &self.media)?;
        let image = |placed: &PlacedPicture| {
            let images = self.media.images.as_ref()?;
            let image = images.visual(&placed.visual, &placed.layout);
            Some(image.unwrap_or_else(|_| images.blank(&placed.layout)))
        };
        let places = tokens.pictures.iter();
        let places = places.map(|p| ImagePlace { offset: p.offset, layout: &p.layout });
        Ok(Prompt {
            positions: self.pack.positions.document(tokens.tokens.len(), places),
            images: tokens.pictures.iter().filter_map(image).collect(),
            image_offsets: tokens.pictures.iter().map(|p| p.offset).collect(),
            sounds: self.media.hear(&tokens.sounds, true)?,
            tokens: tokens.tokens,
        })
    }

    /// How captions are continued.
    pub fn continuation(&self, config: &EvaluationConfig, seed: u64) -> Continuation {
        config.continuation(self.tokenizer.special().eos, seed)
    }

    /// The text of a caption.
    pub fn text(&self, tokens: &[u32]) -> String {
        self.tokenizer.decode(tokens)
    }
}

/// A held-out picture, sound or video and its caption: the text that follows the first one, or the assistant's first answer after
/// it.
#[derive(Debug, Clone)]
pub struct HeldOutPicture {
    /// The document up to the caption.
    prompt: Document,
    /// The document up to the end of the caption.
    whole: Document,
    /// The caption.
    caption: String,
}

/// Opens the data of a vision-language model.
pub(super) fn open(request: &DataRequest<'_>) -> Result<RunData, DataError> {
    let DataRequest { model, data, evaluation, seed, tokenizer } = request;
    let captioner = Captioner::new(model, data, tokenizer.clone())?;
    let media = captioner.media.clone();
    let config = LoaderConfig {
        pack: captioner.pack.clone(),
        media: media.clone(),
        microbatches: data.microbatches.unwrap_or(model.microbatches),
        prefetch: PREFETCH,
    };
    let loader = Loader::new(train_source(data, &media, *seed)?, tokenizer.clone(), config)?
        .with_token_budget(data.tokens_per_iteration)
        .with_too_long(data.too_long)
        .with_lookahead(data.lookahead)
        .with_packing(data.packing.rule());
    let count = evaluation.pictures.max(evaluation.captions);
    let held_out = match held_out_source(data, &media, *seed)? {
        Some(mut source) => held_out(&mut *source, count)?,
        None => Vec::new(),
    };
    let has_data = !held_out.is_empty();
    let evaluator = CaptionEvaluator { held_out, captioner, seed: *seed };
    Ok(RunData {
        loader: Box::new(loader),
        evaluator: has_data.then(|| Box::new(evaluator) as Box<dyn Evaluator>),
    })
}

/// What turns the pictures and sounds of the run into instances of the encoders of `model`.
pub(super) fn media_processor(
    data: &DataConfig,
    model: &ModelSpec,
) -> Result<MediaProcessor, DataError> {
    let folder = data.image_processor.as_deref();
    let images = image_processor(folder, model)?;
    let images = match (images, folder) {
        (Some(images), Some(folder)) => Some(images.with_video_files(folder)?),
        (images, _) => images,
    };
    let own = data.video.unwrap_or_default();
    let images = images.map(|images| with_room_for_text(images.with_video_settings(&own), model));
    Ok(MediaProcessor { images, ..MediaProcessor::of_model(model)? })
}

/// The processor in `folder`, or the one that suits `model`.
fn image_processor(
    folder: Option<&Path>,
    model: &ModelSpec,
) -> Result<Option<ImageProcessor>, DataError> {
    let Some(own) = ImageProcessor::of_model(model) else { return Ok(None) };
    let Some(folder) = folder else { return Ok(Some(own)) };
    let Some(config) = ImageProcessor::read(folder)? else {
        let limit = "a folder with preprocessor_config.json or processor_config.json";
        let remedy = "copy it from the published model, or leave the field out";
        let shown = folder.display();
        return Err(FieldError::new("data.image_processor", shown, limit, remedy).into());
    };
    Ok(Some(ImageProcessor::new(config, model)?))
}

/// A video takes at most half of a sequence, so that there is room for text.
fn with_room_for_text(images: ImageProcessor, model: &ModelSpec) -> ImageProcessor {
    match images.videos() {
        Some(&rule) => {
            let max_tokens = model.sequence_tokens / 2;
            images.with_videos(VideoRule { max_tokens, ..rule })
        }
        None => images,
    }
}

impl BatchLoader for Loader {
    fn next_batch(
        &mut self,
        select: &mut SelectMicrobatches<'_>,
    ) -> Result<LoadedBatch, DataError> {
        let batch = Loader::next_batch(self)?;
        let decoding = self.decode(&batch, select(&batch.meta))?;
        let broken = self.broken_pictures();
        let documents = batch.microbatches.iter().map(|m| u64::from(m.packed_documents)).sum();
        Ok(LoadedBatch {
            meta: batch.meta,
            position: SourcePosition::new(&batch.position),
            tokens: batch.used_tokens,
            documents,
            content: Box::new(move || {
                let decoded = decoding.wait()?;
                broken.fetch_add(decoded.broken_pictures, Ordering::Relaxed);
                Ok(assemble(decoded))
            }),
        })
    }

    fn position(&self) -> SourcePosition {
        SourcePosition::new(&Loader::position(self))
    }

    fn restore(&mut self, position: &SourcePosition) -> Result<(), DataError> {
        Loader::restore(self, &position.get::<LoaderPosition>()?)
    }

    fn report(&self) -> DataReport {
        Loader::report(self)
    }
}

impl Evaluator for CaptionEvaluator {
    fn evaluate(
        &self,
        model: &mut dyn Inference,
        config: &EvaluationConfig,
        generates: bool,
    ) -> Result<Evaluation, EvaluationError> {
        let loss = model.loss(&self.evaluation_batch(config.pictures)?)?;
        let mut evaluation = Evaluation::new("caption loss", loss);
        if generates {
            let (prompts, held_out): (Vec<_>, Vec<_>) =
                self.prompts(config.captions)?.into_iter().unzip();
            let how = self.captioner.continuation(config, self.seed);
            let texts = model.generate(&prompts, &how)?;
            let caption = |(tokens, held_out): (&Vec<u32>, &HeldOutPicture)| {
                let generated = self.captioner.text(tokens);
                Caption {
                    expected: held_out.caption().to_owned(),
                    right: held_out.is_right(&generated),
                    generated,
                }
            };
            evaluation.captions = texts.iter().zip(held_out).map(caption).collect();
        }
        Ok(evaluation)
    }
}

impl CaptionEvaluator {
    /// The first `most` held-out pictures packed into sequences, with a loss on their texts.
    ///
    /// # Errors
    /// [`DataError`] if a text cannot be tokenised.
    pub fn evaluation_batch(&self, most: usize) -> Result<Vec<Microbatch>, DataError> {
        let Captioner { tokenizer, pack, media } = &self.captioner;
        let mut documents = Vec::new();
        for held_out in self.held_out.iter().take(most) {
            documents.push(held_out.whole.tokenize(tokenizer, media)?);
        }
        let count = documents.len();
        let mut packer = Packer::new(PackConfig { lookahead: count.max(1), ..pack.clone() })?;
        // All documents wait at once, so that the packer never asks for more.
        for (number, document) in (0u64..).zip(documents) {
            packer.wait(number, document);
        }
        let mut sequences = Vec::new();
        while packer.waiting().next().is_some() {
            sequences.push(packer.pack_waiting());
        }
        let batch = decode_microbatches(&sequences, media)?;
        Ok(batch.microbatches.into_iter().map(microbatch).collect())
    }

    /// The prompts of the first `most` held-out pictures.
    ///
    /// # Errors
    /// [`DataError`] if a text cannot be tokenised.
    pub fn prompts(&self, most: usize) -> Result<Vec<(Prompt, &HeldOutPicture)>, DataError> {
        let prompt = |held_out: &HeldOutPicture| self.captioner.prompt(&held_out.prompt);
        self.held_out.iter().take(most).map(|h| Ok((prompt(h)?, h))).collect()
    }
}

impl HeldOutPicture {
    /// The first picture, sound or video of a document with its caption, if there are both.
    fn of(document: Document) -> Option<Self> {
        let is_shown = |p: &DocumentPiece| !matches!(p, DocumentPiece::Text(_));
        match document {
            Document::Plain(mut pieces) => {
                let at = pieces.iter().position(is_shown)?;
                pieces.truncate(at + 2);
                let whole = Document::Plain(pieces.clone());
                let Some(DocumentPiece::Text(caption)) = pieces.pop() else { return None };
                (pieces.len() == at + 1).then_some(())?;
                Some(Self { prompt: Document::Plain(pieces), whole, caption })
            }
            Document::Conversation(mut conversation) => {
                let turns = &mut conversation.turns;
                let seen = turns.iter().position(|turn| turn.pieces.iter().any(is_shown))?;
                let answer = turns[seen..].iter().position(|turn| turn.trained)?;
                turns.truncate(seen + answer + 1);
                let whole = Document::Conversation(conversation.clone());
                let caption = conversation.turns.pop()?.text();
                Some(Self { prompt: Document::Conversation(conversation), whole, caption })
            }
        }
    }

    /// The caption in the data.
    pub fn caption(&self) -> &str {
        &self.caption
    }

    /// True if a generated caption names the shapes of a drawn scene or the notes of a drawn melody; `None` for other captions.
    pub fn is_right(&self, generated: &str) -> Option<bool> {
        match_caption(&self.caption, generated).map(CaptionMatch::all)
    }
}

/// A decoded batch in the form that stages read.
fn assemble(decoded: DecodedBatch) -> BatchContent {
    let muted = |(microbatch, decoded): (usize, &DecodedMicrobatch)| {
        let of_document = move |&document: &u32| MutedDocument { microbatch, document };
        decoded.muted.iter().map(of_document).collect::<Vec<_>>()
    };
    BatchContent {
        trained_tokens: decoded.trained_tokens,
        muted: decoded.microbatches.iter().enumerate().flat_map(muted).collect(),
        microbatches: decoded.microbatches.into_iter().map(microbatch).collect(),
    }
}

fn microbatch(decoded: DecodedMicrobatch) -> Microbatch {
    let packed = decoded.packed;
    Microbatch {
        image_offsets: packed.images.iter().map(|i| i.offset).collect(),
        tokens: packed.tokens,
        documents: packed.documents,
        positions: packed.positions,
        targets: packed.targets,
        loss_mask: packed.loss_mask,
        images: decoded.images,
        sounds: decoded.sounds,
        ..Microbatch::default()
    }
}

pub(super) fn train_source(
    data: &DataConfig,
    media: &MediaProcessor,
    seed: u64,
) -> Result<Box<dyn DataSource>, DataError> {
    let shards = train_shards(data, seed, WebDataset::open)?;
    Ok(shards.unwrap_or_else(|| drawn(media, seed, DataSplit::Train)))
}

fn held_out_source(
    data: &DataConfig,
    media: &MediaProcessor,
    seed: u64,
) -> Result<Option<Box<dyn DataSource>>, DataError> {
    let shards = held_out_shards(data, seed, WebDataset::open)?;
    if shards.is_some() || data.has_shards() {
        return Ok(shards);
    }
    Ok(Some(drawn(media, seed, DataSplit::HeldOut)))
}

/// Drawn documents of what the model sees and hears. Pictures vary in size if the model keeps proportions.
fn drawn(media: &MediaProcessor, seed: u64, split: DataSplit) -> Box<dyn DataSource> {
    if media.sounds.is_some() {
        let scenes = media.images.is_some();
        return Box::new(Melodies::new(MelodiesConfig { seed, split, scenes }));
    }
    let is_fixed = media.images.as_ref().is_none_or(|images| images.fixed().is_some());
    Box::new(Scenes::new(ScenesConfig { seed, split }).with_varied_sizes(!is_fixed))
}

/// The first picture or sound with a caption of each document, until there are `count`.
fn held_out(source: &mut dyn DataSource, count: usize) -> Result<Vec<HeldOutPicture>, DataError> {
    let mut found: Vec<HeldOutPicture> = Vec::new();
    for _ in 0..count.saturating_mul(DOCUMENTS_PER_PICTURE) {
        if found.len() == count {
            break;
        }
        found.extend(HeldOutPicture::of(source.next_document()?.loaded()?));
    }
    Ok(found)
}
