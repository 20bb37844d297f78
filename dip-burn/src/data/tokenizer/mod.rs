//! Token ids of text: a Hugging Face `tokenizer.json`, or the built-in bytes.
//!
//! Special tokens are tokens only where dip or a chat template puts them. A text of the data that reads like one is ordinary
//! text, so that data cannot end a turn or speak as the system.

mod files;
mod hugging_face;
mod special;

use std::path::Path;

use super::chat::ChatTemplate;
use super::error::{DataError, TokenizeError};
use super::marked::{Cut, CutKind, MarkedText, SpannedToken, TOKEN_MARK};

pub use hugging_face::HuggingFace;
pub use special::SpecialTokens;

const BYTES: u32 = 256;
/// Begins a document of bytes.
const BYTES_BOS: [u32; 1] = [BYTES + 1];

/// Converts text to token ids and back.
#[derive(Debug, Clone)]
pub enum Tokenizer {
    /// One token per byte, then pad, bos, eos and image: 260 tokens; one more, sound, for models that hear.
    Bytes,
    /// A Hugging Face tokenizer.
    HuggingFace(Box<HuggingFace>),
}

impl Tokenizer {
    /// The built-in byte-level tokenizer.
    pub const fn bytes() -> Self {
        Self::Bytes
    }

    /// Reads a Hugging Face `tokenizer.json`, or the one of a folder, and what the files beside it say about special tokens and
    /// the chat template: `tokenizer_config.json`, `special_tokens_map.json`, `generation_config.json`, `config.json`,
    /// `chat_template.jinja`, `chat_template.json` and `processor_config.json`.
    ///
    /// Special tokens are those that these files name. Without them, only tokens that `tokenizer.json` marks as special begin, end
    /// or pad a document, never ordinary words that read like one. Without a token for padding, the end token serves. An end token
    /// or image token that the file lacks gets an id after the vocabulary. Dropout of a BPE model is switched off.
    ///
    /// # Errors
    /// [`DataError`] names the file.
    pub fn from_file(path: &Path) -> Result<Self, DataError> {
        let inside = path.join("tokenizer.json");
        let path = if path.is_dir() { &inside } else { path };
        Ok(Self::HuggingFace(Box::new(HuggingFace::read(path)?)))
    }

    /// The vocabulary for a model of text only: every id except the image token is below it.
    pub fn text_vocab_size(&self) -> u32 {
        match self {
            Self::Bytes => BYTES + 4,
            Self::HuggingFace(t) => t.text_vocab,
        }
    }

    /// The vocabulary for a model of text and images: every id is below it.
    pub fn vocab_size(&self) -> u32 {
        self.text_vocab_size().max(self.special().image + 1)
    }

    /// The vocabulary for a model that also hears: every id is below it.
    pub fn vocab_size_with_sounds(&self) -> u32 {
        self.vocab_size().max(self.special().sound + 1)
    }

    /// The special ids.
    pub fn special(&self) -> SpecialTokens {
        match self {
            Self::Bytes => SpecialTokens {
                pad: BYTES,
                eos: BYTES + 2,
                image: BYTES + 3,
                video: None,
                sound: BYTES + 4,
            },
            Self::HuggingFace(t) => t.tokens,
        }
    }

    /// The tokens that begin a document, as the tokenizer adds them; often none.
    pub fn begin(&self) -> &[u32] {
        match self {
            Self::Bytes => &BYTES_BOS,
            Self::HuggingFace(t) => &t.affixes.before,
        }
    }

    /// The tokens that end a document: those that the tokenizer adds, otherwise the end token.
    pub fn end(&self) -> Vec<u32> {
        match self {
            Self::HuggingFace(t) if !t.affixes.after.is_empty() => t.affixes.after.clone(),
            _ => vec![self.special().eos],
        }
    }

    /// The chat template of the model, if it has one.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        match self {
            Self::Bytes => None,
            Self::HuggingFace(t) => t.chat.as_deref(),
        }
    }

    /// Token ids of a text, none of them special.
    ///
    /// # Errors
    /// [`TokenizeError`] if a Hugging Face tokenizer refuses the text; bytes never fail.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizeError> {
        let mut marked = MarkedText::default();
        self.append_text(&mut marked, text);
        Ok(self.encode_marked(&marked)?.into_iter().map(|token| token.id).collect())
    }

    /// The text of token ids; special and unknown ones are left out.
    pub fn decode(&self, ids: &[u32]) -> String {
        match self {
            Self::Bytes => {
                let bytes: Vec<u8> = ids.iter().filter_map(|&id| u8::try_from(id).ok()).collect();
                String::from_utf8_lossy(&bytes).into_owned()
            }
            Self::HuggingFace(t) => {
                let known = |id: &&u32| **id < t.text_vocab && !t.tokens.contains(**id);
                let ids: Vec<u32> = ids.iter().filter(known).copied().collect();
                t.decode(&ids)
            }
        }
    }

    /// The parts of a text that read like control tokens.
    pub(crate) fn control_texts(&self, text: &str) -> Vec<std::ops::Range<usize>> {
        match self {
            Self::Bytes => Vec::new(),
            Self::HuggingFace(t) => t.control_texts(text),
        }
    }

    /// Appends ordinary text.
    pub(crate) fn append_text(&self, marked: &mut MarkedText, text: &str) {
        marked.push_text(text, self.control_texts(text));
    }

    /// Appends a token.
    pub(crate) fn append_token(&self, marked: &mut MarkedText, id: u32) {
        match self.control_text(id) {
            Some(text) => marked.push_control(&text),
            None => marked.push_token(id),
        }
    }

    /// The text that stands for a picture in the control parts of a text, with the marks that the model expects around it. The
    /// tokens of the picture replace the image token in it.
    pub(crate) fn picture_text(&self) -> &str {
        match self {
            Self::HuggingFace(t) => &t.picture,
            // No text is the image token.
            Self::Bytes => TOKEN_MARK,
        }
    }

    /// The text that stands for a video, like [`picture_text`](Self::picture_text); `None` without a token for videos.
    pub(crate) fn video_text(&self) -> Option<&str> {
        match self {
            Self::HuggingFace(t) => t.video.as_deref(),
            Self::Bytes => None,
        }
    }

    /// Appends a picture.
    pub(crate) fn append_picture(&self, marked: &mut MarkedText) {
        match self.picture_text() {
            TOKEN_MARK => marked.push_token(self.special().image),
            text => marked.push_control(text),
        }
    }

    /// The text that stands for a sound, like [`picture_text`](Self::picture_text).
    pub(crate) fn sound_text(&self) -> &str {
        match self {
            Self::HuggingFace(t) => &t.sound,
            Self::Bytes => TOKEN_MARK,
        }
    }

    /// Appends a sound.
    pub(crate) fn append_sound(&self, marked: &mut MarkedText) {
        match self.sound_text() {
            TOKEN_MARK => marked.push_token(self.special().sound),
            text => marked.push_control(text),
        }
    }

    /// The text that is a token in the control parts of a text; `None` for a token without one.
    pub(crate) fn control_text(&self, id: u32) -> Option<String> {
        match self {
            Self::Bytes => None,
            Self::HuggingFace(t) => t.control_text(id),
        }
    }

    /// The tokens of a text with control tokens.
    ///
    /// # Errors
    /// [`TokenizeError`] if a Hugging Face tokenizer refuses the text.
    pub(crate) fn encode_marked(
        &self,
        marked: &MarkedText,
    ) -> Result<Vec<SpannedToken>, TokenizeError> {
        match self {
            Self::Bytes => Ok(byte_tokens(marked)),
            Self::HuggingFace(t) => t.encode(marked),
        }
    }
}

fn byte_tokens(marked: &MarkedText) -> Vec<SpannedToken> {
    let mut out = Vec::with_capacity(marked.text.len());
    let mut at = 0;
    let byte = |at: usize| SpannedToken { id: marked.text.as_bytes()[at].into(), span: at..at + 1 };
    for Cut { range, kind } in &marked.cuts {
        if let CutKind::Token(id) = *kind {
            out.extend((at..range.start).map(byte));
            out.push(SpannedToken { id, span: range.clone() });
            at = range.end;
        }
    }
    out.extend((at..marked.text.len()).map(byte));
    out
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const WORDS: &str = r#"{"version":"1.0","truncation":null,"padding":null,
        "added_tokens":[
          {"id":3,"content":"</s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},
          {"id":4,"content":"<|image_pad|>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],
        "normalizer":null,"pre_tokenizer":{"type":"Whitespace"},"post_processor":null,"decoder":null,
        "model":{"type":"WordLevel","vocab":{"a":0,"red":1,"?":2,"</s>":3},"unk_token":"?"}}"#;

    #[test]
    fn bytes_survive_a_round_trip() {
        let t = Tokenizer::bytes();
        let text = "a réd ○";
        assert_eq!(t.decode(&t.encode(text).unwrap()), text);
        assert_eq!(t.decode(&[104, t.special().eos, 105, 9999]), "hi");
        assert_eq!(t.vocab_size(), 260);
    }

    fn from_text(text: &str) -> Tokenizer {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        fs::write(&path, text).unwrap();
        Tokenizer::from_file(&path).unwrap()
    }

    #[test]
    fn the_end_token_stands_in_for_missing_ones() {
        let t = from_text(WORDS);
        let s = t.special();
        assert_eq!((s.eos, s.image, s.pad, t.begin(), t.vocab_size()), (3, 4, 3, &[][..], 5));
        assert_eq!(t.encode("a red").unwrap(), [0, 1]);
        assert!(t.encode("a <|image_pad|> </s>").unwrap().iter().all(|&id| !s.contains(id)));
        assert_eq!(t.decode(&[0, 1, s.eos, s.pad, 77]), "a red");
    }

    #[test]
    fn ordinary_words_that_read_like_special_tokens_are_text() {
        let t = from_text(&WORDS.replace("\"special\":true", "\"special\":false"));
        let s = t.special();
        assert_eq!((s.eos, s.pad, t.text_vocab_size()), (5, 5, 6));
    }

    #[test]
    fn text_needs_no_image_token() {
        let t = from_text(&WORDS.replace("<|image_pad|>", "<|other|>"));
        assert_eq!((t.special().image, t.text_vocab_size(), t.vocab_size()), (5, 5, 6));
    }

    #[test]
    fn errors_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        assert!(Tokenizer::from_file(&path).unwrap_err().to_string().contains("tokenizer.json"));
        fs::write(&path, "{}").unwrap();
        let error = Tokenizer::from_file(&path).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json") && error.contains("Hugging Face"), "{error}");
    }
}
