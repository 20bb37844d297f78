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
    /// One token a byte, then pad, bos, eos and image: 260 tokens.
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
    vocab: u32,
}

impl Tokenizer {
    /// The built-in byte-level tokenizer.
    pub const fn bytes() -> Self {
        Self::Bytes
    }

    /// Reads a Hugging Face `tokenizer.json`. A special token that the file lacks gets an id after its vocabulary, see
    /// [`Tokenizer::vocab_size`].
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
        let mut vocab = highest.ok_or_else(|| wrong("its vocabulary is empty".into()))?;
        vocab = vocab.checked_add(5).ok_or_else(|| wrong("its ids are too large".into()))? - 4;
        let mut find = |names: &[&str]| {
            names.iter().find_map(|name| inner.token_to_id(name)).unwrap_or_else(|| {
                vocab += 1;
                vocab - 1
            })
        };
        let special =
            SpecialTokens { pad: find(PAD), bos: find(BOS), eos: find(EOS), image: find(IMAGE) };
        let path = path.to_owned();
        Ok(Self::HuggingFace(Box::new(HuggingFace { inner, path, special, vocab })))
    }

    /// Ids run from 0 to below this; a model's vocabulary must be at least as large.
    pub fn vocab_size(&self) -> u32 {
        match self {
            Self::Bytes => BYTES + 4,
            Self::HuggingFace(t) => t.vocab,
        }
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
                let known = |id: &&u32| **id < t.vocab && !t.special.contains(**id);
                let ids: Vec<u32> = ids.iter().filter(known).copied().collect();
                t.inner.decode(&ids, true).unwrap_or_default()
            }
        }
    }
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

    #[test]
    fn a_tokenizer_file_gives_its_special_tokens_and_missing_ones_follow_its_vocabulary() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        fs::write(&path, WORDS).unwrap();
        let t = Tokenizer::from_file(&path).unwrap();
        let s = t.special();
        assert_eq!((s.eos, s.image, s.pad, s.bos, t.vocab_size()), (3, 4, 5, 6, 7));
        assert_eq!(t.encode("a red").unwrap(), [0, 1]);
        assert!(t.encode("a <|image_pad|> </s>").unwrap().iter().all(|&id| !s.contains(id)));
        assert_eq!(t.decode(&[0, 1, s.eos, s.pad, 77]), "a red");
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
