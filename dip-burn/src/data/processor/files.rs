//! The files of a published model that describe its image processor.

use std::path::Path;

use dip_core::SpecError;
use dip_core::hf::{ImageProcessorConfig, ProcessorFiles};
use dip_files::Kind;

use crate::data::DataError;

impl super::ImageProcessor {
    /// Reads the image processor of the model in `folder`, from `preprocessor_config.json` or `processor_config.json`; `None` if
    /// no file describes one.
    ///
    /// # Errors
    /// [`DataError`] names the file, the field and the remedy.
    pub fn read(folder: &Path) -> Result<Option<ImageProcessorConfig>, DataError> {
        let preprocessor = text(&folder.join("preprocessor_config.json"))?;
        let processor = text(&folder.join("processor_config.json"))?;
        let model = text(&folder.join("config.json"))?;
        let files = ProcessorFiles {
            preprocessor: preprocessor.as_deref(),
            processor: processor.as_deref(),
            model: model.as_deref(),
        };
        let wrong = |source: SpecError| DataError::Processor {
            path: folder.to_owned(),
            source: source.into(),
        };
        ImageProcessorConfig::read(files).map_err(wrong)
    }
}

/// The text of a file; `None` if there is no such file.
fn text(path: &Path) -> Result<Option<String>, DataError> {
    if !path.exists() {
        return Ok(None);
    }
    let failed = |source| DataError::Io { path: path.to_owned(), source };
    dip_files::read_text(path, Kind::CONFIG).map(Some).map_err(failed)
}
