//! One sample of a shard: its members become a document or a captioned video.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use minijinja::Value;

use super::index::{Member, Place, SampleIndex};
use super::known::KnownSample;
use super::pictures::{
    IsKnown, MemberPictures, NamedPictures, PictureFolder, VIDEO_FORMATS, checked,
    is_known_picture, is_known_sound, is_known_video, video_format,
};
use crate::data::document::{Document, DocumentMedia, VIDEO_MARK};
use crate::data::encoded::{Encoded, StoredBytes, StoredFile};
use crate::data::error::DataError;
use crate::data::samples::{SamplePictures, conversation, field, file_names, text_field};
use crate::data::skip::SkipReason;
use crate::data::sound::Recording;
use crate::data::video::{CaptionedVideo, Video};

/// Most pictures, sounds and videos of one sample.
const MAX_PICTURES: usize = 4096;
/// Frame rate of numbered pictures without `fps` in their `.json`.
const FRAMES_PER_SECOND: f64 = 24.0;
/// Formats of pictures, read or not: a sample with one that is not read is skipped, and not trained without its picture.
const PICTURE_FORMATS: [&str; 14] = [
    "jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "heic", "heif", "jxl",
    "jp2", "jfif",
];
/// Formats of sounds. All but WAV need the feature `audio`.
const SOUND_FORMATS: [&str; 4] = ["wav", "flac", "mp3", "ogg"];
/// First bytes of a WebP file in which an animation is announced.
const ANIMATION_HEADER_BYTES: usize = 64;

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

/// The reason why a sample gives no document.
pub(super) enum Unusable {
    /// The sample is broken.
    Skip(SkipReason),
    /// The shard cannot be read.
    Data(DataError),
}

impl From<SkipReason> for Unusable {
    fn from(reason: SkipReason) -> Self {
        Self::Skip(reason)
    }
}

/// Reads the members of one sample.
pub(super) struct SampleReader<'a> {
    pub path: &'a Path,
    pub file: &'a Mutex<File>,
    /// The file for media that are read later.
    pub stored: &'a StoredFile,
    pub sample: &'a SampleIndex,
    pub limits: &'a SizeLimits,
    /// The folder of the pictures of a JSON file.
    pub folder: Option<&'a PictureFolder>,
    /// What is known of the sample.
    pub known: &'a mut KnownSample,
}

impl SampleReader<'_> {
    /// Text, pictures, sounds and videos.
    pub fn document(&mut self) -> Result<Document, Unusable> {
        let members = numbered(self.sample, |format| is_picture(format) || is_video(format));
        let recordings = numbered(self.sample, is_sound);
        let texts = self.sample.members.iter().filter(|m| is_text(m));
        let media = members.iter().chain(&recordings).map(|&(_, member)| member);
        self.check_size(texts.chain(media))?;
        let most_bytes = self.limits.member_bytes;
        let mut sounds = Vec::with_capacity(recordings.len());
        for (_, member) in recordings {
            sounds.push(Recording::Encoded(self.media(member, is_known_sound)?));
        }
        if let Some(text) = self.plain_text()? {
            let media = self.visuals(members, text.contains(VIDEO_MARK))?;
            return plain(&text, DocumentMedia { sounds, ..media });
        }
        let json = self.json()?.ok_or(SkipReason::MissingText)?;
        match self.folder {
            Some(folder) => {
                let names = |fields| file_names(&json, fields);
                let listed = names(&["image", "images"]).ok_or(SkipReason::InvalidConversation)?;
                let sounds = names(&["audio", "audios"]).ok_or(SkipReason::InvalidConversation)?;
                let videos = names(&["video", "videos"]).ok_or(SkipReason::InvalidConversation)?;
                if listed.len() + sounds.len() + videos.len() > MAX_PICTURES {
                    return Err(SkipReason::Oversized.into());
                }
                let (listed, sounds, videos) = (listed.into(), sounds.into(), videos.into());
                let known = &mut *self.known;
                let mut named = NamedPictures { listed, sounds, videos, folder, most_bytes, known };
                json_document(&json, &mut named)
            }
            None => {
                let media = self.visuals(members, shows_videos(&json))?;
                let media = DocumentMedia { sounds, ..media };
                json_document(&json, &mut MemberPictures::new(media, most_bytes))
            }
        }
    }

    /// The pictures and videos among some members. GIF and animated WebP are videos if the text shows videos.
    fn visuals(
        &mut self,
        members: Vec<(u64, &Member)>,
        shows_videos: bool,
    ) -> Result<DocumentMedia, Unusable> {
        let mut media = DocumentMedia::default();
        for (_, member) in members {
            let format = member.extension.rsplit('.').next().unwrap_or_default();
            let may_be_video = shows_videos || !is_picture(format);
            let video = video_format(format).filter(|_| may_be_video);
            let is_known = if video.is_some() { is_known_video } else { is_known_picture };
            let file = self.media(member, is_known)?;
            let may_be_still = video.is_some() && format == "webp";
            let is_still = may_be_still && !is_known_video(file.facts()) && {
                let bytes = file.bytes().map_err(Unusable::Data)?;
                !bytes.windows(4).take(ANIMATION_HEADER_BYTES).any(|w| w == b"ANIM")
            };
            match video.filter(|_| !is_still) {
                Some(video) => media.videos.push(video(file)),
                None => media.pictures.push(checked(file)?),
            }
        }
        Ok(media)
    }

    /// A caption and a video: one file, or else the pictures of its frames.
    pub fn video(&mut self) -> Result<CaptionedVideo, Unusable> {
        self.check_size(self.sample.members.iter())?;
        let (text, json) = match self.plain_text()? {
            Some(text) => (Some(text), None),
            None => {
                let json = self.json()?;
                (json.as_ref().and_then(json_text), json)
            }
        };
        let caption = text.ok_or(SkipReason::MissingText)?;
        if let (Some(folder), Some(json)) = (self.folder, &json) {
            let name = text_field(json, "video").ok_or(SkipReason::MissingVideo)?;
            let end = name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
            let format = video_format(&end).ok_or(SkipReason::MissingVideo)?;
            let most = self.limits.member_bytes;
            let file = folder.file(&name, most, self.known, is_known_video)?;
            return Ok(CaptionedVideo { video: format(file), caption });
        }
        let file = VIDEO_FORMATS.iter().find_map(|(end, f)| Some((self.sample.member(end)?, f)));
        let video = match file {
            Some((member, format)) => format(self.media(member, is_known_video)?),
            None => self.frames()?,
        };
        Ok(CaptionedVideo { video, caption })
    }

    fn frames(&mut self) -> Result<Video, Unusable> {
        let members = numbered(self.sample, is_picture);
        if members.is_empty() {
            return Err(SkipReason::MissingVideo.into());
        }
        let mut pictures = Vec::with_capacity(members.len());
        for (_, member) in members {
            pictures.push(checked(self.media(member, is_known_picture)?)?);
        }
        let fps = self.json()?.as_ref().and_then(|json| field(json, "fps"));
        let fps = fps.and_then(|fps| f64::try_from(fps).ok());
        match fps.unwrap_or(FRAMES_PER_SECOND) {
            per_second if per_second > 0.0 && per_second <= 1e4 => {
                Ok(Video::Frames { pictures: pictures.into(), per_second })
            }
            _ => Err(SkipReason::BrokenVideo.into()),
        }
    }

    /// The text of the `.txt`, if there is one.
    fn plain_text(&mut self) -> Result<Option<String>, Unusable> {
        let Some(member) = self.sample.member("txt") else { return Ok(None) };
        let text = String::from_utf8(self.bytes(member)?).map_err(|_| SkipReason::InvalidText)?;
        Ok(Some(text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned()))
    }

    fn json(&mut self) -> Result<Option<Value>, Unusable> {
        let Some(member) = self.sample.member("json") else { return Ok(None) };
        let bytes = self.bytes(member)?;
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        let json = serde_json::from_slice(bytes);
        Ok(Some(json.map_err(|_| SkipReason::InvalidJson)?))
    }

    fn check_size<'m>(&self, members: impl Iterator<Item = &'m Member>) -> Result<(), SkipReason> {
        let (mut bytes, mut count) = (0u64, 0);
        for place in members.filter_map(|member| member.place) {
            (bytes, count) = (bytes.saturating_add(place.bytes), count + 1);
        }
        let fits = bytes <= self.limits.sample_bytes && count <= MAX_PICTURES;
        if fits { Ok(()) } else { Err(SkipReason::Oversized) }
    }

    /// A picture, sound or video. It is read unless `is_known` of its facts.
    fn media(&mut self, member: &Member, is_known: IsKnown) -> Result<Encoded, Unusable> {
        let Place { offset, bytes } = self.place(member)?;
        let facts = self.known.facts(&member.extension, bytes, None);
        if is_known(&facts) {
            let stored = StoredBytes { file: self.stored.clone(), offset, bytes };
            return Ok(Encoded::stored(stored, facts));
        }
        Ok(Encoded::in_memory(self.bytes(member)?, facts))
    }

    fn place(&self, member: &Member) -> Result<Place, SkipReason> {
        let place = member.place.ok_or(SkipReason::UnreadableMember)?;
        match place.bytes > self.limits.member_bytes {
            true => Err(SkipReason::Oversized),
            false => Ok(place),
        }
    }

    fn bytes(&mut self, member: &Member) -> Result<Vec<u8>, Unusable> {
        let Place { offset, bytes } = self.place(member)?;
        let mut content = vec![0; bytes as usize];
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let sought = file.seek(SeekFrom::Start(offset));
        let read = sought.and_then(|_| file.read_exact(&mut content));
        read.map_err(|source| Unusable::Data(DataError::Io { path: self.path.into(), source }))?;
        Ok(content)
    }
}

/// A conversation, or a text with its pictures, sounds and videos.
fn json_document(json: &Value, pictures: &mut dyn SamplePictures) -> Result<Document, Unusable> {
    if let Some(document) = conversation(json, pictures)? {
        return Ok(document);
    }
    let text = json_text(json).ok_or(SkipReason::MissingText)?;
    let mut media = DocumentMedia::default();
    while let Some(picture) = pictures.next()? {
        media.pictures.push(picture);
    }
    while let Some(video) = pictures.next_video()? {
        media.videos.push(video);
    }
    while let Some(sound) = pictures.next_sound()? {
        media.sounds.push(sound);
    }
    plain(&text, media)
}

/// True if a `.json` has the mark, a part or the field of a video.
fn shows_videos(json: &Value) -> bool {
    let text = json.to_string();
    let names = [VIDEO_MARK, "\"video\"", "\"videos\"", "\"video_url\""];
    names.into_iter().any(|name| text.contains(name))
}

fn plain(text: &str, media: DocumentMedia) -> Result<Document, Unusable> {
    if media.is_empty() && text.trim().is_empty() {
        return Err(SkipReason::Empty.into());
    }
    Document::interleave_media(text, media).ok_or(SkipReason::WrongMarks.into())
}

/// The `text` or `caption` of a `.json`.
fn json_text(json: &Value) -> Option<String> {
    ["text", "caption"].iter().find_map(|name| text_field(json, name))
}

/// The members of a sample in one of some formats, ordered by number.
fn numbered(sample: &SampleIndex, is_format: impl Fn(&str) -> bool) -> Vec<(u64, &Member)> {
    let members = sample.members.iter();
    let mut members: Vec<_> =
        members.filter_map(|m| Some((number(&m.extension, &is_format)?, m))).collect();
    members.sort_by_key(|&(number, _)| number);
    members
}

fn is_picture(format: &str) -> bool {
    PICTURE_FORMATS.contains(&format)
}

fn is_sound(format: &str) -> bool {
    SOUND_FORMATS.contains(&format)
}

/// True for videos with frames.
fn is_video(format: &str) -> bool {
    !matches!(format, "safetensors" | "npy") && video_format(format).is_some()
}

fn is_text(member: &Member) -> bool {
    matches!(&*member.extension, "txt" | "json")
}

/// The number of a member in its sample: `png` is 0, `3.png` is 3. `None` for members of other formats, and for those that do not
/// belong to the text, such as `seg.png`.
fn number(extension: &str, is_format: impl Fn(&str) -> bool) -> Option<u64> {
    let (number, format) = extension.rsplit_once('.').unwrap_or(("0", extension));
    is_format(format).then(|| number.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_ordered_by_number() {
        assert_eq!(number("png", is_picture), Some(0));
        assert_eq!(number("10.jpeg", is_picture), Some(10));
        assert_eq!(number("avif", is_picture), Some(0));
        assert_eq!(number("txt", is_picture), None);
        assert_eq!(number("seg.png", is_picture), None);
    }
}
