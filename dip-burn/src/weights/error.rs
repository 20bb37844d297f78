//! Errors of weight files.

use std::error::Error;
use std::path::{Path, PathBuf};

use dip_core::SpecError;
use thiserror::Error;

/// Weights that cannot be read or written.
#[derive(Debug, Error)]
pub enum WeightsError {
    /// A file could not be read or written.
    #[error("{}: {source}; check the path, the disk and the permissions", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file has the wrong format.
    #[error("{}: {source}; {remedy}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The fault of the file.
        source: Box<dyn Error + Send + Sync>,
        /// The remedy.
        remedy: &'static str,
    },
    /// A `config.json` cannot be used.
    #[error("{}: {source}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The fault of the file.
        source: SpecError,
    },
    /// Tensors that the model needs are missing.
    #[error(
        "{}: {count} tensors are missing, the first: {name:?}; get every shard of the model, or take the config.json that came \
         with it",
        path.display()
    )]
    Missing {
        /// The folder.
        path: PathBuf,
        /// Their number.
        count: usize,
        /// The first of them.
        name: String,
    },
    /// The model has no parameters for some tensors.
    #[error(
        "{}: {count} tensors belong to nothing in the model, the first: {name:?}; take the config.json that came with the \
         weights",
        path.display()
    )]
    Extra {
        /// The folder.
        path: PathBuf,
        /// Their number.
        count: usize,
        /// The first of them.
        name: String,
    },
    /// A tensor has the wrong shape.
    #[error(
        "{}: tensor {name:?} has shape {found:?}, but must be {expected:?}; take the config.json that came with the weights",
        path.display()
    )]
    Shape {
        /// The folder.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The shape it has.
        found: Vec<usize>,
        /// The shape that the model needs.
        expected: Vec<usize>,
    },
    /// A parameter has no place in files of this architecture.
    #[error(
        "parameter {name:?} has no place in weights of this architecture; name the modules of the model \"vision\" and \
         \"language\", as a config.json gives them"
    )]
    Unknown {
        /// The parameter.
        name: String,
    },
}

impl WeightsError {
    /// Makes a [`WeightsError::Format`] about `path`.
    pub(super) fn format(
        path: &Path,
        source: impl Into<Box<dyn Error + Send + Sync>>,
        remedy: &'static str,
    ) -> Self {
        Self::Format { path: path.to_owned(), source: source.into(), remedy }
    }

    /// Turns a system error about `path` into [`WeightsError::Io`].
    pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}
