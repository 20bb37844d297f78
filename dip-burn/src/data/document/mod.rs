//! Documents: text and pictures in order, and their tokens.

mod text;
mod tokens;

pub use tokens::{PlacedPicture, TokenizedDocument};

use super::conversation::{Conversation, Turn};
use super::picture::Picture;

/// Placeholder of a picture in a text.
pub const IMAGE_MARK: &str = "<image>";

/// Text and pictures, in reading order.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    /// Text and pictures without speakers; all text has a loss.
    Plain(Vec<DocumentPiece>),
    /// The turns of a conversation; only the assistant's have a loss.
    Conversation(Conversation),
}

/// A piece of a document.
#[derive(Debug, Clone, PartialEq)]
pub enum DocumentPiece {
    /// Text without image marks.
    Text(String),
    /// A picture, not yet decoded.
    Picture(Picture),
}

impl Document {
    /// Replaces each mark in `text` by a picture. A text without marks gets its pictures in front. `None` if the numbers of
    /// marks and pictures differ.
    pub fn interleave(text: &str, pictures: Vec<Picture>) -> Option<Self> {
        let marks = text.matches(IMAGE_MARK).count();
        if marks != 0 && marks != pictures.len() {
            return None;
        }
        let mut pieces = Vec::with_capacity(2 * pictures.len() + 1);
        let mut pictures = pictures.into_iter().map(DocumentPiece::Picture);
        if marks == 0 {
            pieces.extend(&mut pictures);
        }
        for (i, part) in text.split(IMAGE_MARK).enumerate() {
            if i > 0 {
                pieces.extend(pictures.next());
            }
            if !part.is_empty() {
                pieces.push(DocumentPiece::Text(part.to_owned()));
            }
        }
        Some(Self::Plain(pieces))
    }

    /// The pieces, in reading order.
    pub fn pieces(&self) -> impl Iterator<Item = &DocumentPiece> {
        let (plain, turns): (&[DocumentPiece], &[Turn]) = match self {
            Self::Plain(pieces) => (pieces, &[]),
            Self::Conversation(conversation) => (&[], &conversation.turns),
        };
        plain.iter().chain(turns.iter().flat_map(|turn| &turn.pieces))
    }

    /// The text with a mark for each picture.
    pub fn marked_text(&self) -> String {
        let mark = |piece: &DocumentPiece| match piece {
            DocumentPiece::Text(text) => text.clone(),
            DocumentPiece::Picture(_) => IMAGE_MARK.to_owned(),
        };
        self.pieces().map(mark).collect()
    }

    /// The pictures, in order.
    pub fn pictures(&self) -> impl Iterator<Item = &Picture> {
        self.pieces().filter_map(|piece| match piece {
            DocumentPiece::Picture(picture) => Some(picture),
            DocumentPiece::Text(_) => None,
        })
    }
}

#[cfg(test)]
mod tests;
