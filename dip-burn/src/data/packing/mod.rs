//! Packs documents into sequences.

mod balance;
mod config;
mod microbatch;
mod rule;
mod waiting;

pub(super) use balance::balance;
pub use config::PackConfig;
pub use microbatch::PackedMicrobatch;
pub use rule::{BestFit, FirstFit, Fitting, PackingRule};
pub(super) use waiting::WaitingDocument;

use std::collections::VecDeque;
use std::sync::Arc;

use dip_core::FieldError;

use super::document::TokenizedDocument;

/// Packs documents with bounded lookahead.
///
/// The oldest waiting document opens a sequence. Then the rule chooses among the waiting documents that fit, until none of
/// `lookahead` documents fits or the rule closes the sequence. So no document waits for more than `lookahead` sequences.
#[derive(Debug)]
pub struct Packer {
    config: PackConfig,
    rule: Arc<dyn PackingRule>,
    waiting: VecDeque<WaitingDocument>,
    /// Documents that were truncated to fit.
    pub truncated_documents: u64,
    /// Tokens that truncation removed.
    pub truncated_tokens: u64,
}

impl Packer {
    /// An empty packer.
    ///
    /// # Errors
    /// [`FieldError`] for a setting outside its limit.
    pub fn new(config: PackConfig) -> Result<Self, FieldError> {
        config.validate()?;
        let waiting = VecDeque::with_capacity(config.lookahead);
        let rule = Arc::new(FirstFit);
        Ok(Self { config, rule, waiting, truncated_documents: 0, truncated_tokens: 0 })
    }

    /// Sets the rule that chooses documents; the default is [`FirstFit`].
    pub fn with_rule(mut self, rule: Arc<dyn PackingRule>) -> Self {
        self.rule = rule;
        self
    }

    /// The rule that chooses documents.
    pub fn rule(&self) -> &Arc<dyn PackingRule> {
        &self.rule
    }

    /// The next sequence. `next` returns the next document with its number.
    ///
    /// # Errors
    /// The error of `next`.
    pub fn pack<E>(
        &mut self,
        mut next: impl FnMut() -> Result<(u64, TokenizedDocument), E>,
    ) -> Result<PackedMicrobatch, E> {
        let chosen = self.choose(&mut next)?;
        Ok(self.packed(chosen))
    }

    /// Packs the next sequence from the waiting documents only, without reading more.
    pub fn pack_waiting(&mut self) -> PackedMicrobatch {
        let mut chosen = Vec::new();
        while self.choose_next(&mut chosen) {}
        self.packed(chosen)
    }

    /// The documents of the next sequence.
    ///
    /// # Errors
    /// The error of `next`.
    pub(in crate::data) fn choose<E>(
        &mut self,
        next: &mut dyn FnMut() -> Result<(u64, TokenizedDocument), E>,
    ) -> Result<Vec<WaitingDocument>, E> {
        let mut chosen = Vec::new();
        loop {
            while self.waiting.len() < self.config.lookahead {
                let (number, document) = next()?;
                self.wait(number, document);
            }
            if !self.choose_next(&mut chosen) {
                return Ok(chosen);
            }
        }
    }

    /// The sequence of some documents that have room in it.
    pub(in crate::data) fn packed(&self, documents: Vec<WaitingDocument>) -> PackedMicrobatch {
        let mut packed = PackedMicrobatch::empty(&self.config);
        for WaitingDocument { document, .. } in documents {
            packed.append(document, &self.config);
        }
        packed.pad(&self.config);
        packed
    }

    /// Adds the next document to the `chosen` ones; false if there is none.
    fn choose_next(&mut self, chosen: &mut Vec<WaitingDocument>) -> bool {
        let room = self.config.room().without(waiting::used(chosen));
        let waiting = self.waiting.iter().map(|waiting| waiting.size).enumerate();
        let (places, fitting): (Vec<usize>, Vec<Fitting>) =
            waiting.filter(|(_, size)| size.fits(room)).unzip();
        let sizes: Vec<Fitting> = chosen.iter().map(|document| document.size).collect();
        let next = match (fitting.is_empty(), chosen.is_empty()) {
            (true, _) => None,
            (false, true) => Some(0),
            (false, false) => self.rule.next(&sizes, room, &fitting),
        };
        let place = next.and_then(|i| places.get(i).copied());
        let Some(next) = place.and_then(|place| self.waiting.remove(place)) else { return false };
        chosen.push(next);
        true
    }

    /// Numbers of the waiting documents, oldest first.
    pub fn waiting(&self) -> impl Iterator<Item = u64> {
        self.waiting.iter().map(|waiting| waiting.size.number)
    }

    /// Truncates a document to the length of a sequence and adds it to the waiting documents. A document without text to train on
    /// is left out.
    pub fn wait(&mut self, number: u64, mut document: TokenizedDocument) {
        let before = document.tokens.len();
        if document.truncate(self.config.room()) {
            self.truncated_documents += 1;
            self.truncated_tokens += (before - document.tokens.len()) as u64;
        }
        if document.trains_within(document.tokens.len()) {
            self.waiting.push_back(WaitingDocument::new(number, document));
        }
    }

    /// True if the document, truncated to the length of a sequence, has text to train on.
    pub fn keeps(&self, document: &TokenizedDocument) -> bool {
        document.trains_within(document.kept_tokens(self.config.room()))
    }
}

#[cfg(test)]
mod tests;
