//! An endless supply of documents about drawn melodies, alone or beside drawn scenes.
//!
//! A document has no sound (a sum of shapes in words), one, or several, each followed by its caption. Beside scenes, every picture
//! and every sound of a document is followed by its caption. So batches vary in both.

mod note;

use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::scenes::{Scene, listed, sums};
use super::shape::DataSplit;
use crate::data::document::Document;
use crate::data::error::DataError;
use crate::data::picture::Picture;
use crate::data::piece::DocumentPiece;
use crate::data::sound::{Recording, SAMPLE_RATE};
use crate::data::source::{DataSource, SourcePosition};
pub use note::{Note, Pitch, Tone};

/// Most notes of one melody.
const MAX_NOTES: usize = 3;
/// One combination of several notes in this many is held out.
const HELD_OUT_ONE_IN: u64 = 8;
/// Silence after every note.
const PAUSE_S: f64 = 0.03;
/// Largest value of the noise under a melody.
const NOISE: f32 = 0.003;

/// A few notes, one after another.
#[derive(Debug, Clone, PartialEq)]
pub struct Melody {
    /// The notes, in order.
    pub notes: Vec<Note>,
}

/// The settings of [`Melodies`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MelodiesConfig {
    /// Seed of all documents.
    pub seed: u64,
    /// The drawn combinations of notes and of shapes.
    pub split: DataSplit,
    /// True if documents also have pictures of [`Scene`]s.
    pub scenes: bool,
}

/// A [`DataSource`] of drawn documents with sounds.
#[derive(Debug, Clone)]
pub struct Melodies {
    config: MelodiesConfig,
    next: u64,
}

impl Melody {
    /// A random melody of one to three notes of a split.
    pub fn random(rng: &mut impl Rng, split: DataSplit) -> Self {
        loop {
            let fewest = if split == DataSplit::HeldOut { 2 } else { 1 };
            let count = rng.random_range(fewest..=MAX_NOTES);
            let melody = Self { notes: (0..count).map(|_| Note::random(rng)).collect() };
            if melody.split() == split {
                return melody;
            }
        }
    }

    /// The split of its combination of notes.
    pub fn split(&self) -> DataSplit {
        let code = self.notes.iter().fold(0u64, |code, note| {
            code * 32 + (note.pitch as u64) * Tone::ALL.len() as u64 + note.tone as u64 + 1
        });
        // A multiplicative hash spreads similar combinations.
        let spread = code.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let held_out = self.notes.len() > 1 && spread.is_multiple_of(HELD_OUT_ONE_IN);
        if held_out { DataSplit::HeldOut } else { DataSplit::Train }
    }

    /// Its caption, in the order of the notes: `a low hum, a high buzz and a deep ping`.
    pub fn caption(&self) -> String {
        let named = |note: &Note| format!("a {} {}", note.pitch.name(), note.tone.name());
        listed(self.notes.iter().map(named).collect())
    }

    /// Its sound, with faint noise.
    pub fn recording(&self, rng: &mut impl Rng) -> Recording {
        let pause = (PAUSE_S * f64::from(SAMPLE_RATE)) as usize;
        let note = |note: &Note| note.samples().chain(std::iter::repeat_n(0.0, pause)).collect();
        let clean = self.notes.iter().flat_map(|n| -> Vec<f32> { note(n) });
        let samples: Vec<f32> = clean.map(|x| x + rng.random_range(-NOISE..NOISE)).collect();
        Recording::Samples(samples.into())
    }
}

impl Melodies {
    /// A source that begins at the first document.
    pub fn new(config: MelodiesConfig) -> Self {
        Self { config, next: 0 }
    }

    /// Document `n` of this seed.
    pub fn document(&self, n: u64) -> Document {
        let MelodiesConfig { seed, split, scenes } = self.config;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(2 * n + u64::from(split == DataSplit::HeldOut));
        let count = match rng.random_range(0..10) {
            0..2 => 0,
            2..6 => 1,
            6..9 => rng.random_range(2..4),
            _ => rng.random_range(4..7),
        };
        if count == 0 {
            return Document::Plain(vec![DocumentPiece::Text(sums(&mut rng))]);
        }
        let pieces = (0..count).flat_map(|_| {
            let (piece, caption) = match scenes && rng.random_bool(0.5) {
                true => {
                    let scene = Scene::random(&mut rng, split);
                    let caption = scene.caption();
                    (DocumentPiece::Picture(Picture::Drawn(Arc::new(scene))), caption)
                }
                false => {
                    let melody = Melody::random(&mut rng, split);
                    (DocumentPiece::Sound(melody.recording(&mut rng)), melody.caption())
                }
            };
            [piece, DocumentPiece::Text(format!("{caption}."))]
        });
        Document::Plain(pieces.collect())
    }
}

impl DataSource for Melodies {
    fn next_document(&mut self) -> Result<Document, DataError> {
        let document = self.document(self.next);
        self.next += 1;
        Ok(document)
    }

    fn position(&self) -> SourcePosition {
        SourcePosition::new(&MelodiesPosition { melodies: self.next, seed: self.config.seed })
    }

    fn restore(&mut self, position: &SourcePosition) -> Result<(), DataError> {
        let MelodiesPosition { melodies, seed } = position.get()?;
        if seed != self.config.seed {
            return Err(DataError::position("it belongs to another seed"));
        }
        self.next = melodies;
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MelodiesPosition {
    melodies: u64,
    seed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::toy::match_caption;

    fn melodies(scenes: bool) -> Melodies {
        Melodies::new(MelodiesConfig { seed: 7, split: DataSplit::Train, scenes })
    }

    #[test]
    fn documents_have_sounds_and_if_asked_pictures() {
        let with_pictures = |scenes: bool| {
            let documents = (0..100).map(|n| melodies(scenes).document(n));
            documents.filter(|document| document.pictures().next().is_some()).count()
        };
        assert_eq!(with_pictures(false), 0);
        assert!((20..80).contains(&with_pictures(true)));
        let sounds = |n| melodies(true).document(n).sounds().count();
        assert!((0..100).any(|n| sounds(n) > 1));
    }

    #[test]
    fn held_out_melodies_are_never_trained_on_and_captions_name_their_notes() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for split in [DataSplit::Train, DataSplit::HeldOut] {
            for _ in 0..200 {
                let melody = Melody::random(&mut rng, split);
                assert_eq!(melody.split(), split);
                let caption = format!("{}.", melody.caption());
                assert!(match_caption(&caption, &caption).unwrap().all(), "{caption}");
            }
        }
    }

    #[test]
    fn a_restored_source_continues_where_it_stood() {
        let mut source = melodies(true);
        (0..5).for_each(|_| drop(source.next_document()));
        let position = source.position();
        let expected = source.next_document().unwrap();
        let mut again = melodies(true);
        again.restore(&position).unwrap();
        assert_eq!(again.next_document().unwrap(), expected);
    }
}
