//! Makes the batch of each iteration: metadata first, pixels later. Each batch has the position after it.

mod decode;
mod position;
mod wanted;

pub use decode::{DecodedBatch, DecodedMicrobatch, Decoding, decode_microbatches};
pub use position::LoaderPosition;
pub use wanted::{Inputs, Wanted};

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dip_core::{BatchMeta, FieldError};
use serde::{Deserialize, Serialize};

use super::document::DocumentError;
use super::document::TokenizedDocument;
use super::error::DataError;
use super::media::MediaProcessor;
use super::packing::{
    FirstFit, PackConfig, PackedMicrobatch, Packer, PackingRule, WaitingDocument, balance,
};
use super::processor::ImageProcessor;
use super::report::DataReport;
use super::skip::{SkipCounts, SkipReason, SkippedSample};
use super::source::{DataSource, SourcePosition, UsableWatch};
use super::tokenizer::Tokenizer;
use decode::DecodeThread;
use position::{BatchShape, Counts};

/// Documents between two saved positions of the source.
const SNAPSHOT_EVERY: u64 = 32;
/// Most microbatches of a batch.
const MAX_MICROBATCHES: u32 = 65_536;

/// The settings of a loader.
#[derive(Debug, Clone, PartialEq)]
pub struct LoaderConfig {
    /// The shape of a microbatch.
    pub pack: PackConfig,
    /// Turns pictures and sounds into instances of the model's encoders.
    pub media: MediaProcessor,
    /// Microbatches of a batch.
    pub microbatches: u32,
    /// Most batches that are decoded in advance.
    pub prefetch: usize,
}

/// What happens to documents that are longer than a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum TooLong {
    /// They end where the sequence ends, or before the first picture that does not fit.
    #[default]
    Cut,
    /// They are skipped.
    Skip,
}

/// A batch without its pixels, which is sufficient for planning.
#[derive(Debug, Clone)]
pub struct PackedBatch {
    /// Metadata for the planner; its iteration is the number of the batch, from 0.
    pub meta: BatchMeta,
    /// Tokens with a loss in all microbatches.
    pub trained_tokens: u64,
    /// Tokens without padding, image tokens included.
    pub used_tokens: u64,
    /// The position after this batch: save it when the batch is trained.
    pub position: LoaderPosition,
    /// The packed sequences.
    pub microbatches: Arc<Vec<PackedMicrobatch>>,
}

/// Makes batches from the documents of a source.
///
/// [`Loader::next_batch`] reads, tokenizes and packs, but decodes no pictures. [`Loader::decode`] hands a batch to the decoding
/// thread, and [`Decoding::wait`] returns its pixels:
///
/// ```text
/// let next = loader.next_batch()?;               // metadata of batch k + 1
/// planner.submit(next.meta.clone())?;            // planned while batch k trains
/// let decoding = loader.decode(&next, [0, 1])?; // decoded while batch k trains
/// ```
pub struct Loader {
    source: Box<dyn DataSource>,
    tokenizer: Arc<Tokenizer>,
    config: LoaderConfig,
    packer: Packer,
    token_budget: Option<u64>,
    /// Batches among which documents change places.
    lookahead: u32,
    /// Batches that were packed together.
    block: Block,
    batches: u64,
    taken: u64,
    /// Positions of the source, oldest first; the first is not after the oldest waiting document.
    snapshots: VecDeque<Snapshot>,
    skipped: SkipCounts,
    /// The first documents that the loader skipped itself.
    first_skipped: Vec<SkippedSample>,
    too_long: TooLong,
    watch: UsableWatch,
    /// True if a document had a picture since the opening.
    has_pictures: bool,
    /// The pass after a whole pass since the opening.
    whole_pass: u64,
    broken_pictures: Arc<AtomicU64>,
    decoder: DecodeThread,
}

/// Batches that were packed together.
#[derive(Debug, Default)]
struct Block {
    /// The position before its first batch; `None` if it has only one.
    start: Option<LoaderPosition>,
    /// Batches that were given away.
    given: u64,
    /// The others.
    batches: VecDeque<Vec<PackedMicrobatch>>,
}

/// The position of the source before a document.
#[derive(Debug, Clone)]
struct Snapshot {
    document: u64,
    source: SourcePosition,
}

impl Loader {
    /// A loader that begins at the source's current position.
    ///
    /// # Errors
    /// [`DataError::Setting`] for a setting outside its limit.
    pub fn new(
        source: Box<dyn DataSource>,
        tokenizer: Arc<Tokenizer>,
        config: LoaderConfig,
    ) -> Result<Self, DataError> {
        let microbatches = 1..=MAX_MICROBATCHES;
        let remedy = "try a few for each rank";
        FieldError::check_range("microbatches", config.microbatches, microbatches, remedy)?;
        FieldError::check_range("prefetch", config.prefetch, 1..=1024, "try 2")?;
        Ok(Self {
            packer: Packer::new(config.pack.clone())?,
            decoder: DecodeThread::start(config.media.clone(), config.prefetch),
            watch: UsableWatch::at_opening(source.passes()),
            whole_pass: source.passes() + 1,
            has_pictures: false,
            broken_pictures: Arc::default(),
            first_skipped: Vec::new(),
            too_long: TooLong::default(),
            source,
            tokenizer,
            config,
            token_budget: None,
            lookahead: 0,
            block: Block::default(),
            batches: 0,
            taken: 0,
            snapshots: VecDeque::new(),
            skipped: SkipCounts::default(),
        })
    }

    /// With a token budget, each batch gets microbatches until their tokens without padding reach it.
    pub fn with_token_budget(mut self, tokens: Option<u64>) -> Self {
        self.token_budget = tokens;
        self
    }

    /// Packs so many batches together: their documents change places until the patches of the sequences are as even as their room
    /// allows. No document leaves these batches. With 0, documents stay where the packing rule has put them; with a token budget, each
    /// batch is evened out alone.
    pub fn with_lookahead(mut self, batches: u32) -> Self {
        self.lookahead = batches;
        self
    }

    /// Sets the rule that decides which documents share a sequence; the default is [`FirstFit`].
    pub fn with_packing(mut self, rule: Arc<dyn PackingRule>) -> Self {
        self.packer = self.packer.with_rule(rule);
        self
    }

    /// Sets what happens to documents that are longer than a sequence; by default they are cut.
    pub fn with_too_long(mut self, too_long: TooLong) -> Self {
        self.too_long = too_long;
        self
    }

    /// The next batch, without pixels.
    ///
    /// # Errors
    /// [`DataError`] if the source has no more usable documents.
    pub fn next_batch(&mut self) -> Result<PackedBatch, DataError> {
        if self.block.batches.is_empty() {
            self.block = self.read_block()?;
        }
        let microbatches = self.block.batches.pop_front().unwrap_or_default();
        self.block.given += 1;
        let own = self.config.media.images.as_ref().and_then(ImageProcessor::fixed);
        let meta = BatchMeta {
            iteration: self.batches,
            microbatches: microbatches.iter().map(|m| m.meta(own.as_ref())).collect(),
        };
        self.batches += 1;
        Ok(PackedBatch {
            meta,
            trained_tokens: microbatches.iter().map(PackedMicrobatch::trained_tokens).sum(),
            used_tokens: microbatches.iter().map(|m| u64::from(m.used_tokens)).sum(),
            position: self.position(),
            microbatches: Arc::new(microbatches),
        })
    }

    /// Decodes the inputs of some microbatches in the background. Waits while `prefetch` batches are queued.
    ///
    /// # Errors
    /// [`DataError::DecoderGone`] if the decoding thread has ended.
    pub fn decode<W: Into<Wanted>>(
        &self,
        batch: &PackedBatch,
        wanted: impl IntoIterator<Item = W>,
    ) -> Result<Decoding, DataError> {
        let wanted = wanted.into_iter().map(Into::into).collect();
        self.decoder.submit(batch.microbatches.clone(), wanted)
    }

    /// The documents skipped since the beginning of the data.
    pub fn skipped(&self) -> SkipCounts {
        let mut all = self.source.skipped();
        all.merge(&self.skipped);
        all
    }

    /// What became of the samples so far.
    pub fn report(&self) -> DataReport {
        let (source, skipped) = (self.source.skipped(), self.skipped());
        let mut first_skipped = self.source.first_skipped();
        first_skipped.extend(self.first_skipped.iter().cloned());
        DataReport {
            samples: self.taken + source.total(),
            skipped,
            first_skipped,
            cut_documents: self.packer.truncated_documents,
            cut_tokens: self.packer.truncated_tokens,
            broken_pictures: self.broken_pictures.load(Ordering::Relaxed),
            lacks_pictures: self.config.media.images.is_some()
                && !self.has_pictures
                && self.source.passes() >= self.whole_pass,
        }
    }

    /// Counts the broken pictures of decoded batches.
    pub fn broken_pictures(&self) -> Arc<AtomicU64> {
        self.broken_pictures.clone()
    }

    /// The current position.
    pub fn position(&self) -> LoaderPosition {
        match &self.block.start {
            Some(start) if !self.block.batches.is_empty() => {
                let (batches, given) = (self.batches, self.block.given);
                LoaderPosition { batches, given, ..start.clone() }
            }
            _ => self.position_between_blocks(),
        }
    }

    fn position_between_blocks(&self) -> LoaderPosition {
        let oldest = self.snapshots.front().filter(|_| self.packer.waiting().next().is_some());
        let snapshot = oldest.cloned().unwrap_or_else(|| self.snapshot());
        LoaderPosition {
            batches: self.batches,
            given: 0,
            source: snapshot.source,
            first: snapshot.document,
            taken: self.taken,
            waiting: self.packer.waiting().collect(),
            counts: Counts {
                truncated_documents: self.packer.truncated_documents,
                truncated_tokens: self.packer.truncated_tokens,
                skipped: self.skipped.clone(),
            },
            shape: self.shape(),
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot { document: self.taken, source: self.source.position() }
    }

    /// Goes to a position, and reads the documents again that waited there.
    ///
    /// # Errors
    /// [`DataError::Position`] if it belongs to other data or other settings; build the loader anew then.
    pub fn restore(&mut self, position: &LoaderPosition) -> Result<(), DataError> {
        let differs = |reason: &str| Err(DataError::position(reason));
        if let Some(reason) = self.shape().difference(&position.shape) {
            return differs(reason);
        }
        let sorted = position.waiting.is_sorted_by(|a, b| a < b);
        let within = |n: &u64| (position.first..position.taken).contains(n);
        if !sorted || !position.waiting.iter().all(within) || position.first > position.taken {
            return differs("its waiting documents were never read");
        }
        self.source.restore(&position.source)?;
        self.watch = UsableWatch::new(self.source.passes());
        // The rest of this pass, then a whole pass.
        self.whole_pass = self.source.passes() + 2;
        let rule = self.packer.rule().clone();
        self.packer = Packer::new(self.config.pack.clone())?.with_rule(rule);
        (self.batches, self.taken) = (position.batches, position.first);
        self.snapshots.clear();
        let mut waiting = position.waiting.iter().copied().peekable();
        while self.taken < position.taken {
            let (number, document) = self.take()?;
            if waiting.next_if_eq(&number).is_none() {
                continue;
            }
            match document {
                Ok(document) => self.packer.wait(number, document),
                Err(_) => return differs("a document that waited can no longer be read"),
            }
        }
        self.skipped = position.counts.skipped.clone();
        self.packer.truncated_documents = position.counts.truncated_documents;
        self.packer.truncated_tokens = position.counts.truncated_tokens;
        self.block = Block::default();
        if position.given > 0 {
            let mut block = self.read_block()?;
            if position.given >= block.batches.len() as u64 {
                return differs("it is behind the batches that were packed together");
            }
            block.batches.drain(..position.given as usize);
            self.block = Block { given: position.given, ..block };
        }
        Ok(())
    }

    /// Packs the next batches together.
    fn read_block(&mut self) -> Result<Block, DataError> {
        let start = (self.lookahead > 1).then(|| self.position_between_blocks());
        let mut batches: Vec<Vec<Vec<WaitingDocument>>> = Vec::new();
        for _ in 0..self.lookahead.max(1) {
            batches.push(self.next_sequences()?);
        }
        let room = self.config.pack.room();
        if self.lookahead > 0 && self.token_budget.is_none() {
            balance(&mut batches.iter_mut().flatten().collect::<Vec<_>>(), room);
        } else if self.lookahead > 0 {
            let sequences =
                |batch: &mut Vec<Vec<_>>| balance(&mut batch.iter_mut().collect::<Vec<_>>(), room);
            batches.iter_mut().for_each(sequences);
        }
        let packed =
            |batch: Vec<Vec<_>>| batch.into_iter().map(|s| self.packer.packed(s)).collect();
        Ok(Block { start, given: 0, batches: batches.into_iter().map(packed).collect() })
    }

    /// The documents of the sequences of the next batch.
    fn next_sequences(&mut self) -> Result<Vec<Vec<WaitingDocument>>, DataError> {
        let Some(budget) = self.token_budget else {
            return (0..self.config.microbatches).map(|_| self.next_sequence()).collect();
        };
        let (mut sequences, mut tokens) = (Vec::new(), 0);
        for _ in 0..MAX_MICROBATCHES {
            let next = self.next_sequence()?;
            tokens += next.iter().map(|document| document.tokens()).sum::<u64>();
            sequences.push(next);
            if tokens >= budget {
                break;
            }
        }
        Ok(sequences)
    }

    fn next_sequence(&mut self) -> Result<Vec<WaitingDocument>, DataError> {
        // The packer asks the loader for documents, so the loader cannot hold it meanwhile.
        let empty = Packer::new(self.config.pack.clone())?;
        let mut packer = std::mem::replace(&mut self.packer, empty);
        let chosen = packer.choose(&mut || self.next_usable());
        self.packer = packer;
        let oldest = self.packer.waiting().next().unwrap_or(self.taken);
        while self.snapshots.get(1).is_some_and(|next| next.document <= oldest) {
            self.snapshots.pop_front();
        }
        chosen
    }

    fn next_usable(&mut self) -> Result<(u64, TokenizedDocument), DataError> {
        loop {
            let (number, document) = self.take()?;
            let pass = self.source.passes();
            let reason = match document {
                Ok(document) if self.is_too_long(&document) => SkipReason::TooLong,
                Ok(document) if self.packer.keeps(&document) => {
                    self.watch.usable(pass);
                    return Ok((number, document));
                }
                Ok(_) => SkipReason::NothingFits,
                Err(error) => error.reason(),
            };
            if self.watch.unusable(pass) {
                let (what, skipped) = ("the data source".into(), self.skipped());
                return Err(DataError::NoSamples { what, skipped });
            }
            self.skipped.add(reason);
            let source = &self.source;
            let name = || source.last_name().unwrap_or_else(|| format!("document {number}"));
            SkippedSample::note(&mut self.first_skipped, reason, name);
        }
    }

    fn is_too_long(&self, document: &TokenizedDocument) -> bool {
        let room = self.config.pack.room();
        self.too_long == TooLong::Skip && document.kept_tokens(room) < document.tokens.len()
    }

    /// The number and tokens of the next document.
    fn take(&mut self) -> Result<(u64, Result<TokenizedDocument, DocumentError>), DataError> {
        let number = self.taken;
        if number.is_multiple_of(SNAPSHOT_EVERY) || self.snapshots.is_empty() {
            self.snapshots.push_back(self.snapshot());
        }
        let document = self.source.next_document()?;
        self.taken += 1;
        self.has_pictures |= document.pictures().next().is_some();
        Ok((number, document.tokenize(&self.tokenizer, &self.config.media)))
    }

    fn shape(&self) -> BatchShape {
        let packing = self.packer.rule().name();
        let fixed = self.config.media.images.as_ref().and_then(ImageProcessor::fixed);
        BatchShape {
            sequence_tokens: self.config.pack.sequence_tokens,
            max_images: self.config.pack.max_images,
            max_patches: fixed.is_none().then_some(self.config.pack.max_patches),
            tokens_per_image: fixed.map_or(0, |layout| layout.tokens),
            lookahead: self.config.pack.lookahead,
            microbatches: self.config.microbatches,
            tokens: self.token_budget,
            batches_ahead: (self.lookahead > 0).then_some(self.lookahead),
            packing: (packing != FirstFit.name()).then(|| packing.to_owned()),
            too_long: (self.too_long != TooLong::Cut).then_some(self.too_long),
            vocab: self.tokenizer.vocab_size(),
            processor: Some(self.config.media.fingerprint()),
        }
    }
}

#[cfg(test)]
mod tests;
