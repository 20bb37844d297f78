//! The files of a published model that describe its image processor.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use dip_core::SpecError;
use dip_core::hf::{ImageProcessorConfig, ProcessorFiles};

use crate::data::DataError;

/// Most bytes of a file.
const MAX_BYTES: u64 = 1 << 20;

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
    if !path.is_file() {
        return Ok(None);
    }
    let failed = |source| DataError::Io { path: path.to_owned(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    let read = file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if read as u64 > MAX_BYTES {
        let source =
            SpecError::Syntax(format!("it has more than {MAX_BYTES} bytes; this is no such file"));
        return Err(DataError::Processor { path: path.to_owned(), source: source.into() });
    }
    Ok(Some(text))
}
