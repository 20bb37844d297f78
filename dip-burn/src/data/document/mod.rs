//! Documents: text, pictures and sounds in order, and their tokens.

mod text;
mod tokens;

use std::ops::Range;

pub use tokens::{PlacedPicture, PlacedSound, TokenizedDocument};

use super::conversation::{Conversation, Turn};
use super::picture::Picture;
use super::sound::Recording;

/// Placeholder of a picture in a text.
pub const IMAGE_MARK: &str = "<image>";

/// Placeholder of a sound in a text.
pub const AUDIO_MARK: &str = "<audio>";

/// Text, pictures and sounds, in reading order.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    /// Text, pictures and sounds without speakers; all text has a loss.
    Plain(Vec<DocumentPiece>),
    /// The turns of a conversation; only the assistant's have a loss.
    Conversation(Conversation),
}

/// A piece of a document.
#[derive(Debug, Clone, PartialEq)]
pub enum DocumentPiece {
    /// Text without marks.
    Text(String),
    /// A picture, not yet decoded.
    Picture(Picture),
    /// A sound, not yet decoded.
    Sound(Recording),
}

/// What a mark in a text stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MarkKind {
    Picture,
    Sound,
}

/// The marks in a text, in order.
pub(super) fn marks(text: &str) -> Vec<(Range<usize>, MarkKind)> {
    let of = |mark: &'static str, kind| {
        text.match_indices(mark).map(move |(at, _)| (at..at + mark.len(), kind))
    };
    let mut marks: Vec<_> =
        of(IMAGE_MARK, MarkKind::Picture).chain(of(AUDIO_MARK, MarkKind::Sound)).collect();
    marks.sort_by_key(|(range, _)| range.start);
    marks
}

impl Document {
    /// Replaces each mark in `text` by a picture or a sound. A text without marks of one kind gets its pictures or sounds in front.
    /// `None` if the numbers of marks and of pictures or sounds differ. Without sounds, [`AUDIO_MARK`] is text.
    pub fn interleave(text: &str, pictures: Vec<Picture>, sounds: Vec<Recording>) -> Option<Self> {
        let mut marks = marks(text);
        if sounds.is_empty() {
            marks.retain(|(_, kind)| *kind == MarkKind::Picture);
        }
        let shown = |kind| marks.iter().filter(|(_, of)| *of == kind).count();
        let (of_pictures, of_sounds) = (shown(MarkKind::Picture), shown(MarkKind::Sound));
        let fits = |marks: usize, count: usize| marks == 0 || marks == count;
        if !fits(of_pictures, pictures.len()) || !fits(of_sounds, sounds.len()) {
            return None;
        }
        let mut pieces = Vec::with_capacity(2 * (pictures.len() + sounds.len()) + 1);
        let mut pictures = pictures.into_iter().map(DocumentPiece::Picture);
        let mut sounds = sounds.into_iter().map(DocumentPiece::Sound);
        if of_pictures == 0 {
            pieces.extend(&mut pictures);
        }
        if of_sounds == 0 {
            pieces.extend(&mut sounds);
        }
        let piece = |text: &str| (!text.is_empty()).then(|| DocumentPiece::Text(text.to_owned()));
        let mut start = 0;
        for (range, kind) in marks {
            pieces.extend(piece(&text[start..range.start]));
            pieces.extend(match kind {
                MarkKind::Picture => pictures.next(),
                MarkKind::Sound => sounds.next(),
            });
            start = range.end;
        }
        pieces.extend(piece(&text[start..]));
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

    /// The text with a mark for each picture and sound.
    pub fn marked_text(&self) -> String {
        let mark = |piece: &DocumentPiece| match piece {
            DocumentPiece::Text(text) => text.clone(),
            DocumentPiece::Picture(_) => IMAGE_MARK.to_owned(),
            DocumentPiece::Sound(_) => AUDIO_MARK.to_owned(),
        };
        self.pieces().map(mark).collect()
    }

    /// The pictures, in order.
    pub fn pictures(&self) -> impl Iterator<Item = &Picture> {
        self.pieces().filter_map(|piece| match piece {
            DocumentPiece::Picture(picture) => Some(picture),
            _ => None,
        })
    }

    /// The sounds, in order.
    pub fn sounds(&self) -> impl Iterator<Item = &Recording> {
        self.pieces().filter_map(|piece| match piece {
            DocumentPiece::Sound(sound) => Some(sound),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests;
