//! Decodes the pictures of batches on a separate thread.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use crate::data::error::DataError;
use crate::data::packing::PackedMicrobatch;
use crate::data::picture::blank_pixels;

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
    /// Normalised values of each image, `[3, image_px, image_px]`.
    pub pixels: Vec<Vec<f32>>,
}

struct Job {
    microbatches: Arc<Vec<PackedMicrobatch>>,
    indices: Vec<usize>,
    reply: Sender<DecodedBatch>,
}

/// The decoding thread; it ends when this is dropped.
pub(super) struct DecodeThread {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// A batch that is being decoded.
#[derive(Debug)]
pub struct Decoding(Receiver<DecodedBatch>);

impl Decoding {
    /// Waits for the pixels.
    ///
    /// # Errors
    /// [`DataError::DecoderGone`] if the decoding thread has ended.
    pub fn wait(self) -> Result<DecodedBatch, DataError> {
        self.0.recv().map_err(|_| DataError::DecoderGone)
    }
}

impl DecodeThread {
    pub fn start(image_px: u32, prefetch: usize) -> Self {
        let (jobs, queue) = sync_channel::<Job>(prefetch);
        let run = move || {
            for job in queue {
                let chosen = job.indices.iter().filter_map(|&k| job.microbatches.get(k));
                // The receiver may have stopped waiting.
                let _ = job.reply.send(decode_microbatches(chosen, image_px));
            }
        };
        let thread = std::thread::Builder::new().name("dip-decode".into()).spawn(run);
        Self { jobs: Some(jobs), thread: thread.ok() }
    }

    pub fn submit(
        &self,
        microbatches: Arc<Vec<PackedMicrobatch>>,
        indices: Vec<usize>,
    ) -> Result<Decoding, DataError> {
        let (reply, result) = channel();
        let jobs = self.jobs.as_ref().ok_or(DataError::DecoderGone)?;
        jobs.send(Job { microbatches, indices, reply }).map_err(|_| DataError::DecoderGone)?;
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
pub fn decode_microbatches<'a>(
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
