//! A Hugging Face `tokenizer.json`.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};
use dip_files::Kind;
use tokenizers::{
    Model, ModelWrapper, NormalizedString, Normalizer, OffsetReferential, OffsetType,
    PreTokenizedString, PreTokenizer,
};

use super::files::{ModelFiles, TemplateSource};
use super::special::{Affixes, FoundTokens, SpecialTokens, media_text};
use crate::data::chat::ChatTemplate;
use crate::data::error::{BoxError, DataError, TokenizeError};
use crate::data::marked::{CutKind, MarkedText, SpannedToken};

/// A tokenizer read from a `tokenizer.json`.
#[derive(Debug, Clone)]
pub struct HuggingFace {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
    pub(super) tokens: SpecialTokens,
    pub(super) text_vocab: u32,
    pub(super) affixes: Affixes,
    pub(super) chat: Option<Arc<ChatTemplate>>,
    /// Stands for a picture in control parts of a text.
    pub(super) picture: String,
    /// Stands for a sound in control parts of a text.
    pub(super) sound: String,
    /// Stands for a video in control parts of a text; `None` without a token for videos.
    pub(super) video: Option<String>,
    /// The texts that are tokens in the output of a chat template, and text everywhere else.
    control: AhoCorasick,
    /// The tokens of a line feed.
    line_feed: Vec<u32>,
}

impl HuggingFace {
    pub(super) fn read(path: &Path) -> Result<Self, DataError> {
        let io = |source| DataError::Io { path: path.to_owned(), source };
        let wrong = |source: BoxError| DataError::Tokenizer { path: path.to_owned(), source };
        let bytes = dip_files::read(path, Kind::TOKENIZER).map_err(io)?;
        let files = ModelFiles::read(path.parent().unwrap_or(Path::new(".")))?;
        let (mut new, bos) = guarded(|| Self::new(path, &bytes, &files)).map_err(wrong)?;
        if let Some(TemplateSource { path, text }) = files.chat_template() {
            let chat = guarded(|| new.compile_template(text, bos, &files));
            let wrong = |source| DataError::ModelFile { path, source };
            new.chat = Some(Arc::new(chat.map_err(wrong)?));
        }
        Ok(new)
    }

    /// A tokenizer without a chat template, and its token for the begin of a text.
    fn new(path: &Path, bytes: &[u8], files: &ModelFiles) -> Result<(Self, Option<u32>), BoxError> {
        let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes)?;
        inner.with_truncation(None)?;
        inner.with_padding(None);
        without_dropout(&mut inner);
        let highest = inner.get_vocab(true).values().copied().max();
        let highest = highest.ok_or("its vocabulary is empty")?;
        // Room for an end token, an image token and a sound token.
        if highest > u32::MAX - 4 {
            return Err("its ids are too large".into());
        }
        let found = FoundTokens::of(&inner, files, highest + 1);
        let affixes = Affixes::of(&inner, files, &found);
        let control = control_tokens(&inner);
        let control =
            AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(control)?;
        let line_feed = inner.encode_fast("\n", false);
        let new = Self {
            path: path.to_owned(),
            tokens: found.special,
            text_vocab: found.text_vocab,
            affixes,
            chat: None,
            picture: media_text(&inner, found.special.image),
            sound: media_text(&inner, found.special.sound),
            video: found.special.video.map(|video| media_text(&inner, video)),
            control,
            line_feed: line_feed.map_or(Vec::new(), |encoding| encoding.get_ids().to_vec()),
            inner,
        };
        Ok((new, found.bos))
    }

    /// The chat template, which sees the texts of the special tokens.
    fn compile_template(
        &self,
        source: &str,
        bos: Option<u32>,
        files: &ModelFiles,
    ) -> Result<ChatTemplate, BoxError> {
        let text_of = |id: Option<u32>| id.and_then(|id| self.inner.id_to_token(id));
        let own = [("bos_token", text_of(bos)), ("eos_token", text_of(Some(self.tokens.eos)))];
        let others = ["unk_token", "pad_token"];
        let others = others.map(|name| (name, files.token(name).map(str::to_owned)));
        let tokens = own.into_iter().chain(others);
        let tokens = tokens.filter_map(|(name, text)| Some((name, text?)));
        ChatTemplate::new(source, tokens)
    }

    /// The id of a token of the vocabulary.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.inner.token_to_id(text)
    }

    /// The parts of a text that read like control tokens.
    pub(super) fn control_texts(&self, text: &str) -> Vec<Range<usize>> {
        self.control.find_iter(text).map(|found| found.range()).collect()
    }

    /// The text of a token that is a token wherever a [`MarkedText`] has it.
    pub(super) fn control_text(&self, id: u32) -> Option<String> {
        let added = self.inner.get_added_tokens_decoder();
        added.get(&id).map(|token| token.content.clone())
    }

    pub(super) fn encode(&self, marked: &MarkedText) -> Result<Vec<SpannedToken>, TokenizeError> {
        guarded(|| self.encode_parts(marked))
            .map_err(|source| TokenizeError { path: self.path.clone(), source })
    }

    pub(super) fn decode(&self, ids: &[u32]) -> String {
        guarded(|| self.inner.decode(ids, true)).unwrap_or_default()
    }

    fn encode_parts(&self, marked: &MarkedText) -> Result<Vec<SpannedToken>, BoxError> {
        let mut out = Vec::new();
        let mut at = 0;
        for cut in &marked.cuts {
            self.encode_controlled(&marked.text, at..cut.range.start, &mut out)?;
            match cut.kind {
                CutKind::Token(id) => out.push(SpannedToken { id, span: cut.range.clone() }),
                CutKind::Literal => {
                    self.encode_literal(&marked.text, cut.range.clone(), &mut out)?
                }
            }
            at = cut.range.end;
        }
        self.encode_controlled(&marked.text, at..marked.text.len(), &mut out)?;
        Ok(out)
    }

    /// Encodes a part of a text with its control tokens.
    fn encode_controlled(
        &self,
        text: &str,
        range: Range<usize>,
        out: &mut Vec<SpannedToken>,
    ) -> Result<(), BoxError> {
        if range.is_empty() {
            return Ok(());
        }
        let begins = range.start == 0;
        let encode = |part: &str| {
            let encoding = self.inner.encode(part, false)?;
            Ok(encoding.get_ids().iter().copied().zip(encoding.get_offsets().to_vec()).collect())
        };
        self.encode_part(text, range, begins, encode, out)
    }

    /// Encodes a part of a text without looking for added tokens.
    fn encode_literal(
        &self,
        text: &str,
        range: Range<usize>,
        out: &mut Vec<SpannedToken>,
    ) -> Result<(), BoxError> {
        let encode = |part: &str| {
            let mut normalized = NormalizedString::from(part);
            if let Some(normalizer) = self.inner.get_normalizer() {
                normalizer.normalize(&mut normalized)?;
            }
            let mut pieces = PreTokenizedString::from(normalized);
            if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
                pre_tokenizer.pre_tokenize(&mut pieces)?;
            }
            pieces.tokenize(|piece| self.inner.get_model().tokenize(piece.get()))?;
            let splits = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
            let tokens = splits
                .into_iter()
                .filter_map(|(_, offsets, tokens)| Some((offsets, tokens.as_ref()?)));
            Ok(tokens
                .flat_map(|(offsets, tokens)| tokens.iter().map(move |t| (t.id, offsets)))
                .collect())
        };
        let begins = range.start == 0;
        let before = out.len();
        self.encode_part(text, range.clone(), begins, encode, out)?;
        let own = self.inner.token_to_id(&text[range]);
        if out[before..].iter().any(|token| Some(token.id) == own) {
            return Err("its model makes a control token of ordinary text".into());
        }
        Ok(())
    }

    /// Encodes a part of a text. After the beginning of the text it follows a line feed, so that the tokenizer adds no space in
    /// front of it; the tokens of the line feed are left out.
    fn encode_part(
        &self,
        text: &str,
        range: Range<usize>,
        begins: bool,
        encode: impl Fn(&str) -> Result<Vec<(u32, (usize, usize))>, BoxError>,
        out: &mut Vec<SpannedToken>,
    ) -> Result<(), BoxError> {
        let part = &text[range.clone()];
        let mut skipped_bytes = 0;
        let mut tokens = Vec::new();
        if !begins {
            tokens = encode(&format!("\n{part}"))?;
            let ids = tokens.iter().take(self.line_feed.len()).map(|&(id, _)| id);
            if ids.eq(self.line_feed.iter().copied()) {
                tokens.drain(..self.line_feed.len());
                skipped_bytes = 1;
            }
        }
        if skipped_bytes == 0 {
            tokens = encode(part)?;
        }
        let place = |at: usize| (range.start + at.saturating_sub(skipped_bytes)).min(range.end);
        let spanned = |(id, (start, end))| SpannedToken { id, span: place(start)..place(end) };
        out.extend(tokens.into_iter().map(spanned));
        Ok(())
    }
}

/// The texts of added tokens that are marked special. Others, such as `<think>`, are tokens wherever a text has them.
fn control_tokens(inner: &tokenizers::Tokenizer) -> Vec<String> {
    let added = inner.get_added_tokens_decoder().into_values();
    let special = added.filter(|token| token.special && !token.content.is_empty());
    special.map(|token| token.content).collect()
}

/// Dropout would make the tokens of a text random, and a resumed run different.
fn without_dropout(inner: &mut tokenizers::Tokenizer) {
    if let ModelWrapper::BPE(bpe) = inner.get_model()
        && bpe.dropout.is_some()
    {
        let mut bpe = bpe.clone();
        bpe.dropout = None;
        inner.with_model(bpe);
    }
}

/// Runs a step of the tokenizer library; a panic is an error.
fn guarded<T>(step: impl FnOnce() -> Result<T, BoxError>) -> Result<T, BoxError> {
    let panicked = |_| Err("the file is damaged: the tokenizer library panicked".into());
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(panicked)
}
