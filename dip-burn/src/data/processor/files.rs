//! The files of a published model that describe its image processor.

use std::path::Path;

use dip_core::SpecError;
use dip_core::hf::{ImageProcessorConfig, ProcessorFiles, VideoProcessorConfig};
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
        ImageProcessorConfig::read(files).map_err(|source| wrong(folder, source))
    }

    /// The same processor with what the files in `folder` say of videos, if the model takes them.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn with_video_files(self, folder: &Path) -> Result<Self, DataError> {
        let Some((pictures, _)) = self.videos else { return Ok(self) };
        let video = text(&folder.join("video_preprocessor_config.json"))?;
        let processor = text(&folder.join("processor_config.json"))?;
        let files = ProcessorFiles { processor: processor.as_deref(), ..ProcessorFiles::default() };
        let found = VideoProcessorConfig::read(video.as_deref(), files, &pictures);
        let found = found.map_err(|source| wrong(folder, source))?.unwrap_or_default();
        Ok(self.with_video_settings(&found))
    }
}

fn wrong(folder: &Path, source: SpecError) -> DataError {
    DataError::Processor { path: folder.to_owned(), source: source.into() }
}

/// The text of a small file of a model; `None` if there is no such file.
pub(crate) fn text(path: &Path) -> Result<Option<String>, DataError> {
    if !path.exists() {
        return Ok(None);
    }
    let failed = |source| DataError::Io { path: path.to_owned(), source };
    dip_files::read_text(path, Kind::CONFIG).map(Some).map_err(failed)
}
