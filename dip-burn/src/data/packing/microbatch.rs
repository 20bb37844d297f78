//! One packed sequence.

use dip_core::{Images, MicrobatchMeta};

use super::config::PackConfig;
use crate::batch::{ImageLayout, ImagePlace, text_positions};
use crate::data::document::TokenizedDocument;
use crate::data::placed::{PlacedPicture, PlacedSound};

/// One packed sequence of `T` tokens; its pictures are not decoded, and its sounds are samples.
#[derive(Debug, Clone, PartialEq)]
pub struct PackedMicrobatch {
    /// Token ids, `[T]`; padding at the end.
    pub tokens: Vec<u32>,
    /// The document of each token, `[T]`, counted from 0; padding has the next id after the last document.
    pub documents: Vec<u32>,
    /// Position of each token in its document as time, row and column, `[T]`.
    pub positions: Vec<[u32; 3]>,
    /// The token to predict at each position, `[T]`: the next token of the document, or padding at its end.
    pub targets: Vec<u32>,
    /// True if the prediction has a loss, `[T]`: the next token belongs to the same document and is trained there. Image and
    /// sound tokens are never predicted, but the text after them is.
    pub loss_mask: Vec<bool>,
    /// The pictures, in the order of the sequence.
    pub images: Vec<PlacedPicture>,
    /// The sounds, in the order of the sequence.
    pub sounds: Vec<PlacedSound>,
    /// Tokens without padding.
    pub used_tokens: u32,
    /// Documents in the sequence.
    pub packed_documents: u32,
}

impl PackedMicrobatch {
    pub(super) fn empty(config: &PackConfig) -> Self {
        let tokens = config.sequence_tokens as usize;
        Self {
            tokens: Vec::with_capacity(tokens),
            documents: Vec::with_capacity(tokens),
            positions: Vec::with_capacity(tokens),
            targets: Vec::with_capacity(tokens),
            loss_mask: Vec::with_capacity(tokens),
            images: Vec::new(),
            sounds: Vec::new(),
            used_tokens: 0,
            packed_documents: 0,
        }
    }

    /// Metadata for the planner: images, lengths of sounds, and tokens that are neither image nor sound nor padding.
    ///
    /// If all pictures have the layout `own`, the size of the model's own images, metadata holds only their number.
    pub fn meta(&self, own: Option<&ImageLayout>) -> MicrobatchMeta {
        let image_tokens = |placed: &PlacedPicture| u64::from(placed.layout.tokens);
        let image_tokens: u64 = self.images.iter().map(image_tokens).sum();
        let sound_tokens = |placed: &PlacedSound| u64::from(placed.waveform.tokens);
        let sound_tokens: u64 = self.sounds.iter().map(sound_tokens).sum();
        let text_tokens = u64::from(self.used_tokens) - image_tokens - sound_tokens;
        let audio_seconds = self.sounds.iter().map(|placed| placed.waveform.seconds()).collect();
        let used = &self.documents[..self.used_tokens as usize];
        let documents = used.chunk_by(|a, b| a == b).map(|d| d.len() as u64).collect();
        let images = match own {
            Some(own) if self.images.iter().all(|placed| placed.layout == *own) => {
                Images::Count(self.images.len() as u32)
            }
            _ => self.images.iter().map(|p| p.layout.size()).collect::<Vec<_>>().into(),
        };
        MicrobatchMeta { images, audio_seconds, text_tokens, documents, ..Default::default() }
    }

    /// Tokens with a loss.
    pub fn trained_tokens(&self) -> u64 {
        self.loss_mask.iter().filter(|&&m| m).count() as u64
    }

    /// Removes the loss of the whole document that token `offset` belongs to, and returns the document.
    pub fn mute_document_at(&mut self, offset: u32) -> u32 {
        let document = self.documents[offset as usize];
        for (mask, &d) in self.loss_mask.iter_mut().zip(&self.documents) {
            *mask &= d != document;
        }
        document
    }

    pub(super) fn append(&mut self, document: TokenizedDocument, config: &PackConfig) {
        let start = self.tokens.len() as u32;
        let length = document.tokens.len();
        let next = document.tokens.iter().skip(1).copied();
        self.targets.extend(next.chain([config.pad]));
        self.loss_mask.extend(document.trained.iter().skip(1).copied().chain([false]));
        self.tokens.extend(document.tokens);
        self.documents.resize(self.tokens.len(), self.packed_documents);
        let images = document.pictures.iter();
        let images = images.map(|p| ImagePlace { offset: p.offset, layout: &p.layout });
        self.positions.extend(config.positions.document(length, images));
        let moved = |p: PlacedPicture| PlacedPicture { offset: start + p.offset, ..p };
        self.images.extend(document.pictures.into_iter().map(moved));
        let moved = |p: PlacedSound| PlacedSound { offset: start + p.offset, ..p };
        self.sounds.extend(document.sounds.into_iter().map(moved));
        self.used_tokens += length as u32;
        self.packed_documents += 1;
    }

    pub(super) fn pad(&mut self, config: &PackConfig) {
        let tokens = config.sequence_tokens as usize;
        self.positions.extend(text_positions(tokens - self.tokens.len()));
        self.tokens.resize(tokens, config.pad);
        self.documents.resize(tokens, self.packed_documents);
        self.targets.resize(tokens, config.pad);
        self.loss_mask.resize(tokens, false);
    }
}
