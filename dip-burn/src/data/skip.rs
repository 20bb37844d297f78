//! Counts of broken samples. Broken samples are skipped and counted; they are not errors.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a sample was skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// No `.txt`, and no `.json` with `conversations`, `messages`, `text` or `caption`.
    MissingText,
    /// The `.json` does not parse.
    InvalidJson,
    /// The conversation of a `.json` has another form than `conversations` or `messages`.
    InvalidConversation,
    /// A turn of a conversation has an unknown speaker.
    UnknownRole,
    /// A conversation without a turn of the assistant to train on.
    NoAnswer,
    /// The text is not UTF-8.
    InvalidText,
    /// The text has image marks, but not one for each picture.
    WrongMarks,
    /// A picture that the text names is not there.
    MissingPicture,
    /// A picture that the text names is outside the folder of pictures.
    OutsidePicture,
    /// A picture that the text names is on another machine.
    RemotePicture,
    /// A member is sparse, or a link to nothing.
    UnreadableMember,
    /// A picture cannot be decoded.
    BrokenPicture,
    /// A picture has a format that is not read, such as AVIF.
    UnsupportedPicture,
    /// A picture has a shape that the vision encoder does not take.
    UnfitPicture,
    /// A sound cannot be decoded, or is too short for one token.
    BrokenSound,
    /// A video cannot be decoded.
    BrokenVideo,
    /// The stored latents of a video have another shape than the latents of the model.
    UnfitLatents,
    /// A sample for a text-to-video model has no video.
    MissingVideo,
    /// A member, a picture or the sample is over its limit.
    Oversized,
    /// The tokenizer refused the text.
    Untokenizable,
    /// The chat template refused the conversation.
    Unrenderable,
    /// Neither text nor pictures.
    Empty,
    /// No text to train on within the length and the images of a sequence.
    NothingFits,
    /// Longer than a sequence, where such documents are not cut.
    TooLong,
    /// The rest of a shard after a broken header.
    BrokenShard,
}

impl SkipReason {
    /// The reason in words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MissingText => "missing text",
            Self::InvalidJson => "invalid JSON",
            Self::InvalidConversation => "invalid conversation",
            Self::UnknownRole => "unknown role in a conversation",
            Self::NoAnswer => "no turn of the assistant",
            Self::InvalidText => "text is not UTF-8",
            Self::WrongMarks => "wrong number of image marks",
            Self::MissingPicture => "missing picture",
            Self::OutsidePicture => "picture outside the folder of pictures",
            Self::RemotePicture => "picture on another machine",
            Self::UnreadableMember => "sparse member or broken link",
            Self::BrokenPicture => "broken picture",
            Self::UnsupportedPicture => "picture format that is not read",
            Self::UnfitPicture => "picture shape that the model does not take",
            Self::BrokenSound => "broken sound",
            Self::BrokenVideo => "broken video",
            Self::UnfitLatents => "latents of another shape",
            Self::MissingVideo => "missing video",
            Self::Oversized => "oversized",
            Self::Untokenizable => "cannot be tokenized",
            Self::Unrenderable => "refused by the chat template",
            Self::Empty => "empty",
            Self::NothingFits => "no text within sequence_tokens and max_images",
            Self::TooLong => "too long",
            Self::BrokenShard => "rest of a broken shard",
        }
    }
}

/// Most samples of one reason that are named.
const NAMED: usize = 3;

/// A skipped sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SkippedSample {
    /// Why it was skipped.
    pub reason: SkipReason,
    /// Its shard, and its name there.
    pub name: String,
}

impl SkippedSample {
    /// Adds a sample to `first` unless three others with its reason are there.
    pub fn note(first: &mut Vec<Self>, reason: SkipReason, name: impl FnOnce() -> String) {
        if first.iter().filter(|sample| sample.reason == reason).count() < NAMED {
            first.push(Self { reason, name: name() });
        }
    }
}

/// The number of skipped samples, by reason.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct SkipCounts(BTreeMap<SkipReason, u64>);

impl SkipCounts {
    /// Counts one more sample.
    pub fn add(&mut self, reason: SkipReason) {
        *self.0.entry(reason).or_default() += 1;
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (&reason, &n) in &other.0 {
            *self.0.entry(reason).or_default() += n;
        }
    }

    /// Samples skipped for `reason`.
    pub fn get(&self, reason: SkipReason) -> u64 {
        self.0.get(&reason).copied().unwrap_or(0)
    }

    /// The number of all skipped samples.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// The reasons that occurred, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (SkipReason, u64)> {
        self.0.iter().map(|(&reason, &n)| (reason, n))
    }
}

impl fmt::Display for SkipCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (i, (reason, n)) in self.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{n} {}", reason.name())?;
        }
        Ok(())
    }
}
