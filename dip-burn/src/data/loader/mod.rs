//! Iteration batches: metadata first, pixels later, and a position after each.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use dip_core::BatchMeta;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::document::{Document, TokenizedDocument};
use super::error::{DataError, SkipCounts, SkipReason};
use super::packing::{FirstFit, PackConfig, PackedMicrobatch, Packer, PackingRule};
use super::picture::blank_pixels;
use super::tokenizer::Tokenizer;

/// Documents between two positions that are kept while documents wait to be packed.
const SNAPSHOT_EVERY: u64 = 32;
/// Documents in a row that may be unusable before the data is given up.
const MAX_UNUSABLE: u64 = 1 << 20;
/// Most microbatches of a batch.
const MAX_MICROBATCHES: u32 = 65_536;

/// Gives documents without end: texts with pictures, or [`CaptionedVideo`](super::video::CaptionedVideo)s.
///
/// Implement it to train on data of your own.
pub trait DataSource<D = Document>: Send {
    /// The next document. Broken ones are skipped and counted.
    ///
    /// # Errors
    /// [`DataError`] where no more documents can be had.
    fn next_document(&mut self) -> Result<D, DataError>;

    /// Where the source stands: after [`DataSource::restore`] the same documents follow as now.
    fn position(&self) -> SourcePosition;

    /// Goes to a position.
    ///
    /// # Errors
    /// [`DataError::Position`] where it belongs to other data.
    fn restore(&mut self, position: &SourcePosition) -> Result<(), DataError>;

    /// What was skipped since the beginning of the data, up to the position.
    fn skipped(&self) -> SkipCounts;
}

/// Where a [`DataSource`] stands, in a form only it understands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SourcePosition(serde_json::Value);

impl SourcePosition {
    /// Wraps a source's own position.
    ///
    /// # Panics
    /// Where `position` has no JSON form, such as a map whose keys are not strings.
    pub fn new(position: &impl Serialize) -> Self {
        Self(serde_json::to_value(position).expect("a position has a JSON form"))
    }

    /// The source's own position.
    ///
    /// # Errors
    /// [`DataError::Position`] where it is another source's.
    pub fn get<T: DeserializeOwned>(&self) -> Result<T, DataError> {
        T::deserialize(&self.0).map_err(|e| DataError::Position { what: e.to_string() })
    }
}

/// How batches are made.
#[derive(Debug, Clone, PartialEq)]
pub struct LoaderConfig {
    /// The shape of a microbatch.
    pub pack: PackConfig,
    /// Side of a decoded image, in pixels.
    pub image_px: u32,
    /// Microbatches of a batch.
    pub microbatches: u32,
    /// Batches whose pixels may be decoded ahead.
    pub prefetch: usize,
}

/// Where a [`Loader`] stands: the batches from here on are byte-identical to those of the run that saved it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderPosition {
    /// Batches that were given.
    pub batches: u64,
    /// Where the source stood before the document `first`.
    source: SourcePosition,
    /// Number of the next document of `source`.
    first: u64,
    /// Documents that were taken from the source.
    taken: u64,
    /// Numbers of those that wait to be packed.
    waiting: Vec<u64>,
    counts: Counts,
    shape: Shape,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Counts {
    truncated_documents: u64,
    truncated_tokens: u64,
    skipped: SkipCounts,
}

/// What batches depend on besides the source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shape {
    sequence_tokens: u32,
    max_images: u32,
    tokens_per_image: u32,
    lookahead: usize,
    microbatches: u32,
    /// The token budget of a batch, where that decides instead of `microbatches`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tokens: Option<u64>,
    /// The packing rule, where it is not the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    packing: Option<String>,
    vocab: u32,
}

/// A batch whose pixels are not decoded: all that planning needs.
#[derive(Debug, Clone)]
pub struct PlannedBatch {
    /// What the planner sees; its iteration is the number of the batch, from 0.
    pub meta: BatchMeta,
    /// Tokens that have a loss, all microbatches together.
    pub trained_tokens: u64,
    /// Tokens without padding, image tokens included.
    pub used_tokens: u64,
    /// Where the loader stands behind this batch: save it when the batch is trained.
    pub position: LoaderPosition,
    /// The packed sequences.
    pub microbatches: Arc<Vec<PackedMicrobatch>>,
}

/// Microbatches of a batch with their pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodedBatch {
    /// The microbatches.
    pub microbatches: Vec<DecodedMicrobatch>,
    /// Tokens that have a loss. Fewer than planned where pictures were broken.
    pub trained_tokens: u64,
    /// Pictures whose header was right but whose pixels could not be decoded: they are grey, and their documents have no loss.
    pub broken_pictures: u64,
}

/// A packed sequence with its pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodedMicrobatch {
    /// The sequence.
    pub packed: PackedMicrobatch,
    /// Normalised values of each image, `[3, image_px, image_px]`.
    pub pixels: Vec<Vec<f32>>,
}

/// Makes batches of a source's documents.
///
/// [`Loader::next_batch`] reads, tokenises and packs, and decodes nothing. [`Loader::decode`] hands a batch to the decoding
/// thread, and [`Decoding::wait`] gives its pixels:
///
/// ```text
/// let next = loader.next_batch()?;          // the metadata of batch k + 1
/// planner.submit(next.meta.clone())?;       // is planned and
/// let decoding = loader.decode(&next, &[0, 1])?; // the pixels of some of it are decoded while batch k trains
/// ```
pub struct Loader {
    source: Box<dyn DataSource>,
    tokenizer: Arc<Tokenizer>,
    config: LoaderConfig,
    packer: Packer,
    tokens: Option<u64>,
    batches: u64,
    taken: u64,
    /// Positions of the source before some documents, oldest first; the first is not behind the oldest waiting document.
    snapshots: VecDeque<(u64, SourcePosition)>,
    skipped: SkipCounts,
    decoder: Decoder,
}

impl Loader {
    /// A loader at the source's present position.
    ///
    /// # Errors
    /// [`DataError::Setting`] for a setting outside its limit.
    pub fn new(
        source: Box<dyn DataSource>,
        tokenizer: Arc<Tokenizer>,
        config: LoaderConfig,
    ) -> Result<Self, DataError> {
        let within = |field, value: u64, low: u64, high: u64, remedy| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            let limit = format!("{low} to {high}");
            Err(DataError::Setting { field, value, limit, remedy })
        };
        let microbatches = u64::from(config.microbatches);
        let most = u64::from(MAX_MICROBATCHES);
        within("microbatches", microbatches, 1, most, "try a few for each rank")?;
        within("image_px", u64::from(config.image_px), 1, 16_384, "give the model's image size")?;
        within("prefetch", config.prefetch as u64, 1, 1024, "try 2")?;
        Ok(Self {
            packer: Packer::new(config.pack.clone())?,
            decoder: Decoder::start(config.image_px, config.prefetch),
            source,
            tokenizer,
            config,
            tokens: None,
            batches: 0,
            taken: 0,
            snapshots: VecDeque::new(),
            skipped: SkipCounts::default(),
        })
    }

    /// Sizes batches by tokens without padding, where there is such a budget: a batch gets microbatches until it is reached,
    /// at least one.
    pub fn with_token_budget(mut self, tokens: Option<u64>) -> Self {
        self.tokens = tokens;
        self
    }

    /// Lets another rule than [`FirstFit`] choose which documents share a sequence.
    pub fn with_packing(mut self, rule: Arc<dyn PackingRule>) -> Self {
        self.packer = self.packer.with_rule(rule);
        self
    }

    /// The next batch, without pixels.
    ///
    /// # Errors
    /// [`DataError`] where the source has no more usable documents.
    pub fn next_batch(&mut self) -> Result<PlannedBatch, DataError> {
        let microbatches = self.next_microbatches()?;
        let meta = BatchMeta {
            iteration: self.batches,
            microbatches: microbatches.iter().map(|m| m.meta(&self.config.pack)).collect(),
        };
        self.batches += 1;
        Ok(PlannedBatch {
            meta,
            trained_tokens: microbatches.iter().map(PackedMicrobatch::trained_tokens).sum(),
            used_tokens: microbatches.iter().map(|m| u64::from(m.used_tokens)).sum(),
            position: self.position(),
            microbatches: Arc::new(microbatches),
        })
    }

    /// Has the pixels of some microbatches of a batch decoded in the background. Waits while `prefetch` batches are ahead of it.
    ///
    /// # Errors
    /// [`DataError::DecoderGone`] where the decoding thread has ended.
    pub fn decode(&self, batch: &PlannedBatch, wanted: &[usize]) -> Result<Decoding, DataError> {
        self.decoder.submit(batch.microbatches.clone(), wanted.to_vec())
    }

    /// What was skipped since the beginning of the data.
    pub fn skipped(&self) -> SkipCounts {
        let mut all = self.source.skipped();
        all.merge(&self.skipped);
        all
    }

    /// Documents that were cut to the length of a sequence, and the tokens they lost.
    pub fn truncated(&self) -> (u64, u64) {
        (self.packer.truncated_documents, self.packer.truncated_tokens)
    }

    /// Where the loader stands.
    pub fn position(&self) -> LoaderPosition {
        let now = || (self.taken, self.source.position());
        let (first, source) = match self.packer.waiting().next() {
            Some(_) => self.snapshots.front().cloned().unwrap_or_else(now),
            None => now(),
        };
        LoaderPosition {
            batches: self.batches,
            source,
            first,
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

    /// Goes to a position: reads again what waited there.
    ///
    /// # Errors
    /// [`DataError::Position`] where it belongs to other data or another shape; the loader must then be built anew.
    pub fn restore(&mut self, position: &LoaderPosition) -> Result<(), DataError> {
        let differs = |what: &str| Err(DataError::Position { what: what.into() });
        if position.shape != self.shape() {
            return differs(
                "sequence length, images, microbatches, packing or tokenizer are others",
            );
        }
        let sorted = position.waiting.is_sorted_by(|a, b| a < b);
        let within = |n: &u64| (position.first..position.taken).contains(n);
        if !sorted || !position.waiting.iter().all(within) || position.first > position.taken {
            return differs("its waiting documents are not among those that were read");
        }
        self.source.restore(&position.source)?;
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
                Some(document) => self.packer.wait(number, document),
                None => return differs("a document that waited can no longer be read"),
            }
        }
        self.skipped = position.counts.skipped.clone();
        self.packer.truncated_documents = position.counts.truncated_documents;
        self.packer.truncated_tokens = position.counts.truncated_tokens;
        Ok(())
    }

    fn next_microbatches(&mut self) -> Result<Vec<PackedMicrobatch>, DataError> {
        let Some(budget) = self.tokens else {
            return (0..self.config.microbatches).map(|_| self.next_microbatch()).collect();
        };
        let (mut microbatches, mut tokens) = (Vec::new(), 0);
        for _ in 0..MAX_MICROBATCHES {
            let next = self.next_microbatch()?;
            tokens += u64::from(next.used_tokens);
            microbatches.push(next);
            if tokens >= budget {
                break;
            }
        }
        Ok(microbatches)
    }

    fn next_microbatch(&mut self) -> Result<PackedMicrobatch, DataError> {
        // The packer asks the loader for documents, so it is put beside it meanwhile.
        let empty = Packer::new(self.config.pack.clone())?;
        let mut packer = std::mem::replace(&mut self.packer, empty);
        let packed = packer.pack(|| self.next_usable());
        self.packer = packer;
        let oldest = self.packer.waiting().next().unwrap_or(self.taken);
        while self.snapshots.get(1).is_some_and(|&(number, _)| number <= oldest) {
            self.snapshots.pop_front();
        }
        packed
    }

    fn next_usable(&mut self) -> Result<(u64, TokenizedDocument), DataError> {
        for _ in 0..MAX_UNUSABLE {
            let (number, document) = self.take()?;
            match document {
                Some(document) if self.packer.keeps(&document) => return Ok((number, document)),
                Some(_) => self.skipped.add(SkipReason::Empty),
                None => self.skipped.add(SkipReason::Untokenizable),
            }
        }
        Err(DataError::NoSamples { what: "the data source".into(), skipped: self.skipped() })
    }

    /// The next document with its number; `None` where the tokenizer refuses it.
    fn take(&mut self) -> Result<(u64, Option<TokenizedDocument>), DataError> {
        let number = self.taken;
        if number.is_multiple_of(SNAPSHOT_EVERY) || self.snapshots.is_empty() {
            self.snapshots.push_back((number, self.source.position()));
        }
        let document = self.source.next_document()?;
        self.taken += 1;
        let tokens = document.tokenize(&self.tokenizer, self.config.pack.tokens_per_image);
        Ok((number, tokens.ok()))
    }

    fn shape(&self) -> Shape {
        let packing = self.packer.rule().name();
        Shape {
            sequence_tokens: self.config.pack.sequence_tokens,
            max_images: self.config.pack.max_images,
            tokens_per_image: self.config.pack.tokens_per_image,
            lookahead: self.config.pack.lookahead,
            microbatches: self.config.microbatches,
            tokens: self.tokens,
            packing: (packing != FirstFit.name()).then(|| packing.to_owned()),
            vocab: self.tokenizer.vocab_size(),
        }
    }
}

struct Job {
    microbatches: Arc<Vec<PackedMicrobatch>>,
    wanted: Vec<usize>,
    reply: Sender<DecodedBatch>,
}

/// The decoding thread; ends with the loader.
struct Decoder {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// Pixels that are being decoded.
#[derive(Debug)]
pub struct Decoding(Receiver<DecodedBatch>);

impl Decoding {
    /// Waits for the pixels.
    ///
    /// # Errors
    /// [`DataError::DecoderGone`] where the decoding thread has ended.
    pub fn wait(self) -> Result<DecodedBatch, DataError> {
        self.0.recv().map_err(|_| DataError::DecoderGone)
    }
}

impl Decoder {
    fn start(image_px: u32, prefetch: usize) -> Self {
        let (jobs, queue) = sync_channel::<Job>(prefetch);
        let run = move || {
            for job in queue {
                let wanted = job.wanted.iter().filter_map(|&k| job.microbatches.get(k));
                // Nobody may wait for it any more; that is fine.
                let _ = job.reply.send(decoded(wanted, image_px));
            }
        };
        let thread = std::thread::Builder::new().name("dip-decode".into()).spawn(run);
        Self { jobs: Some(jobs), thread: thread.ok() }
    }

    fn submit(
        &self,
        microbatches: Arc<Vec<PackedMicrobatch>>,
        wanted: Vec<usize>,
    ) -> Result<Decoding, DataError> {
        let (reply, result) = channel();
        let jobs = self.jobs.as_ref().ok_or(DataError::DecoderGone)?;
        jobs.send(Job { microbatches, wanted, reply }).map_err(|_| DataError::DecoderGone)?;
        Ok(Decoding(result))
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It cannot have panicked but inside a decoder, and those are guarded.
            let _ = thread.join();
        }
    }
}

/// Decodes microbatches where it is called; [`Loader::decode`] does the same in the background.
pub fn decoded<'a>(
    microbatches: impl IntoIterator<Item = &'a PackedMicrobatch>,
    image_px: u32,
) -> DecodedBatch {
    let mut broken_pictures = 0;
    let decode = |packed: &PackedMicrobatch| {
        let mut packed = packed.clone();
        let mut pixels = Vec::with_capacity(packed.images.len());
        for i in 0..packed.images.len() {
            pixels.push(packed.images[i].picture.pixels(image_px).unwrap_or_else(|_| {
                broken_pictures += 1;
                packed.mute_document_at(packed.images[i].offset);
                blank_pixels(image_px)
            }));
        }
        DecodedMicrobatch { packed, pixels }
    };
    let microbatches: Vec<DecodedMicrobatch> = microbatches.into_iter().map(decode).collect();
    let trained_tokens = microbatches.iter().map(|m| m.packed.trained_tokens()).sum();
    DecodedBatch { microbatches, trained_tokens, broken_pictures }
}

#[cfg(test)]
#[path = "loader_tests.rs"]
mod tests;
