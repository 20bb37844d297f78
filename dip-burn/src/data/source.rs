//! Sources of documents: the trait to implement for your own data.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::document::Document;
use super::error::DataError;
use super::skip::{SkipCounts, SkippedSample};

/// An endless supply of documents: texts with pictures, or [`CaptionedVideo`](super::CaptionedVideo)s.
pub trait DataSource<D = Document>: Send {
    /// The next document. A source skips and counts broken documents.
    ///
    /// # Errors
    /// [`DataError`] if the source has no more documents; wrap your own errors with [`DataError::other`].
    fn next_document(&mut self) -> Result<D, DataError>;

    /// The position before the next document. After [`DataSource::restore`] the same documents follow as now.
    fn position(&self) -> SourcePosition;

    /// Goes to a position.
    ///
    /// # Errors
    /// [`DataError::Position`] if it belongs to other data.
    fn restore(&mut self, position: &SourcePosition) -> Result<(), DataError>;

    /// The number of complete passes over the data before the position; 0 for endless data. A loader gives up when a complete pass
    /// has no usable document.
    fn passes(&self) -> u64 {
        0
    }

    /// The name of the last document in reports, such as its shard and its number there; `None` for data without names.
    fn last_name(&self) -> Option<String> {
        None
    }

    /// The documents skipped between the beginning of the data and the position.
    fn skipped(&self) -> SkipCounts {
        SkipCounts::default()
    }

    /// The first documents that were skipped since the opening, a few for each reason.
    fn first_skipped(&self) -> Vec<SkippedSample> {
        Vec::new()
    }
}

/// The position of a [`DataSource`] in its own format; checkpoints store it as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SourcePosition(serde_json::Value);

impl SourcePosition {
    /// Wraps the position of a source.
    ///
    /// # Panics
    /// If `position` has no JSON form, such as a map whose keys are not strings.
    pub fn new(position: &impl Serialize) -> Self {
        Self(serde_json::to_value(position).expect("a position has a JSON form"))
    }

    /// The position of the source that saved it.
    ///
    /// # Errors
    /// [`DataError::Position`] if another kind of source saved it.
    pub fn get<T: DeserializeOwned>(&self) -> Result<T, DataError> {
        T::deserialize(&self.0).map_err(DataError::position)
    }
}

/// Most unusable documents in a row before a loader gives up on data without passes.
const MAX_UNUSABLE: u64 = 1 << 20;

/// Detects a source that has no more usable documents.
#[derive(Debug)]
pub(super) struct UsableWatch {
    unusable: u64,
    /// The pass that begins after a whole pass without a usable document.
    end_pass: u64,
}

impl UsableWatch {
    /// A watch from a position in pass `pass`, counted from 0.
    pub fn new(pass: u64) -> Self {
        // The rest of this pass, then a whole pass.
        Self { unusable: 0, end_pass: pass + 2 }
    }

    /// A watch from the opening of a source, most often at the beginning of the data.
    pub fn at_opening(pass: u64) -> Self {
        if pass == 0 { Self { unusable: 0, end_pass: 1 } } else { Self::new(pass) }
    }

    /// Records a usable document.
    pub fn usable(&mut self, pass: u64) {
        *self = Self::new(pass);
    }

    /// Records an unusable document of pass `pass`, and returns true if it is time to give up.
    pub fn unusable(&mut self, pass: u64) -> bool {
        self.unusable += 1;
        pass >= self.end_pass || self.unusable >= MAX_UNUSABLE
    }
}
