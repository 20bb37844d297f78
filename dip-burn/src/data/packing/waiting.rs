//! Documents that are short enough for a sequence.

use super::rule::Fitting;
use crate::data::document::TokenizedDocument;

/// A document before and after it is chosen for a sequence.
#[derive(Debug)]
pub(in crate::data) struct WaitingDocument {
    pub(super) size: Fitting,
    pub(super) document: TokenizedDocument,
}

impl WaitingDocument {
    /// A document under its number.
    pub fn new(number: u64, document: TokenizedDocument) -> Self {
        let size = Fitting {
            number,
            tokens: document.tokens.len() as u32,
            images: document.pictures.len() as u32,
            patches: document.pictures.iter().map(|placed| placed.layout.patches()).sum(),
        };
        Self { size, document }
    }

    /// Its tokens.
    pub fn tokens(&self) -> u64 {
        u64::from(self.size.tokens)
    }
}

/// What the documents of a sequence take together.
pub(super) fn used(sequence: &[WaitingDocument]) -> Fitting {
    sequence.iter().fold(Fitting::NOTHING, |sum, document| sum.with(document.size))
}
