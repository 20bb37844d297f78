//! Errors of data. A broken sample is not an error: see [`SkipCounts`].

use std::error::Error;
use std::path::PathBuf;

use dip_core::{FieldError, SpecError};
use thiserror::Error;

use super::skip::SkipCounts;

/// Any error, such as an error of a library or of your own source.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Data that cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file or folder cannot be opened or read.
    #[error("{}: {source}; check that it exists and can be read", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file is no shard.
    #[error(
        "{}: {what}, so it is not a shard; give .tar, .tar.gz, .tar.zst, .json, .jsonl or .parquet files",
        path.display()
    )]
    NotAShard {
        /// The file.
        path: PathBuf,
        /// The content found instead.
        what: String,
    },
    /// A shard on another machine cannot be fetched.
    #[error("{}: {source}; check the URL and the credentials in the environment", url.display())]
    Remote {
        /// The URL.
        url: PathBuf,
        /// The error of the store.
        source: BoxError,
    },
    /// A folder or pattern names no shard.
    #[error("{}: no shard there; give files, folders with .tar, .jsonl or .parquet files, or patterns such as data/train-*.tar", path.display())]
    NoShards {
        /// The folder or pattern.
        path: PathBuf,
    },
    /// No sample of a whole epoch can be used.
    #[error(
        "{what} holds no usable sample (skipped: {skipped}); each sample needs a .txt or .json, one picture per image mark, and \
         text within the sequence_tokens and max_images of the model: text without marks comes after all pictures"
    )]
    NoSamples {
        /// The data.
        what: String,
        /// Why samples were skipped.
        skipped: SkipCounts,
    },
    /// A tokenizer file cannot be used.
    #[error("{}: {source}; give the tokenizer.json of a Hugging Face model", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// The fault of the file.
        source: BoxError,
    },
    /// A file beside the tokenizer cannot be used.
    #[error("{}: {source}; give the file of a Hugging Face model, or remove it", path.display())]
    ModelFile {
        /// The file.
        path: PathBuf,
        /// The fault of the file.
        source: BoxError,
    },
    /// The `config.json` of an autoencoder cannot be used.
    #[error(
        "{}: {source}; give the vae/config.json of the model, with latents_mean and latents_std for each channel",
        path.display()
    )]
    Autoencoder {
        /// The file.
        path: PathBuf,
        /// The fault of the file.
        source: BoxError,
    },
    /// A text cannot be tokenized.
    #[error(transparent)]
    Text(#[from] TokenizeError),
    /// A document has no token ids: a [`DocumentError`](super::DocumentError).
    #[error(transparent)]
    Document(BoxError),
    /// The files of an image processor cannot be used.
    #[error("{}: {source}", path.display())]
    Processor {
        /// The folder or the file.
        path: PathBuf,
        /// The field, or the parser's message.
        source: Box<SpecError>,
    },
    /// A setting is outside its limit.
    #[error(transparent)]
    Setting(#[from] FieldError),
    /// A saved position does not belong to this data.
    #[error(
        "the saved data position does not fit: {0}; use the data and settings the run was started with, or start anew"
    )]
    Position(#[source] BoxError),
    /// The decoding thread has ended.
    #[error(
        "the decoding thread has ended, so no more pictures can be decoded; build the loader anew"
    )]
    DecoderGone,
    /// Any other error; see [`DataError::other`].
    #[error(transparent)]
    Other(BoxError),
}

impl DataError {
    /// An error of your own [`DataSource`](super::DataSource).
    pub fn other(error: impl Into<BoxError>) -> Self {
        Self::Other(error.into())
    }

    /// A [`DataError::Position`], with the reason why the position does not fit.
    pub fn position(reason: impl Into<BoxError>) -> Self {
        Self::Position(reason.into())
    }
}

/// A text that the tokenizer refuses.
#[derive(Debug, Error)]
#[error("{}: a text cannot be tokenized: {source}; check its normalizer and model", path.display())]
pub struct TokenizeError {
    /// The `tokenizer.json`.
    pub path: PathBuf,
    /// The tokenizer's own error.
    pub source: BoxError,
}
