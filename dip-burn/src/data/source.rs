//! Where documents come from: the trait to implement for data of your own.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::document::Document;
use super::error::DataError;
use super::skip::SkipCounts;

/// An endless supply of documents: texts with pictures, or [`CaptionedVideo`](super::CaptionedVideo)s.
pub trait DataSource<D = Document>: Send {
    /// The next document. A source skips and counts broken documents.
    ///
    /// # Errors
    /// [`DataError`] if the source has no more documents; wrap errors of your own with [`DataError::other`].
    fn next_document(&mut self) -> Result<D, DataError>;

    /// The position before the next document. After [`DataSource::restore`] the same documents follow as now.
    fn position(&self) -> SourcePosition;

    /// Goes to a position.
    ///
    /// # Errors
    /// [`DataError::Position`] if it belongs to other data.
    fn restore(&mut self, position: &SourcePosition) -> Result<(), DataError>;

    /// The documents skipped between the beginning of the data and the position.
    fn skipped(&self) -> SkipCounts {
        SkipCounts::default()
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
