//! The special tokens of a Hugging Face tokenizer.

use super::files::ModelFiles;
use crate::data::marked::TOKEN_MARK;

/// Names that a special token may have in a `tokenizer.json`; the first one found counts.
const PAD: &[&str] = &["<pad>", "<|pad|>", "[PAD]", "<|finetune_right_pad_id|>", "<|endoftext|>"];
const BOS: &[&str] = &["<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>", "[CLS]"];
const EOS: &[&str] = &["</s>", "<eos>", "<|end_of_text|>", "[SEP]", "<|im_end|>", "<|endoftext|>"];
const IMAGE: &[&str] = &["<image>", "<|image_pad|>", "<|image|>", "<image_soft_token>", "[IMG]"];
const VIDEO: &[&str] = &["<|video_pad|>"];
const SOUND: &[&str] = &["<|AUDIO|>", "<audio>", "<|audio_pad|>", "<|audio|>", "[AUDIO]"];
/// Marks that models expect around the token of a picture, video or sound: the Qwen-VL family, and Qwen2-Audio.
const AROUND: [[&str; 3]; 3] = [
    ["<|vision_start|>", "<|image_pad|>", "<|vision_end|>"],
    ["<|vision_start|>", "<|video_pad|>", "<|vision_end|>"],
    ["<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>"],
];

/// Ids that do not stand for text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Fills the rest of a sequence.
    pub pad: u32,
    /// Ends a document.
    pub eos: u32,
    /// Stands for a part of an image.
    pub image: u32,
    /// Stands for a part of a video, in models that take videos.
    pub video: Option<u32>,
    /// Stands for a part of a sound.
    pub sound: u32,
}

impl SpecialTokens {
    /// True if `id` is one of these.
    pub fn contains(&self, id: u32) -> bool {
        [self.pad, self.eos, self.image, self.sound].contains(&id) || self.video == Some(id)
    }
}

/// What a tokenizer and the files of its model say about special tokens.
#[derive(Debug)]
pub(super) struct FoundTokens {
    pub special: SpecialTokens,
    /// The vocabulary that text needs: every id except the image token is below it.
    pub text_vocab: u32,
    /// Begins a text, where the tokenizer has such a token.
    pub bos: Option<u32>,
}

impl FoundTokens {
    /// The special tokens of a tokenizer whose ids are below `vocab`.
    ///
    /// What the files of the model name comes first. Otherwise a token that is marked special and has a usual name counts; a word
    /// of the vocabulary that only reads like one does not.
    pub fn of(tokenizer: &tokenizers::Tokenizer, files: &ModelFiles, vocab: u32) -> Self {
        let added = tokenizer.get_added_tokens_decoder();
        let added = |name: &&str| added.iter().find(|(_, token)| token.content == *name);
        let usual = |names: &[&str]| {
            names.iter().filter_map(added).find(|(_, token)| token.special).map(|(&id, _)| id)
        };
        let named = |name: &str, names: &[&str]| {
            let by_text = files.token(name).and_then(|text| tokenizer.token_to_id(text));
            let by_id = || files.id(&format!("{name}_id")).filter(|&id| id < vocab);
            by_text.or_else(by_id).or_else(|| usual(names))
        };
        let (eos, text_vocab) = match named("eos_token", EOS) {
            Some(eos) => (eos, vocab),
            None => (vocab, vocab + 1),
        };
        // Some published tokenizers do not mark these tokens as special.
        let media = |kind: &str, names: &[&str]| {
            let by_id = files.id(&format!("{kind}_token_id"));
            let by_id = by_id.or_else(|| files.id(&format!("{kind}_token_index")));
            let by_name = || names.iter().find_map(added).map(|(&id, _)| id);
            by_id.filter(|&id| id < vocab).or_else(by_name)
        };
        let image = media("image", IMAGE).unwrap_or(text_vocab);
        let video = media("video", VIDEO).filter(|&video| video != image);
        let sound = media("audio", SOUND).unwrap_or(text_vocab.max(image + 1));
        let pad = named("pad_token", PAD).unwrap_or(eos);
        let special = SpecialTokens { pad, eos, image, video, sound };
        Self { special, text_vocab, bos: named("bos_token", BOS) }
    }
}

/// The text of an image, video or sound token with the marks that its model expects around it; [`TOKEN_MARK`] for a token without
/// a text.
pub(super) fn media_text(tokenizer: &tokenizers::Tokenizer, token: u32) -> String {
    let added = tokenizer.get_added_tokens_decoder();
    let has = |name: &str| added.values().any(|token| token.content == name);
    let Some(text) = added.get(&token).map(|token| token.content.as_str()) else {
        return TOKEN_MARK.to_owned();
    };
    let around = AROUND
        .into_iter()
        .find(|[before, inner, after]| *inner == text && has(before) && has(after));
    around.map_or(text.to_owned(), |marks| marks.concat())
}

/// The tokens that a tokenizer puts around a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Affixes {
    pub before: Vec<u32>,
    pub after: Vec<u32>,
}

impl Affixes {
    /// What `transformers` adds: by `add_bos_token` and `add_eos_token` of `tokenizer_config.json` if one of them is there,
    /// otherwise by the post-processor of `tokenizer.json`.
    pub fn of(tokenizer: &tokenizers::Tokenizer, files: &ModelFiles, tokens: &FoundTokens) -> Self {
        let [bos, eos] = ["add_bos_token", "add_eos_token"].map(|name| files.flag(name));
        if bos.is_some() || eos.is_some() || tokenizer.get_post_processor().is_none() {
            let before = tokens.bos.filter(|_| bos == Some(true));
            let after = (eos == Some(true)).then_some(tokens.special.eos);
            return Self {
                before: before.into_iter().collect(),
                after: after.into_iter().collect(),
            };
        }
        // Any text that has tokens shows what comes around it.
        let word = tokenizer.id_to_token(0).unwrap_or_default();
        let probes = ["a", "the", word.as_str()];
        probes.into_iter().find_map(|text| Self::around(tokenizer, text)).unwrap_or_default()
    }

    fn around(tokenizer: &tokenizers::Tokenizer, text: &str) -> Option<Self> {
        let plain = tokenizer.encode_fast(text, false).ok()?;
        let whole = tokenizer.encode_fast(text, true).ok()?;
        let (plain, whole) = (plain.get_ids(), whole.get_ids());
        let at = whole.windows(plain.len().max(1)).position(|part| part == plain)?;
        let after = whole[at + plain.len()..].to_vec();
        Some(Self { before: whole[..at].to_vec(), after })
    }
}
