//! The start of a text that a model continues.

use super::{Image, Microbatch, Sound, next_position};

/// The start of a caption.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// Tokens, image tokens included.
    pub tokens: Vec<u32>,
    /// The position of each token as time, row and column.
    pub positions: Vec<[u32; 3]>,
    /// Images.
    pub images: Vec<Image>,
    /// The offset of the tokens of each image.
    pub image_offsets: Vec<u32>,
    /// Sounds.
    pub sounds: Vec<Sound>,
}

impl Prompt {
    /// Prompts as one packed sequence: prompt `i` is document `i`.
    pub fn packed<'a>(prompts: impl IntoIterator<Item = &'a Self>) -> Microbatch {
        let mut m = Microbatch::default();
        for (document, prompt) in (0..).zip(prompts) {
            let start = m.tokens.len() as u32;
            m.documents.resize(m.documents.len() + prompt.tokens.len(), document);
            m.tokens.extend(&prompt.tokens);
            m.positions.extend(&prompt.positions);
            m.images.extend(prompt.images.iter().cloned());
            m.image_offsets.extend(prompt.image_offsets.iter().map(|offset| start + offset));
            let sound = |sound: &Sound| Sound { offset: start + sound.offset, ..sound.clone() };
            m.sounds.extend(prompt.sounds.iter().map(sound));
        }
        m
    }

    /// The position of the token after it.
    pub fn next_position(&self) -> u32 {
        next_position(&self.positions)
    }
}
