//! One sample of a shard: its members become a document or a captioned video.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use minijinja::Value;

use crate::data::document::Document;
use crate::data::error::DataError;
use crate::data::picture::Picture;
use crate::data::samples::{SamplePictures, conversation, field, text_field};
use crate::data::skip::SkipReason;
use crate::data::video::{CaptionedVideo, Video};

/// Most pictures of one sample.
const MAX_PICTURES: usize = 4096;
/// Frame rate of numbered pictures without `fps` in their `.json`.
const FRAMES_PER_SECOND: f64 = 24.0;

/// Largest sizes that are read; larger samples are skipped and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeLimits {
    /// Bytes of one member.
    pub member_bytes: u64,
    /// Bytes of all members of one sample.
    pub sample_bytes: u64,
}

impl Default for SizeLimits {
    fn default() -> Self {
        Self { member_bytes: 32 << 20, sample_bytes: 256 << 20 }
    }
}

/// A file of a tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// The part of its base name after the first dot, in lower case.
    pub extension: String,
    /// Offset of its content in the tar, in bytes.
    pub offset: u64,
    /// Bytes of its content.
    pub bytes: u64,
}

/// Members with the same stem: folder and base name up to its first dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ShardSample {
    pub stem: String,
    pub members: Vec<Member>,
}

/// The reason why a sample gives no document.
pub(super) enum Unusable {
    /// The sample is broken.
    Skip(SkipReason),
    /// The shard cannot be read.
    Data(DataError),
}

/// Reads the members of one sample.
pub(super) struct SampleReader<'a> {
    pub path: &'a Path,
    pub file: &'a mut File,
    pub sample: &'a ShardSample,
    pub limits: &'a SizeLimits,
}

impl<'a> SampleReader<'a> {
    /// Text and pictures.
    pub fn document(&mut self) -> Result<Document, Unusable> {
        let members = &self.sample.members;
        let pictures = numbered_pictures(self.sample);
        let used = members.iter().filter(|m| is_text(m) || picture_number(&m.extension).is_some());
        let bytes = used.fold(0u64, |sum, m| sum.saturating_add(m.bytes));
        if bytes > self.limits.sample_bytes || pictures.len() > MAX_PICTURES {
            return Err(Unusable::Skip(SkipReason::Oversized));
        }
        let pictures: Vec<Picture> =
            pictures.into_iter().map(|(_, m)| self.picture(m)).collect::<Result<_, _>>()?;
        let text = match self.plain_text()? {
            Some(text) => text,
            None => {
                let json = self.json()?.ok_or(SkipReason::MissingText)?;
                let mut members = MemberPictures(pictures.clone().into_iter());
                if let Some(document) = conversation(&json, &mut members)? {
                    return Ok(document);
                }
                json_text(&json).ok_or(SkipReason::MissingText)?
            }
        };
        if pictures.is_empty() && text.trim().is_empty() {
            return Err(Unusable::Skip(SkipReason::Empty));
        }
        Document::interleave(&text, pictures).ok_or(Unusable::Skip(SkipReason::WrongMarks))
    }

    /// A caption and a video: one file, or else the pictures of its frames.
    pub fn video(&mut self) -> Result<CaptionedVideo, Unusable> {
        let members = &self.sample.members;
        if members.iter().fold(0u64, |sum, m| sum.saturating_add(m.bytes))
            > self.limits.sample_bytes
        {
            return Err(Unusable::Skip(SkipReason::Oversized));
        }
        let caption = match self.plain_text()? {
            Some(text) => text,
            None => self.json()?.as_ref().and_then(json_text).ok_or(SkipReason::MissingText)?,
        };
        let files: [(&str, VideoFormat); 6] = [
            ("safetensors", Video::Latents),
            ("npy", Video::Latents),
            ("gif", Video::Gif),
            ("webp", Video::WebP),
            ("mp4", Video::Ffmpeg),
            ("webm", Video::Ffmpeg),
        ];
        let file = files.iter().find_map(|(end, format)| Some((self.member(end)?, format)));
        let video = match file {
            Some((member, format)) => format(self.bytes(member)?.into()),
            None => self.frames()?,
        };
        Ok(CaptionedVideo { video, caption })
    }

    fn frames(&mut self) -> Result<Video, Unusable> {
        let members = numbered_pictures(self.sample);
        if members.is_empty() {
            return Err(Unusable::Skip(SkipReason::MissingVideo));
        }
        if members.len() > MAX_PICTURES {
            return Err(Unusable::Skip(SkipReason::Oversized));
        }
        let pictures: Vec<Picture> =
            members.into_iter().map(|(_, m)| self.picture(m)).collect::<Result<_, _>>()?;
        let json = self.json()?;
        let fps = json.as_ref().and_then(|json| field(json, "fps"));
        let fps = fps.and_then(|fps| f64::try_from(fps).ok());
        match fps.unwrap_or(FRAMES_PER_SECOND) {
            per_second if per_second > 0.0 && per_second <= 1e4 => {
                Ok(Video::Frames { pictures: pictures.into(), per_second })
            }
            _ => Err(Unusable::Skip(SkipReason::BrokenVideo)),
        }
    }

    /// The text of the `.txt`, if there is one.
    fn plain_text(&mut self) -> Result<Option<String>, Unusable> {
        let Some(member) = self.member("txt") else { return Ok(None) };
        let text = String::from_utf8(self.bytes(member)?).map_err(|_| SkipReason::InvalidText)?;
        Ok(Some(text))
    }

    fn json(&mut self) -> Result<Option<Value>, Unusable> {
        let Some(member) = self.member("json") else { return Ok(None) };
        let json = serde_json::from_slice(&self.bytes(member)?);
        json.map(Some).map_err(|_| Unusable::Skip(SkipReason::InvalidJson))
    }

    fn member(&self, extension: &str) -> Option<&'a Member> {
        self.sample.members.iter().find(|m| m.extension == extension)
    }

    fn picture(&mut self, member: &Member) -> Result<Picture, Unusable> {
        let picture = Picture::Encoded(self.bytes(member)?.into());
        match picture.check() {
            Ok(()) => Ok(picture),
            Err(error) => Err(Unusable::Skip(error.reason())),
        }
    }

    fn bytes(&mut self, member: &Member) -> Result<Vec<u8>, Unusable> {
        if member.bytes > self.limits.member_bytes {
            return Err(Unusable::Skip(SkipReason::Oversized));
        }
        let mut bytes = vec![0; member.bytes as usize];
        let read = self
            .file
            .seek(SeekFrom::Start(member.offset))
            .and_then(|_| self.file.read_exact(&mut bytes));
        read.map_err(|source| Unusable::Data(DataError::Io { path: self.path.into(), source }))?;
        Ok(bytes)
    }
}

impl From<SkipReason> for Unusable {
    fn from(reason: SkipReason) -> Self {
        Self::Skip(reason)
    }
}

/// The pictures of a sample. Messages name the files that a shard was made from, so a name stands for the next picture.
struct MemberPictures(std::vec::IntoIter<Picture>);

impl SamplePictures for MemberPictures {
    fn next(&mut self) -> Option<Picture> {
        self.0.next()
    }

    fn named(&mut self, _name: &str) -> Result<Picture, SkipReason> {
        self.0.next().ok_or(SkipReason::WrongMarks)
    }
}

/// Ends of the names of pictures. Samples with formats that are not read are skipped and counted.
const PICTURE_FORMATS: [&str; 11] =
    ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "heic", "jxl"];

/// Makes a video from the bytes of a member.
type VideoFormat = fn(Arc<[u8]>) -> Video;

/// The pictures of a sample, ordered by number.
fn numbered_pictures(sample: &ShardSample) -> Vec<(u64, &Member)> {
    let number = |m: &Member| picture_number(&m.extension);
    let mut pictures: Vec<(u64, &Member)> =
        sample.members.iter().filter_map(|m| Some((number(m)?, m))).collect();
    pictures.sort_by_key(|&(number, _)| number);
    pictures
}

/// The `text` or `caption` of a `.json`.
fn json_text(json: &Value) -> Option<String> {
    ["text", "caption"].iter().find_map(|name| text_field(json, name))
}

fn is_text(member: &Member) -> bool {
    member.extension == "txt" || member.extension == "json"
}

/// The number of a picture in its sample: `png` is 0, `3.png` is 3. `None` for members that are not pictures.
fn picture_number(extension: &str) -> Option<u64> {
    let (number, format) = extension.rsplit_once('.').unwrap_or(("0", extension));
    PICTURE_FORMATS.contains(&format).then(|| number.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_ordered_by_number() {
        assert_eq!(picture_number("png"), Some(0));
        assert_eq!(picture_number("10.jpeg"), Some(10));
        assert_eq!(picture_number("txt"), None);
        assert_eq!(picture_number("seg.png"), Some(u64::MAX));
    }
}
