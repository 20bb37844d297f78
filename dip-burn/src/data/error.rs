//! What can go wrong with data. A broken sample is no error: it is skipped and counted, see [`SkipCounts`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::tokenizer::TokenizeError;

/// Data that cannot be read at all.
#[derive(Debug, Error)]
pub enum DataError {
    /// A file or folder could not be opened or read.
    #[error("{}: {source}; check that it exists and can be read", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A shard is not an uncompressed tar.
    #[error(
        "{}: {what}, so it is not a WebDataset shard; give uncompressed .tar files (unpack .tar.gz and .tar.zst first)",
        path.display()
    )]
    NotATar {
        /// The file.
        path: PathBuf,
        /// What was found instead.
        what: String,
    },
    /// A folder or pattern names no shard.
    #[error("{}: no shard there; give .tar files, folders with .tar files, or patterns such as data/train-*.tar", path.display())]
    NoShards {
        /// The folder or pattern.
        path: PathBuf,
    },
    /// No sample of a whole epoch can be used.
    #[error(
        "{what} holds no usable sample (skipped: {skipped}); each sample needs a .txt or .json and one picture an image mark"
    )]
    NoSamples {
        /// The data.
        what: String,
        /// Why samples were skipped.
        skipped: SkipCounts,
    },
    /// A tokenizer file is not usable.
    #[error("{}: {what}; give the tokenizer.json of a Hugging Face model", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A text cannot be turned into tokens.
    #[error(transparent)]
    Text(#[from] TokenizeError),
    /// No video of this data can be used.
    #[error("{what}")]
    Video {
        /// Why.
        what: String,
    },
    /// A setting is outside its limit.
    #[error("{field} is {value}, but must be {limit}; {remedy}")]
    Setting {
        /// The setting.
        field: &'static str,
        /// The value it has.
        value: u64,
        /// What is allowed.
        limit: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A saved position does not belong to this data.
    #[error(
        "the saved data position does not fit: {what}; use the data and settings the run was started with, or start anew"
    )]
    Position {
        /// What differs.
        what: String,
    },
    /// The decoding thread has ended.
    #[error(
        "the decoding thread has ended, so no more pictures can be decoded; build the loader anew"
    )]
    DecoderGone,
}

/// Why a sample was skipped, or a part of one was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// No `.txt`, and no `.json` with `text` or `caption`.
    MissingText,
    /// The `.json` does not parse.
    InvalidJson,
    /// The text is not UTF-8.
    InvalidText,
    /// There are image marks, but not one for each picture.
    WrongMarks,
    /// A picture cannot be decoded.
    BrokenPicture,
    /// A video cannot be decoded, or its latents are not those of the model.
    BrokenVideo,
    /// There is no video in a sample of a model that is trained on them.
    MissingVideo,
    /// A member, a picture or the sample is over its limit.
    Oversized,
    /// The tokenizer refused the text.
    Untokenizable,
    /// Neither text nor pictures, or nothing left of it after truncation.
    Empty,
    /// The rest of a shard behind a broken header.
    BrokenShard,
}

impl SkipReason {
    /// The reason in words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MissingText => "missing text",
            Self::InvalidJson => "invalid JSON",
            Self::InvalidText => "text is not UTF-8",
            Self::WrongMarks => "wrong count of image marks",
            Self::BrokenPicture => "broken picture",
            Self::BrokenVideo => "broken video",
            Self::MissingVideo => "missing video",
            Self::Oversized => "oversized",
            Self::Untokenizable => "cannot be tokenized",
            Self::Empty => "empty",
            Self::BrokenShard => "rest of a broken shard",
        }
    }
}

/// How often samples were skipped, by reason.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SkipCounts(BTreeMap<SkipReason, u64>);

impl SkipCounts {
    /// Counts one more.
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

    /// All skipped samples.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Reasons that occurred, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (SkipReason, u64)> {
        self.0.iter().map(|(&reason, &n)| (reason, n))
    }
}

impl std::fmt::Display for SkipCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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
