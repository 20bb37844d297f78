//! Reads `video_preprocessor_config.json`: which frames of a video a model of the Qwen-VL family sees, and at which size.

use serde::{Deserialize, Serialize};

use super::{MAX_PIXELS, NativeRule, PROCESSOR, ProcessorFiles, parsed};
use crate::hf::fields::Fields;
use crate::spec::{FieldError, SpecError};

const FILE: &str = "video_preprocessor_config.json";
const REMEDY: &str = "take the file that came with the weights, or remove it and set [data.video]";
/// Most frames of a video.
const MAX_FRAMES: u32 = 1 << 16;

/// What a file says of videos. Absent fields are `None`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct VideoProcessorConfig {
    /// Frames per second.
    pub fps: Option<f64>,
    /// Fewest frames, if the video has as many.
    pub min_frames: Option<u32>,
    /// Most frames.
    pub max_frames: Option<u32>,
    /// Fewest pixels of a frame.
    pub min_pixels: Option<u64>,
    /// Most pixels of a frame.
    pub max_pixels: Option<u64>,
    /// The tokens that all frames together may take, if frames become smaller in long videos (`cap_pixels_per_frame`).
    pub max_video_tokens: Option<u32>,
}

impl VideoProcessorConfig {
    /// Reads the video processor of a model whose pictures follow `pictures`: `video_preprocessor_config.json`, or `video_processor` of
    /// `processor_config.json`. `None` if no file describes one.
    ///
    /// # Errors
    /// [`SpecError`] names the field, its value, the limit and the remedy.
    pub fn read(
        video: Option<&str>,
        files: ProcessorFiles<'_>,
        pictures: &NativeRule,
    ) -> Result<Option<Self>, SpecError> {
        let own = parsed(video, FILE)?;
        if let Some(json) = &own {
            return Self::of(&Fields::of_file(json, FILE)?, pictures).map(Some);
        }
        let processor = parsed(files.processor, PROCESSOR)?;
        let Some(json) = &processor else { return Ok(None) };
        let nested = Fields::of_file(json, PROCESSOR)?.child("video_processor")?;
        nested.map(|video| Self::of(&video, pictures)).transpose()
    }

    fn of(video: &Fields<'_>, pictures: &NativeRule) -> Result<Self, SpecError> {
        let own = [pictures.patch_px, pictures.merge, pictures.frames];
        for (name, own) in ["patch_size", "merge_size", "temporal_patch_size"].into_iter().zip(own)
        {
            let found = video.size_or(name, own)?;
            if found != own {
                let limit = format!("{own}, that of pictures");
                return Err(video.error(name, found.to_string(), &limit, REMEDY));
            }
        }
        if video.is_number("num_frames") {
            let limit = "absent: frames are chosen by fps";
            return Err(video.error("num_frames", video.shown("num_frames"), limit, REMEDY));
        }
        let size = video.child("size")?;
        let pixels = |name, edge| -> Result<Option<u64>, SpecError> {
            let outside = video.optional_count(name)?;
            let inside = size.as_ref().map(|size| size.optional_count(edge)).transpose()?;
            Ok(outside.or(inside.flatten()))
        };
        let found = Self {
            fps: video.optional_number("fps")?,
            min_frames: video.optional_size("min_frames")?,
            max_frames: video.optional_size("max_frames")?,
            min_pixels: pixels("min_pixels", "shortest_edge")?,
            max_pixels: pixels("max_pixels", "longest_edge")?,
            max_video_tokens: match video.flag_or("cap_pixels_per_frame", false)? {
                true => Some(video.size_or("max_video_tokens", 128_000)?),
                false => None,
            },
        };
        found.validate(FILE)?;
        Ok(found)
    }

    /// Checks every field. `path` is the path of the fields in their file.
    ///
    /// # Errors
    /// [`FieldError`] for the first field outside its limit.
    pub fn validate(&self, path: &str) -> Result<(), FieldError> {
        let path = |name: &str| format!("{path}.{name}");
        let check = |name: &str, value: Option<u64>, most: u64| {
            FieldError::check_range(path(name), value.unwrap_or(1), 1..=most, REMEDY)
        };
        FieldError::check_range(path("fps"), self.fps.unwrap_or(1.0), 1e-3..=1e3, REMEDY)?;
        check("min_frames", self.min_frames.map(u64::from), MAX_FRAMES.into())?;
        let frames = self.max_frames.map(u64::from);
        let least = u64::from(self.min_frames.unwrap_or(1));
        let range = least..=MAX_FRAMES.into();
        FieldError::check_range(path("max_frames"), frames.unwrap_or(least), range, REMEDY)?;
        check("min_pixels", self.min_pixels, MAX_PIXELS)?;
        let least = self.min_pixels.unwrap_or(1);
        let most = self.max_pixels.unwrap_or(least);
        FieldError::check_range(path("max_pixels"), most, least..=MAX_PIXELS, REMEDY)?;
        check("max_video_tokens", self.max_video_tokens.map(u64::from), 1 << 24)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<VideoProcessorConfig, String> {
        let pictures = NativeRule::usual(14, 2, 2);
        let found = VideoProcessorConfig::read(Some(text), ProcessorFiles::default(), &pictures);
        found.map(Option::unwrap).map_err(|error| error.to_string())
    }

    #[test]
    fn fields_of_published_files_are_read() {
        let text = r#"{"size":{"shortest_edge":3136,"longest_edge":602112},"fps":2.0,"min_frames":4,"max_frames":768,
            "patch_size":14,"merge_size":2,"temporal_patch_size":2,"video_processor_type":"Qwen2VLVideoProcessor"}"#;
        let expected = VideoProcessorConfig {
            fps: Some(2.0),
            min_frames: Some(4),
            max_frames: Some(768),
            min_pixels: Some(3136),
            max_pixels: Some(602_112),
            max_video_tokens: None,
        };
        assert_eq!(read(text), Ok(expected));
        let capped = read(r#"{"min_pixels":784,"cap_pixels_per_frame":true}"#).unwrap();
        assert_eq!((capped.min_pixels, capped.max_video_tokens), (Some(784), Some(128_000)));
        let processor = Some(r#"{"video_processor":{"fps":1}}"#);
        let files = ProcessorFiles { processor, ..ProcessorFiles::default() };
        let rule = NativeRule::usual(14, 2, 2);
        let nested = VideoProcessorConfig::read(None, files, &rule).unwrap().unwrap();
        assert_eq!(nested.fps, Some(1.0));
        assert_eq!(VideoProcessorConfig::read(None, ProcessorFiles::default(), &rule), Ok(None));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (text, named) in [
            (
                r#"{"patch_size":16}"#,
                "video_preprocessor_config.json: patch_size is 16, but must be 14",
            ),
            (r#"{"num_frames":8}"#, "num_frames is 8"),
            (r#"{"fps":0}"#, "fps is 0"),
            (r#"{"max_frames":9999999}"#, "max_frames is 9999999"),
            (r#"{"min_pixels":5000,"max_pixels":400}"#, "max_pixels is 400"),
            ("{", "video_preprocessor_config.json: "),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
