//! Documents as token ids.

use super::{Document, DocumentError, Room};
use crate::batch::{ImageLayout, PromptPiece};
use crate::data::chat::ChatError;
use crate::data::marked::{MarkedText, SpannedToken};
use crate::data::media::MediaProcessor;
use crate::data::placed::{PlacedPicture, PlacedSound};
use crate::data::sound::Recording;
use crate::data::tokenizer::{SpecialTokens, Tokenizer};
use crate::data::visual::Visual;

/// A document as token ids.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TokenizedDocument {
    /// Token ids; every picture is a run of image tokens, every video of video tokens, every sound of sound tokens.
    pub tokens: Vec<u32>,
    /// True if the model learns to produce the token, `[tokens]`: all text of a plain document and its end mark, and what the
    /// assistant says in a conversation with the token that ends its turn. Never true for image, video and sound tokens.
    pub trained: Vec<bool>,
    /// The pictures and videos, in order.
    pub pictures: Vec<PlacedPicture>,
    /// The sounds, in order.
    pub sounds: Vec<PlacedSound>,
}

impl Document {
    /// The tokens of the document. Each picture takes as many image tokens as its layout says, a video as many video tokens, and a
    /// sound as many sound tokens as its length says; without a processor for them they take none. Sounds are decoded here.
    ///
    /// A plain document has the tokens with which the tokenizer begins and ends texts. A conversation is written by the chat template
    /// of the model; without a template it begins in the same way, and every turn is a line such as `USER: a question`, with the end
    /// token after what the assistant says.
    ///
    /// # Errors
    /// [`DocumentError`] if the tokenizer or the chat template refuses a text, or a picture, sound or video is broken.
    pub fn tokenize(
        &self,
        tokenizer: &Tokenizer,
        media: &MediaProcessor,
    ) -> Result<TokenizedDocument, DocumentError> {
        TokenizedDocument::of(&self.text(tokenizer)?, self, tokenizer, media)
    }

    /// Like [`Document::tokenize`], but without the end mark: a prompt to continue. After the last turn of a conversation the
    /// assistant speaks.
    ///
    /// # Errors
    /// [`DocumentError`] if the tokenizer or the chat template refuses a text.
    pub fn tokenize_open(
        &self,
        tokenizer: &Tokenizer,
        media: &MediaProcessor,
    ) -> Result<TokenizedDocument, DocumentError> {
        TokenizedDocument::of(&self.prompt(tokenizer)?, self, tokenizer, media)
    }
}

impl TokenizedDocument {
    /// The tokens of the text of a document.
    fn of(
        text: &MarkedText,
        document: &Document,
        tokenizer: &Tokenizer,
        media: &MediaProcessor,
    ) -> Result<Self, DocumentError> {
        let SpecialTokens { image, video, sound, .. } = tokenizer.special();
        let mut out = Self::default();
        let (number, videos) = (document.pictures().count(), document.videos().count());
        let mut pictures = document.pictures().cloned().map(Visual::Picture);
        let mut clips = document.videos().cloned().map(Visual::Video);
        let mut sounds = document.sounds();
        let layout = |visual: &Visual| match &media.images {
            Some(images) => images.layout_of_visual(visual, number),
            None => Ok(ImageLayout::default()),
        };
        let mut trained = text.trained.iter().peekable();
        let (mut shown, mut played, mut heard) = (0, 0, 0);
        for SpannedToken { id, span } in tokenizer.encode_marked(text)? {
            while trained.next_if(|range| range.end <= span.start).is_some() {}
            let is_trained = trained.peek().is_some_and(|range| range.start < span.end);
            if id == image {
                shown += 1;
                if let Some(picture) = pictures.next() {
                    let layout = layout(&picture)?;
                    out.place(picture, layout, id, tokenizer)?;
                }
            } else if Some(id) == video {
                played += 1;
                if let Some(clip) = clips.next() {
                    let layout = layout(&clip)?;
                    out.place(clip, layout, id, tokenizer)?;
                }
            } else if id == sound {
                heard += 1;
                if let Some(recording) = sounds.next() {
                    out.sound(sound, recording, media)?;
                }
            } else {
                out.push(id, is_trained);
            }
        }
        let sounds = document.sounds().count();
        if heard != sounds {
            return Err(ChatError::Sounds { heard, sounds }.into());
        }
        if played != videos {
            return Err(ChatError::Videos { shown: played, videos }.into());
        }
        if shown != number {
            return Err(ChatError::Pictures { shown, pictures: number }.into());
        }
        Ok(out)
    }

    /// Appends a picture or video: its tokens `id`, and text around them if it is split.
    fn place(
        &mut self,
        visual: Visual,
        layout: ImageLayout,
        id: u32,
        tokenizer: &Tokenizer,
    ) -> Result<(), DocumentError> {
        let mut first = None;
        for piece in layout.prompt() {
            match piece {
                PromptPiece::Text(text) => {
                    let mut marked = MarkedText::default();
                    marked.push_control(&text);
                    let tokens = tokenizer.encode_marked(&marked)?;
                    self.extend(tokens.into_iter().map(|token| token.id), false);
                }
                PromptPiece::Image(tokens) => {
                    first.get_or_insert(self.tokens.len() as u32);
                    self.extend(std::iter::repeat_n(id, tokens as usize), false);
                }
            }
        }
        let offset = first.unwrap_or(self.tokens.len() as u32);
        self.pictures.push(PlacedPicture { offset, visual, layout });
        Ok(())
    }

    fn sound(
        &mut self,
        token: u32,
        recording: &Recording,
        media: &MediaProcessor,
    ) -> Result<(), DocumentError> {
        let Some(rule) = media.sounds else { return Ok(()) };
        let waveform = rule.waveform(recording)?;
        let (offset, tokens) = (self.tokens.len() as u32, waveform.tokens as usize);
        self.sounds.push(PlacedSound { offset, waveform });
        self.extend(std::iter::repeat_n(token, tokens), false);
        Ok(())
    }

    /// Appends a token.
    pub fn push(&mut self, token: u32, trained: bool) {
        self.extend([token], trained);
    }

    /// Appends tokens that all have a loss, or none.
    pub fn extend(&mut self, tokens: impl IntoIterator<Item = u32>, trained: bool) {
        self.tokens.extend(tokens);
        self.trained.resize(self.tokens.len(), trained);
    }

    /// True if the first `tokens` tokens have one with a loss. The first token of a document is never predicted.
    pub fn trains_within(&self, tokens: usize) -> bool {
        self.trained.iter().take(tokens).skip(1).any(|&trained| trained)
    }

    /// Cuts the document to the room of a sequence, and returns true if it was longer. A cut never divides an image or
    /// a sound: the first that does not fit is left out with all that follows.
    pub fn truncate(&mut self, room: Room) -> bool {
        let end = self.kept_tokens(room);
        let cut = self.tokens.len() > end;
        self.pictures.retain(|placed| (placed.offset as usize) < end);
        self.sounds.retain(|placed| (placed.offset as usize) < end);
        self.tokens.truncate(end);
        self.trained.truncate(end);
        cut
    }

    /// The offset after the last image token of a picture. Between the tokens of a split picture there is text.
    fn end_of(&self, placed: &PlacedPicture) -> usize {
        let start = (placed.offset as usize).min(self.tokens.len());
        let Some(last) = (placed.layout.tokens as usize).checked_sub(1) else { return start };
        let tokens = &self.tokens[start..];
        let mut image_tokens = (0..tokens.len()).filter(|&i| tokens[i] == tokens[0]);
        start + image_tokens.nth(last).map_or(tokens.len(), |last| last + 1)
    }

    /// The length that [`TokenizedDocument::truncate`] leaves.
    pub fn kept_tokens(&self, room: Room) -> usize {
        let Room { tokens, images, patches } = room;
        let mut used = 0u64;
        let mut fits = |placed: &PlacedPicture| {
            used = used.saturating_add(placed.layout.patches());
            self.end_of(placed) <= tokens as usize && used <= patches
        };
        let mut pictures = self.pictures.iter().enumerate();
        let picture = pictures.find(|(i, placed)| *i >= images as usize || !fits(placed));
        let heard = |placed: &PlacedSound| placed.offset.saturating_add(placed.waveform.tokens);
        let sound = self.sounds.iter().find(|placed| heard(placed) > tokens);
        let left_out =
            [picture.map(|(_, placed)| placed.offset), sound.map(|placed| placed.offset)];
        let end = left_out.into_iter().flatten().fold(tokens, u32::min);
        self.tokens.len().min(end as usize)
    }
}
