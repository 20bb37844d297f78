//! Documents: text, pictures, sounds and videos in order, and their tokens.

mod error;
mod room;
mod text;
mod tokens;

use std::ops::Range;

pub use error::DocumentError;
pub use room::Room;
pub use tokens::TokenizedDocument;

use super::conversation::{Conversation, Turn};
use super::error::DataError;
use super::picture::Picture;
use super::piece::DocumentPiece;
use super::sound::Recording;
use super::video::Video;

/// Placeholder of a picture in a text.
pub const IMAGE_MARK: &str = "<image>";

/// Placeholder of a sound in a text.
pub const AUDIO_MARK: &str = "<audio>";

/// Placeholder of a video in a text.
pub const VIDEO_MARK: &str = "<video>";

/// Text, pictures, sounds and videos, in reading order.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    /// Text, pictures, sounds and videos without speakers; all text has a loss.
    Plain(Vec<DocumentPiece>),
    /// The turns of a conversation; only the assistant's have a loss.
    Conversation(Conversation),
}

/// The pictures, videos and sounds of a text, each kind in the order of its marks.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DocumentMedia {
    /// Pictures, not yet decoded.
    pub pictures: Vec<Picture>,
    /// Videos, not yet decoded.
    pub videos: Vec<Video>,
    /// Sounds, not yet decoded.
    pub sounds: Vec<Recording>,
}

impl DocumentMedia {
    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.pictures.is_empty() && self.videos.is_empty() && self.sounds.is_empty()
    }
}

/// What a mark in a text stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MarkKind {
    Picture,
    Video,
    Sound,
}

/// The marks in a text, in order.
pub(super) fn marks(text: &str) -> Vec<(Range<usize>, MarkKind)> {
    let of = |mark: &'static str, kind| {
        text.match_indices(mark).map(move |(at, _)| (at..at + mark.len(), kind))
    };
    let mut marks: Vec<_> = of(IMAGE_MARK, MarkKind::Picture)
        .chain(of(VIDEO_MARK, MarkKind::Video))
        .chain(of(AUDIO_MARK, MarkKind::Sound))
        .collect();
    marks.sort_by_key(|(range, _)| range.start);
    marks
}

impl Document {
    /// Replaces each mark in `text` by a picture or a sound, as [`Document::interleave_media`] does.
    pub fn interleave(text: &str, pictures: Vec<Picture>, sounds: Vec<Recording>) -> Option<Self> {
        Self::interleave_media(text, DocumentMedia { pictures, sounds, ..DocumentMedia::default() })
    }

    /// Replaces each mark in `text` by a picture, video or sound. Without marks of a kind in the text, what is of this kind comes
    /// first. `None` if the number of marks of a kind differs from the number of pictures, videos or sounds. Without sounds,
    /// [`AUDIO_MARK`] is text.
    pub fn interleave_media(text: &str, media: DocumentMedia) -> Option<Self> {
        let DocumentMedia { pictures, videos, sounds } = media;
        let mut marks = marks(text);
        if sounds.is_empty() {
            marks.retain(|(_, kind)| *kind != MarkKind::Sound);
        }
        let mut pieces = Vec::with_capacity(marks.len() + pictures.len() + 1);
        let has_place = |kind, count: usize| {
            let marked = marks.iter().filter(|(_, of)| *of == kind).count();
            (marked == 0 || marked == count).then_some(marked > 0)
        };
        let pictures_have_places = has_place(MarkKind::Picture, pictures.len())?;
        let videos_have_places = has_place(MarkKind::Video, videos.len())?;
        let sounds_have_places = has_place(MarkKind::Sound, sounds.len())?;
        let mut pictures = pictures.into_iter().map(DocumentPiece::Picture);
        let mut videos = videos.into_iter().map(DocumentPiece::Video);
        let mut sounds = sounds.into_iter().map(DocumentPiece::Sound);
        if !pictures_have_places {
            pieces.extend(&mut pictures);
        }
        if !videos_have_places {
            pieces.extend(&mut videos);
        }
        if !sounds_have_places {
            pieces.extend(&mut sounds);
        }
        let piece = |text: &str| (!text.is_empty()).then(|| DocumentPiece::Text(text.to_owned()));
        let mut start = 0;
        for (range, kind) in marks {
            pieces.extend(piece(&text[start..range.start]));
            pieces.extend(match kind {
                MarkKind::Picture => pictures.next(),
                MarkKind::Video => videos.next(),
                MarkKind::Sound => sounds.next(),
            });
            start = range.end;
        }
        pieces.extend(piece(&text[start..]));
        Some(Self::Plain(pieces))
    }

    /// The same with the bytes of its pictures, videos and sounds in memory.
    ///
    /// # Errors
    /// [`DataError`] names a file that can no longer be read.
    pub(crate) fn loaded(mut self) -> Result<Self, DataError> {
        let (plain, turns): (&mut [DocumentPiece], &mut [Turn]) = match &mut self {
            Self::Plain(pieces) => (pieces, &mut []),
            Self::Conversation(conversation) => (&mut [], &mut conversation.turns),
        };
        for piece in plain.iter_mut().chain(turns.iter_mut().flat_map(|turn| &mut turn.pieces)) {
            match piece {
                DocumentPiece::Picture(picture) => *picture = picture.loaded()?,
                DocumentPiece::Video(video) => *video = video.loaded()?,
                DocumentPiece::Sound(sound) => *sound = sound.loaded()?,
                DocumentPiece::Text(_) => {}
            }
        }
        Ok(self)
    }

    /// The pieces, in reading order.
    pub fn pieces(&self) -> impl Iterator<Item = &DocumentPiece> {
        let (plain, turns): (&[DocumentPiece], &[Turn]) = match self {
            Self::Plain(pieces) => (pieces, &[]),
            Self::Conversation(conversation) => (&[], &conversation.turns),
        };
        plain.iter().chain(turns.iter().flat_map(|turn| &turn.pieces))
    }

    /// The text with a mark for each picture, sound and video.
    pub fn marked_text(&self) -> String {
        let mark = |piece: &DocumentPiece| match piece {
            DocumentPiece::Text(text) => text.clone(),
            DocumentPiece::Picture(_) => IMAGE_MARK.to_owned(),
            DocumentPiece::Sound(_) => AUDIO_MARK.to_owned(),
            DocumentPiece::Video(_) => VIDEO_MARK.to_owned(),
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

    /// The videos, in order.
    pub fn videos(&self) -> impl Iterator<Item = &Video> {
        self.pieces().filter_map(|piece| match piece {
            DocumentPiece::Video(video) => Some(video),
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
