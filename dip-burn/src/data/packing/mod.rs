//! Packs documents into sequences.

mod rule;

use std::collections::VecDeque;
use std::sync::Arc;

use dip_core::{MicrobatchMeta, ModelSpec, ModuleKind};

use super::document::TokenizedDocument;
use super::error::DataError;
use super::picture::Picture;

pub use rule::{BestFit, FirstFit, Fitting, PackingRule, Room};

/// Longest sequence.
const MAX_SEQUENCE_TOKENS: u32 = 1 << 24;
/// Most documents that wait for room.
const MAX_LOOKAHEAD: usize = 1 << 16;

/// The shape of packed sequences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackConfig {
    /// Tokens of one sequence.
    pub sequence_tokens: u32,
    /// Most images of one sequence.
    pub max_images: u32,
    /// Tokens that an image takes.
    pub tokens_per_image: u32,
    /// Documents among which one that still fits is sought.
    pub lookahead: usize,
    /// The token that fills a sequence up.
    pub pad: u32,
    /// The token an image is made of.
    pub image: u32,
}

impl PackConfig {
    /// The shape that a model asks for; images where it has a vision encoder.
    ///
    /// # Errors
    /// [`DataError::Setting`] where the sequence cannot hold an image.
    pub fn new(model: &ModelSpec, special: super::SpecialTokens) -> Result<Self, DataError> {
        let vit = model.modules.iter().find(|m| matches!(m.kind, ModuleKind::Vit { .. }));
        let config = Self {
            sequence_tokens: model.sequence_tokens,
            max_images: if vit.is_some() { model.max_images } else { 0 },
            tokens_per_image: vit.map_or(0, |m| m.tokens_per_image()),
            lookahead: 32,
            pad: special.pad,
            image: special.image,
        };
        config.validate()?;
        Ok(config)
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`DataError::Setting`] for the first field outside its limit.
    pub fn validate(&self) -> Result<(), DataError> {
        let wrong =
            |field, value, limit, remedy| DataError::Setting { field, value, limit, remedy };
        let tokens = u64::from(self.sequence_tokens);
        if !(2..=u64::from(MAX_SEQUENCE_TOKENS)).contains(&tokens) {
            let limit = format!("2 to {MAX_SEQUENCE_TOKENS}");
            return Err(wrong("sequence_tokens", tokens, limit, "try 8192"));
        }
        let per_image = u64::from(self.tokens_per_image);
        if self.max_images > 0 && !(1..=tokens - 2).contains(&per_image) {
            let limit = format!("1 to {} (sequence_tokens less 2)", tokens - 2);
            let remedy = "use smaller images, larger patches or a longer sequence";
            return Err(wrong("tokens_per_image", per_image, limit, remedy));
        }
        if !(1..=MAX_LOOKAHEAD).contains(&self.lookahead) {
            let limit = format!("1 to {MAX_LOOKAHEAD}");
            return Err(wrong("lookahead", self.lookahead as u64, limit, "try 32"));
        }
        Ok(())
    }
}

/// One packed sequence of `T` tokens; its pictures are not decoded yet.
#[derive(Debug, Clone, PartialEq)]
pub struct PackedMicrobatch {
    /// Token ids, `[T]`; padding at the end.
    pub tokens: Vec<u32>,
    /// The document of each token, `[T]`, counted from 0; padding has the id behind the last document's.
    pub documents: Vec<u32>,
    /// Position of each token in its document, `[T]`.
    pub positions: Vec<u32>,
    /// The token to predict at each position, `[T]`: the next one of the document, or padding where there is none.
    pub targets: Vec<u32>,
    /// Whether that prediction is trained, `[T]`: it is where the next token is a text token of the same document, so image
    /// tokens are never predicted, but the text behind an image is.
    pub loss_mask: Vec<bool>,
    /// The pictures, in the order of the sequence.
    pub images: Vec<PackedImage>,
    /// Tokens without padding.
    pub used_tokens: u32,
    /// Documents of the sequence.
    pub packed_documents: u32,
}

/// A picture of a packed sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct PackedImage {
    /// The picture.
    pub picture: Picture,
    /// Offset of its first token in the sequence; the others follow it.
    pub offset: u32,
}

impl PackedMicrobatch {
    fn with_room(config: &PackConfig) -> Self {
        let tokens = config.sequence_tokens as usize;
        Self {
            tokens: Vec::with_capacity(tokens),
            documents: Vec::with_capacity(tokens),
            positions: Vec::with_capacity(tokens),
            targets: Vec::with_capacity(tokens),
            loss_mask: Vec::with_capacity(tokens),
            images: Vec::new(),
            used_tokens: 0,
            packed_documents: 0,
        }
    }

    /// What the planner may know: images, and tokens that are neither image nor padding.
    pub fn meta(&self, config: &PackConfig) -> MicrobatchMeta {
        let image_tokens = self.images.len() as u64 * u64::from(config.tokens_per_image);
        let text_tokens = u64::from(self.used_tokens) - image_tokens;
        let used = &self.documents[..self.used_tokens as usize];
        let documents = used.chunk_by(|a, b| a == b).map(|d| d.len() as u64).collect();
        let images = self.images.len() as u32;
        MicrobatchMeta { images, text_tokens, documents, ..Default::default() }
    }

    /// Tokens that have a loss.
    pub fn trained_tokens(&self) -> u64 {
        self.loss_mask.iter().filter(|&&m| m).count() as u64
    }

    /// Takes the loss from all tokens of the document in which token `offset` stands.
    pub fn mute_document_at(&mut self, offset: u32) {
        let document = self.documents[offset as usize];
        for (mask, &d) in self.loss_mask.iter_mut().zip(&self.documents) {
            *mask &= d != document;
        }
    }

    fn room(&self, config: &PackConfig) -> Room {
        Room {
            tokens: config.sequence_tokens - self.tokens.len() as u32,
            images: config.max_images - self.images.len() as u32,
        }
    }

    fn append(&mut self, document: TokenizedDocument, config: &PackConfig) {
        let start = self.tokens.len() as u32;
        let length = document.tokens.len();
        let next = document.tokens.iter().skip(1).copied();
        self.targets.extend(next.clone().chain([config.pad]));
        self.loss_mask.extend(next.map(|t| t != config.image).chain([false]));
        self.tokens.extend(document.tokens);
        self.documents.resize(self.tokens.len(), self.packed_documents);
        self.positions.extend(0..length as u32);
        let image = |(offset, picture)| PackedImage { picture, offset: start + offset };
        self.images.extend(document.pictures.into_iter().map(image));
        self.used_tokens += length as u32;
        self.packed_documents += 1;
    }

    fn pad(&mut self, config: &PackConfig) {
        let tokens = config.sequence_tokens as usize;
        self.positions.extend(0..(tokens - self.tokens.len()) as u32);
        self.tokens.resize(tokens, config.pad);
        self.documents.resize(tokens, self.packed_documents);
        self.targets.resize(tokens, config.pad);
        self.loss_mask.resize(tokens, false);
    }
}

/// One document in a sequence of its own, truncated to it.
pub fn pack_one(mut document: TokenizedDocument, config: &PackConfig) -> PackedMicrobatch {
    document.truncate(config.sequence_tokens, config.max_images, config.tokens_per_image);
    let mut packed = PackedMicrobatch::with_room(config);
    packed.append(document, config);
    packed.pad(config);
    packed
}

/// Packing with bounded lookahead.
///
/// The oldest waiting document opens a sequence, and of those that still fit the one that the rule chooses follows, until none of
/// `lookahead` documents fits or the rule closes the sequence. So no document waits for more than `lookahead` sequences.
#[derive(Debug)]
pub struct Packer {
    config: PackConfig,
    rule: Arc<dyn PackingRule>,
    waiting: VecDeque<(u64, TokenizedDocument)>,
    /// Documents that were cut to fit.
    pub truncated_documents: u64,
    /// Tokens that were cut away with them.
    pub truncated_tokens: u64,
}

impl Packer {
    /// An empty packer.
    ///
    /// # Errors
    /// [`DataError::Setting`] for a field outside its limit.
    pub fn new(config: PackConfig) -> Result<Self, DataError> {
        config.validate()?;
        let waiting = VecDeque::with_capacity(config.lookahead);
        let rule = Arc::new(FirstFit);
        Ok(Self { config, rule, waiting, truncated_documents: 0, truncated_tokens: 0 })
    }

    /// Lets another rule than [`FirstFit`] choose.
    pub fn with_rule(mut self, rule: Arc<dyn PackingRule>) -> Self {
        self.rule = rule;
        self
    }

    /// What chooses.
    pub fn rule(&self) -> &Arc<dyn PackingRule> {
        &self.rule
    }

    /// The shape of its sequences.
    pub fn config(&self) -> &PackConfig {
        &self.config
    }

    /// The next sequence. `next` gives documents, with their numbers, as long as it is asked.
    ///
    /// # Errors
    /// The error of `next`.
    pub fn pack<E>(
        &mut self,
        mut next: impl FnMut() -> Result<(u64, TokenizedDocument), E>,
    ) -> Result<PackedMicrobatch, E> {
        let mut packed = PackedMicrobatch::with_room(&self.config);
        let mut chosen = Vec::new();
        loop {
            while self.waiting.len() < self.config.lookahead {
                let (number, document) = next()?;
                self.wait(number, document);
            }
            if !self.add_next(&mut packed, &mut chosen) {
                break;
            }
        }
        packed.pad(&self.config);
        Ok(packed)
    }

    /// The next sequence from the documents that wait, without asking for more.
    pub fn pack_waiting(&mut self) -> PackedMicrobatch {
        let mut packed = PackedMicrobatch::with_room(&self.config);
        let mut chosen = Vec::new();
        while self.add_next(&mut packed, &mut chosen) {}
        packed.pad(&self.config);
        packed
    }

    /// Adds the next document behind those `chosen`; false where there is none.
    fn add_next(&mut self, packed: &mut PackedMicrobatch, chosen: &mut Vec<Fitting>) -> bool {
        let room = packed.room(&self.config);
        let (places, fitting): (Vec<usize>, Vec<Fitting>) = self
            .waiting
            .iter()
            .enumerate()
            .map(|(place, (number, d))| {
                let (tokens, images) = (d.tokens.len() as u32, d.pictures.len() as u32);
                (place, Fitting { number: *number, tokens, images })
            })
            .filter(|(_, d)| d.tokens <= room.tokens && d.images <= room.images)
            .unzip();
        let next = match (fitting.is_empty(), chosen.is_empty()) {
            (true, _) => None,
            (false, true) => Some(0),
            (false, false) => self.rule.next(chosen, room, &fitting),
        };
        let Some(next) = next.filter(|&i| i < places.len()) else { return false };
        let Some((_, document)) = self.waiting.remove(places[next]) else { return false };
        chosen.push(fitting[next]);
        packed.append(document, &self.config);
        true
    }

    /// Documents taken in so far that still wait, by number, oldest first.
    pub fn waiting(&self) -> impl Iterator<Item = u64> {
        self.waiting.iter().map(|&(number, _)| number)
    }

    /// Takes in a document, cut to the sequence. One with nothing left to train on is left out.
    pub fn wait(&mut self, number: u64, mut document: TokenizedDocument) {
        let PackConfig { sequence_tokens, max_images, tokens_per_image, image, .. } = self.config;
        let before = document.tokens.len();
        if document.truncate(sequence_tokens, max_images, tokens_per_image) {
            self.truncated_documents += 1;
            self.truncated_tokens += (before - document.tokens.len()) as u64;
        }
        if document.tokens.iter().skip(1).any(|&t| t != image) {
            self.waiting.push_back((number, document));
        }
    }

    /// Whether anything to train on is left of a document that is cut to the sequence.
    pub fn keeps(&self, document: &TokenizedDocument) -> bool {
        let PackConfig { sequence_tokens, max_images, tokens_per_image, image, .. } = self.config;
        let end = document.kept_tokens(sequence_tokens, max_images, tokens_per_image);
        document.tokens[..end].iter().skip(1).any(|&t| t != image)
    }
}

#[cfg(test)]
mod tests;
