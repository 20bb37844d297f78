//! Token ids of text: a Hugging Face `tokenizer.json`, or the built-in bytes.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::{BoxError, DataError, TokenizeError};

/// Largest `tokenizer.json` that is read, in bytes.
const MAX_FILE_BYTES: u64 = 256 << 20;
const BYTES: u32 = 256;

/// Names that a special token may have in a `tokenizer.json`; the first one found counts.
const PAD: &[&str] = &["<pad>", "<|pad|>", "[PAD]", "<|finetune_right_pad_id|>", "<|endoftext|>"];
const BOS: &[&str] = &[
    "<s>",
    "<bos>",
    "<|begin_of_text|>",
    "<|startoftext|>",
    "[CLS]",
    "<|im_start|>",
    "<|endoftext|>",
];
const EOS: &[&str] = &["</s>", "<eos>", "<|end_of_text|>", "[SEP]", "<|im_end|>", "<|endoftext|>"];
const IMAGE: &[&str] = &["<image>", "<|image_pad|>", "<|image|>", "<image_soft_token>", "[IMG]"];

/// Ids that do not stand for text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Fills the rest of a sequence.
    pub pad: u32,
    /// Begins a document.
    pub bos: u32,
    /// Ends a document.
    pub eos: u32,
    /// Stands for a part of an image.
    pub image: u32,
}

impl SpecialTokens {
    /// True if `id` is one of these.
    pub fn contains(&self, id: u32) -> bool {
        [self.pad, self.bos, self.eos, self.image].contains(&id)
    }
}

/// Converts text to token ids and back.
#[derive(Debug, Clone)]
pub enum Tokenizer {
    /// One token per byte, then pad, bos, eos and image: 260 tokens.
    Bytes,
    /// A Hugging Face tokenizer.
    HuggingFace(Box<HuggingFace>),
}

/// A tokenizer read from a `tokenizer.json`.
#[derive(Debug, Clone)]
pub struct HuggingFace {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
    special: SpecialTokens,
    text_vocab: u32,
}

impl Tokenizer {
    /// The built-in byte-level tokenizer.
    pub const fn bytes() -> Self {
        Self::Bytes
    }

    /// Reads a Hugging Face `tokenizer.json`.
    ///
    /// Only tokens that the file marks as special begin, end or pad a document, never ordinary words that read like one. Without a
    /// token for the beginning or for padding, the end token serves. An end token or image token that the file lacks gets an id
    /// after the vocabulary.
    ///
    /// # Errors
    /// [`DataError`] names the file.
    pub fn from_file(path: &Path) -> Result<Self, DataError> {
        let io = |source| DataError::Io { path: path.to_owned(), source };
        let wrong = |source: BoxError| DataError::Tokenizer { path: path.to_owned(), source };
        let length = fs::metadata(path).map_err(io)?.len();
        if length > MAX_FILE_BYTES {
            let limit = format!("it has {length} bytes, but at most {MAX_FILE_BYTES} are read");
            return Err(wrong(limit.into()));
        }
        let text = fs::read(path).map_err(io)?;
        let mut inner = tokenizers::Tokenizer::from_bytes(&text).map_err(wrong)?;
        // Text that happens to read like a special token is text.
        inner.set_encode_special_tokens(true);
        inner.with_truncation(None).map_err(wrong)?;
        inner.with_padding(None);
        let highest = inner.get_vocab(true).values().copied().max();
        let highest = highest.ok_or_else(|| wrong("its vocabulary is empty".into()))?;
        // Room for an end token and an image token.
        if highest > u32::MAX - 3 {
            return Err(wrong("its ids are too large".into()));
        }
        let (special, text_vocab) = special_tokens(&inner, highest + 1);
        let path = path.to_owned();
        Ok(Self::HuggingFace(Box::new(HuggingFace { inner, path, special, text_vocab })))
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

    /// The special ids.
    pub fn special(&self) -> SpecialTokens {
        match self {
            Self::Bytes => {
                SpecialTokens { pad: BYTES, bos: BYTES + 1, eos: BYTES + 2, image: BYTES + 3 }
            }
            Self::HuggingFace(t) => t.special,
        }
    }

    /// Token ids of a text, none of them special.
    ///
    /// # Errors
    /// [`TokenizeError`] if a Hugging Face tokenizer refuses the text; bytes never fail.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizeError> {
        match self {
            Self::Bytes => Ok(text.bytes().map(u32::from).collect()),
            Self::HuggingFace(t) => {
                let encoding = t
                    .inner
                    .encode_fast(text, false)
                    .map_err(|source| TokenizeError { path: t.path.clone(), source })?;
                let ids = encoding.get_ids().iter().copied();
                Ok(ids.filter(|&id| !t.special.contains(id)).collect())
            }
        }
    }

    /// The text of token ids; special and unknown ones are left out.
    pub fn decode(&self, ids: &[u32]) -> String {
        match self {
            Self::Bytes => {
                let bytes: Vec<u8> = ids.iter().filter_map(|&id| u8::try_from(id).ok()).collect();
                String::from_utf8_lossy(&bytes).into_owned()
            }
            Self::HuggingFace(t) => {
                let known = |id: &&u32| **id < t.text_vocab && !t.special.contains(**id);
                let ids: Vec<u32> = ids.iter().filter(known).copied().collect();
                t.inner.decode(&ids, true).unwrap_or_default()
            }
        }
    }
}

/// The special tokens of a tokenizer whose ids are below `vocab`, and the vocabulary that text needs with them.
fn special_tokens(tokenizer: &tokenizers::Tokenizer, vocab: u32) -> (SpecialTokens, u32) {
    let added = tokenizer.get_added_tokens_decoder();
    let id = |name: &&str| added.iter().find(|(_, token)| token.content == *name);
    let special = |names: &[&str]| {
        names.iter().filter_map(id).find(|(_, token)| token.special).map(|(&id, _)| id)
    };
    let (eos, text_vocab) = match special(EOS) {
        Some(eos) => (eos, vocab),
        None => (vocab, vocab + 1),
    };
    // Some published tokenizers do not mark their image token as special.
    let image = IMAGE.iter().find_map(id).map_or(text_vocab, |(&id, _)| id);
    let (bos, pad) = (special(BOS).unwrap_or(eos), special(PAD).unwrap_or(eos));
    (SpecialTokens { pad, bos, eos, image }, text_vocab)
}

#[cfg(test)]
mod tests {
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
        assert_eq!((s.eos, s.image, s.pad, s.bos, t.vocab_size()), (3, 4, 3, 3, 5));
        assert_eq!(t.encode("a red").unwrap(), [0, 1]);
        assert!(t.encode("a <|image_pad|> </s>").unwrap().iter().all(|&id| !s.contains(id)));
        assert_eq!(t.decode(&[0, 1, s.eos, s.pad, 77]), "a red");
    }

    #[test]
    fn ordinary_words_that_read_like_special_tokens_are_text() {
        let t = from_text(&WORDS.replace("\"special\":true", "\"special\":false"));
        let s = t.special();
        assert_eq!((s.eos, s.bos, s.pad, t.text_vocab_size()), (5, 5, 5, 6));
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
