//! Decodes the pictures of batches, and makes the mel frames of their sounds, on a separate thread.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use super::wanted::{Inputs, Wanted};
use crate::batch::{Image, Sound};
use crate::data::error::DataError;
use crate::data::media::MediaProcessor;
use crate::data::packing::PackedMicrobatch;

/// Microbatches of a batch with their pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodedBatch {
    /// The microbatches.
    pub microbatches: Vec<DecodedMicrobatch>,
    /// Tokens with a loss; fewer than planned if pictures are broken.
    pub trained_tokens: u64,
    /// Pictures with a good header whose pixels cannot be decoded. They are grey, and their documents have no loss.
    pub broken_pictures: u64,
}

/// A packed sequence with its pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodedMicrobatch {
    /// The sequence.
    pub packed: PackedMicrobatch,
    /// Its images, in the order of the sequence; without pixels if they are not wanted.
    pub images: Vec<Image>,
    /// Its sounds, in the order of the sequence; without values if they are not wanted.
    pub sounds: Vec<Sound>,
    /// Documents without a loss, because one of their pictures cannot be decoded.
    pub muted: Vec<u32>,
}

struct Job {
    microbatches: Arc<Vec<PackedMicrobatch>>,
    wanted: Vec<Wanted>,
    reply: Sender<Result<DecodedBatch, DataError>>,
}

/// The decoding thread; it ends when this is dropped.
pub(super) struct DecodeThread {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// A batch that is being decoded.
#[derive(Debug)]
pub struct Decoding(Receiver<Result<DecodedBatch, DataError>>);

impl Decoding {
    /// Waits for the pixels.
    ///
    /// # Errors
    /// [`DataError::DecoderGone`] if the decoding thread has ended, and [`DataError::Io`] for a file that can no longer be read.
    pub fn wait(self) -> Result<DecodedBatch, DataError> {
        self.0.recv().map_err(|_| DataError::DecoderGone)?
    }
}

impl DecodeThread {
    pub fn start(media: MediaProcessor, prefetch: usize) -> Self {
        let (jobs, queue) = sync_channel::<Job>(prefetch);
        let run = move || {
            for job in queue {
                let chosen = job.wanted.iter().filter_map(|wanted| {
                    Some((job.microbatches.get(wanted.microbatch)?, wanted.inputs))
                });
                // The receiver may have stopped waiting.
                let _ = job.reply.send(decode(chosen, &media));
            }
        };
        let thread = std::thread::Builder::new().name("dip-decode".into()).spawn(run);
        Self { jobs: Some(jobs), thread: thread.ok() }
    }

    pub fn submit(
        &self,
        microbatches: Arc<Vec<PackedMicrobatch>>,
        wanted: Vec<Wanted>,
    ) -> Result<Decoding, DataError> {
        let (reply, result) = channel();
        let jobs = self.jobs.as_ref().ok_or(DataError::DecoderGone)?;
        jobs.send(Job { microbatches, wanted, reply }).map_err(|_| DataError::DecoderGone)?;
        Ok(Decoding(result))
    }
}

impl Drop for DecodeThread {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // Only decoders can panic, and their panics are caught.
            let _ = thread.join();
        }
    }
}

/// Decodes the pictures of microbatches on the calling thread; [`Loader::decode`](super::Loader::decode) does it in the
/// background.
///
/// # Errors
/// [`DataError::Io`] names a file that can no longer be read. A picture that cannot be decoded is no error.
pub fn decode_microbatches<'a>(
    microbatches: impl IntoIterator<Item = &'a PackedMicrobatch>,
    media: &MediaProcessor,
) -> Result<DecodedBatch, DataError> {
    decode(microbatches.into_iter().map(|packed| (packed, Inputs::ALL)), media)
}

/// Decodes the given inputs of microbatches.
fn decode<'a>(
    wanted: impl Iterator<Item = (&'a PackedMicrobatch, Inputs)>,
    media: &MediaProcessor,
) -> Result<DecodedBatch, DataError> {
    let mut broken_pictures = 0;
    let decode = |(packed, inputs): (&PackedMicrobatch, Inputs)| {
        let sounds = media.hear(&packed.sounds, inputs.sounds)?;
        let (packed, images, muted) = (packed.clone(), Vec::new(), Vec::new());
        let mut decoded = DecodedMicrobatch { packed, images, sounds, muted };
        // Without a processor, documents have no pictures.
        let Some(processor) = &media.images else { return Ok(decoded) };
        let places = std::mem::take(&mut decoded.packed.images);
        for placed in &places {
            if !inputs.images {
                decoded.images.push(placed.layout.unseen());
                continue;
            }
            let image = processor.visual(&placed.visual.loaded()?, &placed.layout);
            decoded.images.push(image.unwrap_or_else(|_| {
                broken_pictures += 1;
                decoded.muted.push(decoded.packed.mute_document_at(placed.offset));
                processor.blank(&placed.layout)
            }));
        }
        decoded.packed.images = places;
        Ok(decoded)
    };
    let microbatches = wanted.map(decode);
    let microbatches = microbatches.collect::<Result<Vec<DecodedMicrobatch>, DataError>>()?;
    let trained_tokens = microbatches.iter().map(|m| m.packed.trained_tokens()).sum();
    Ok(DecodedBatch { microbatches, trained_tokens, broken_pictures })
}
