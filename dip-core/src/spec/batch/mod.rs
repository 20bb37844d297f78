//! Batch metadata: what the planner knows about a batch before its pixels are decoded.

mod images;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::spec::error::{FieldError, SpecError};
use crate::spec::strict;

pub use images::{ImageSize, Images};

/// Maximum number of images, of clips, of sounds, and of other instances in one microbatch.
pub const MAX_ITEMS: u32 = 1 << 20;
/// Maximum number of tokens in one microbatch.
pub const MAX_TOKENS: u64 = 1 << 32;
/// Maximum number of images, clips, sounds and other instances in one iteration.
pub const MAX_BATCH_ITEMS: u64 = 1 << 24;
/// Maximum number of microbatches in a file.
const MAX_LINES: usize = 1 << 21;
/// Maximum number of tokens in one latent frame, as in the model.
const MAX_FRAME_TOKENS: u32 = 1 << 24;

/// The microbatches of one iteration.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BatchMeta {
    /// The iteration it belongs to.
    pub iteration: u64,
    /// One entry per microbatch.
    pub microbatches: Vec<MicrobatchMeta>,
}

/// One microbatch: a packed sequence with its images and sounds, or a group of clips.
///
/// In a file an absent field means that the microbatch has none of it: `{"images": 5}` has five images and no text.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct MicrobatchMeta {
    /// The images of the sequence: their number, or the size of each.
    #[serde(skip_serializing_if = "Images::is_empty")]
    pub images: Images,
    /// Number of text tokens of the sequence, without image and sound tokens.
    #[serde(skip_serializing_if = "is_zero")]
    pub text_tokens: u64,
    /// Length of each sound of the sequence, in seconds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub audio_seconds: Vec<f64>,
    /// Video clips.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub clips: Vec<ClipMeta>,
    /// Tokens of each packed document, image tokens included. Attention stays within a document. Tokens outside all documents
    /// form one more document.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub documents: Vec<u64>,
    /// Size of each instance of modules whose modality comes from another crate, by module: points of each point cloud, for
    /// example.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub other: BTreeMap<String, Vec<u64>>,
}

fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// One video clip and its caption.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ClipMeta {
    /// Length of the clip, in seconds.
    pub seconds: f64,
    /// Number of tokens of its caption.
    pub caption_tokens: u64,
    /// Tokens of one latent frame. Defaults to the model's `tokens_per_frame`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_frame: Option<u32>,
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchLine {
    /// Number of the batch that the microbatch belongs to.
    #[serde(default)]
    iteration: u64,
    /// Number of images of the model's own size, or the size of each.
    #[serde(default, skip_serializing_if = "Images::is_empty")]
    images: Images,
    /// Text tokens of the sequence.
    #[serde(default, skip_serializing_if = "is_zero")]
    text_tokens: u64,
    /// Length of each sound, in seconds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    audio_seconds: Vec<f64>,
    /// Video clips.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    clips: Vec<ClipMeta>,
    /// Tokens of each packed document, between which there is no attention.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    documents: Vec<u64>,
    /// Sizes of the instances of modules of other crates, by module.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    other: BTreeMap<String, Vec<u64>>,
}

impl BatchMeta {
    /// Reads JSON Lines, one microbatch per line, into one batch per iteration, in the order of iterations.
    /// Empty lines are skipped.
    ///
    /// # Errors
    /// [`SpecError::Line`] names the line, the field, its value and the limit.
    pub fn from_jsonl(text: &str) -> Result<Vec<Self>, SpecError> {
        let mut batches: BTreeMap<u64, Vec<MicrobatchMeta>> = BTreeMap::new();
        for (i, text) in text.lines().enumerate().filter(|(_, t)| !t.trim().is_empty()) {
            let at = |error: SpecError| SpecError::Line { line: i + 1, source: error.into() };
            if i >= MAX_LINES {
                let (limit, remedy) = (format!("at most {MAX_LINES}"), "split the file");
                return Err(
                    at(FieldError::new("the number of lines", i + 1, limit, remedy).into()),
                );
            }
            let line: BatchLine = strict::from_json(text).map_err(at)?;
            let meta = MicrobatchMeta {
                images: line.images,
                text_tokens: line.text_tokens,
                audio_seconds: line.audio_seconds,
                clips: line.clips,
                documents: line.documents,
                other: line.other,
            };
            meta.validate().map_err(|e| at(e.into()))?;
            batches.entry(line.iteration).or_default().push(meta);
        }
        let batches: Vec<Self> = batches
            .into_iter()
            .map(|(iteration, microbatches)| Self { iteration, microbatches })
            .collect();
        batches.iter().try_for_each(Self::validate_size)?;
        Ok(batches)
    }

    /// Checks that all microbatches together can be planned.
    fn validate_size(&self) -> Result<(), FieldError> {
        let items: u64 = self.microbatches.iter().map(|m| m.items() as u64).sum();
        if items <= MAX_BATCH_ITEMS {
            return Ok(());
        }
        let (iteration, count) = (self.iteration, self.microbatches.len());
        let path = format!("iteration {iteration}");
        let value = format!("{count} microbatches with {items} images, clips and sounds together");
        let limit = format!("a batch of at most {MAX_BATCH_ITEMS}");
        Err(FieldError::new(path, value, limit, "plan fewer microbatches at a time"))
    }

    /// Writes JSON Lines, one microbatch per line.
    pub fn to_jsonl(&self) -> String {
        let mut out = String::new();
        for m in &self.microbatches {
            let line = BatchLine {
                iteration: self.iteration,
                images: m.images.clone(),
                text_tokens: m.text_tokens,
                audio_seconds: m.audio_seconds.clone(),
                clips: m.clips.clone(),
                documents: m.documents.clone(),
                other: m.other.clone(),
            };
            out.push_str(&serde_json::to_string(&line).expect("plain data has a JSON form"));
            out.push('\n');
        }
        out
    }
}

impl MicrobatchMeta {
    /// Number of images, sounds, clips and other instances.
    fn items(&self) -> usize {
        let other: usize = self.other.values().map(Vec::len).sum();
        self.images.len() as usize + self.audio_seconds.len() + self.clips.len() + other
    }

    /// Checks sizes against the bounds of this module.
    ///
    /// # Errors
    /// [`FieldError`] for the first field outside its limit.
    pub fn validate(&self) -> Result<(), FieldError> {
        let remedy = "correct the metadata of this microbatch";
        let at_most = |path: &str, value: u64, max: u64| {
            let limit = format!("at most {max}");
            if value <= max { Ok(()) } else { Err(FieldError::new(path, value, limit, remedy)) }
        };
        let length = |path: &str, seconds: f64| {
            let limit = "above 0, at most 1e6";
            let valid = seconds > 0.0 && seconds <= 1e6;
            if valid { Ok(()) } else { Err(FieldError::new(path, seconds, limit, remedy)) }
        };
        let items = self.items();
        if items > MAX_ITEMS as usize {
            let limit = format!("at most {MAX_ITEMS} items");
            return Err(FieldError::new("images", items, limit, remedy));
        }
        self.images.validate(remedy)?;
        at_most("text_tokens", self.text_tokens, MAX_TOKENS)?;
        at_most("documents", self.documents.len() as u64, MAX_ITEMS.into())?;
        for &seconds in &self.audio_seconds {
            length("audio_seconds", seconds)?;
        }
        for clip in &self.clips {
            length("clips.seconds", clip.seconds)?;
            if let Some(tokens) = clip.tokens_per_frame {
                let range = 1..=MAX_FRAME_TOKENS;
                FieldError::check_range("clips.tokens_per_frame", tokens, range, remedy)?;
            }
            at_most("clips.caption_tokens", clip.caption_tokens, MAX_TOKENS)?;
        }
        for (module, sizes) in &self.other {
            let path = format!("other.{module}");
            sizes.iter().try_for_each(|&size| at_most(&path, size, MAX_TOKENS))?;
        }
        if items == 0 && self.text_tokens == 0 {
            let limit = "at least one image, token, sound or clip";
            return Err(FieldError::new("the microbatch", "empty", limit, remedy));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_grouped_by_iteration_and_survive_a_round_trip() {
        let text = "{\"images\":10,\"text_tokens\":6502}\n\n\
                    {\"iteration\":2,\"clips\":[{\"seconds\":4.0,\"caption_tokens\":60}]}\n";
        let batches = BatchMeta::from_jsonl(text).unwrap();
        assert_eq!(batches.len(), 2);
        assert_eq!(batches[0].microbatches[0].images, Images::Count(10));
        let again: String = batches.iter().map(BatchMeta::to_jsonl).collect();
        assert_eq!(BatchMeta::from_jsonl(&again).unwrap(), batches);
    }

    #[test]
    fn a_bad_line_is_named_with_its_field() {
        let unknown = BatchMeta::from_jsonl("{\"images\":1}\n{\"imagse\":1}").unwrap_err();
        assert!(unknown.to_string().starts_with("line 2: unknown field `imagse`"), "{unknown}");
        let size = "{\"clips\":[{\"seconds\":1.0,\"caption_tokens\":6,\"tokens_per_frame\":0}]}";
        let error = BatchMeta::from_jsonl(size).unwrap_err().to_string();
        assert!(error.contains("clips.tokens_per_frame"), "{error}");
        let clip = "{\"clips\":[{\"seconds\":-1.0,\"caption_tokens\":6}]}";
        assert!(BatchMeta::from_jsonl(clip).unwrap_err().to_string().contains("clips.seconds"));
        let array = BatchMeta::from_jsonl("[0,5,112]").unwrap_err().to_string();
        assert!(array.contains("expected an object with named fields"), "{array}");
        assert!(BatchMeta::from_jsonl("{}").unwrap_err().to_string().contains("empty"));
    }
}
