//! The pictures, sounds and videos of a sample: members beside its text, files of a folder, or data inside the text.

use std::collections::VecDeque;
use std::fs;
use std::path::{Component, Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dip_files::Kind;

use super::index_file::modified_ns;
use super::known::KnownSample;
use crate::data::document::DocumentMedia;
use crate::data::encoded::{Encoded, MediaFacts, StoredBytes, StoredFile};
use crate::data::picture::Picture;
use crate::data::samples::SamplePictures;
use crate::data::skip::SkipReason;
use crate::data::sound::Recording;
use crate::data::video::Video;

/// Formats of videos.
pub(super) const VIDEO_FORMATS: [(&str, VideoFormat); 9] = [
    ("safetensors", Video::Latents),
    ("npy", Video::Latents),
    ("gif", Video::Gif),
    ("webp", Video::WebP),
    ("mp4", Video::Ffmpeg),
    ("webm", Video::Ffmpeg),
    ("mov", Video::Ffmpeg),
    ("mkv", Video::Ffmpeg),
    ("avi", Video::Ffmpeg),
];

/// Makes a video from the bytes of a member.
pub(super) type VideoFormat = fn(Encoded) -> Video;

/// The format of a video by the end of its name.
pub(super) fn video_format(end: &str) -> Option<VideoFormat> {
    VIDEO_FORMATS.iter().find(|(known, _)| *known == end).map(|&(_, format)| format)
}

/// A folder of pictures that samples name by their paths in it.
#[derive(Debug, Clone)]
pub(super) struct PictureFolder(PathBuf);

impl PictureFolder {
    pub fn new(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    /// A file of the folder. It is read unless `is_known` of its facts.
    ///
    /// # Errors
    /// The reason to skip the sample: the file is not there, not inside the folder, or too large.
    pub fn file(
        &self,
        name: &str,
        most: u64,
        known: &mut KnownSample,
        is_known: IsKnown,
    ) -> Result<Encoded, SkipReason> {
        let name = name.strip_prefix("file://").unwrap_or(name);
        let inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        if name.is_empty() || !Path::new(name).components().all(inside) {
            return Err(SkipReason::OutsidePicture);
        }
        let path = self.0.join(name);
        let metadata = fs::metadata(&path).map_err(|_| SkipReason::MissingPicture)?;
        if metadata.len() > most {
            return Err(SkipReason::Oversized);
        }
        let facts = known.facts(name, metadata.len(), modified_ns(&metadata));
        if is_known(&facts) && metadata.is_file() {
            let file = StoredFile::Named(path.into());
            return Ok(Encoded::stored(
                StoredBytes { file, offset: 0, bytes: metadata.len() },
                facts,
            ));
        }
        let read = dip_files::read(&path, Kind::MEDIA).map_err(|_| SkipReason::MissingPicture)?;
        Ok(Encoded::in_memory(read, facts))
    }
}

/// Tells from the facts of a file whether it need not be read yet.
pub(super) type IsKnown = fn(&MediaFacts) -> bool;

/// True if the file is a picture of known size.
pub(super) fn is_known_picture(facts: &MediaFacts) -> bool {
    facts.picture.get().is_some()
}

/// True if the file is a video of known frames.
pub(super) fn is_known_video(facts: &MediaFacts) -> bool {
    facts.video.get().is_some()
}

/// True if the file is a sound of known length.
pub(super) fn is_known_sound(facts: &MediaFacts) -> bool {
    facts.sound().is_some()
}

/// An encoded picture whose file is whole.
///
/// # Errors
/// The reason to skip the sample.
pub(super) fn checked(file: Encoded) -> Result<Picture, SkipReason> {
    let picture = Picture::Encoded(file);
    picture.check().map_err(|error| error.reason())?;
    Ok(picture)
}

/// The picture of a `data:` URI; `None` for other names.
fn inline(name: &str, most: u64) -> Option<Result<Picture, SkipReason>> {
    Some(
        inline_bytes(name, most, SkipReason::BrokenPicture)?
            .and_then(|bytes| checked(bytes.into())),
    )
}

/// The bytes of a `data:` URI, or `broken` if they cannot be read; `None` for other names.
fn inline_bytes(name: &str, most: u64, broken: SkipReason) -> Option<Result<Vec<u8>, SkipReason>> {
    let (kind, data) = name.strip_prefix("data:")?.split_once(',')?;
    if !kind.ends_with(";base64") {
        return Some(Err(broken));
    }
    if data.len() as u64 / 4 * 3 > most {
        return Some(Err(SkipReason::Oversized));
    }
    Some(STANDARD.decode(data.trim()).map_err(|_| broken))
}

/// Pictures that are members of the sample. A name in a message is the name of a file that the shard was made from, so it stands
/// for the next picture.
pub(super) struct MemberPictures {
    members: VecDeque<Picture>,
    sounds: VecDeque<Recording>,
    videos: VecDeque<Video>,
    most_bytes: u64,
}

impl MemberPictures {
    pub fn new(media: DocumentMedia, most_bytes: u64) -> Self {
        let DocumentMedia { pictures, videos, sounds } = media;
        Self { members: pictures.into(), sounds: sounds.into(), videos: videos.into(), most_bytes }
    }
}

impl SamplePictures for MemberPictures {
    fn next(&mut self) -> Result<Option<Picture>, SkipReason> {
        Ok(self.members.pop_front())
    }

    fn named(&mut self, name: &str) -> Result<Picture, SkipReason> {
        match inline(name, self.most_bytes) {
            Some(picture) => picture,
            None => self.members.pop_front().ok_or(SkipReason::WrongMarks),
        }
    }

    fn next_sound(&mut self) -> Result<Option<Recording>, SkipReason> {
        Ok(self.sounds.pop_front())
    }

    fn named_sound(&mut self, name: &str) -> Result<Recording, SkipReason> {
        match inline_bytes(name, self.most_bytes, SkipReason::BrokenSound) {
            Some(bytes) => Ok(Recording::Encoded(bytes?.into())),
            None => self.sounds.pop_front().ok_or(SkipReason::WrongMarks),
        }
    }

    fn next_video(&mut self) -> Result<Option<Video>, SkipReason> {
        Ok(self.videos.pop_front())
    }

    fn named_video(&mut self, _name: &str) -> Result<Video, SkipReason> {
        self.videos.pop_front().ok_or(SkipReason::WrongMarks)
    }
}

/// Pictures, sounds and videos of a folder, first those that the sample lists.
pub(super) struct NamedPictures<'a> {
    pub listed: VecDeque<String>,
    /// Names of the sounds that the sample lists.
    pub sounds: VecDeque<String>,
    /// Names of the videos that the sample lists.
    pub videos: VecDeque<String>,
    pub folder: &'a PictureFolder,
    pub most_bytes: u64,
    /// What is known of the sample.
    pub known: &'a mut KnownSample,
}

impl SamplePictures for NamedPictures<'_> {
    fn next(&mut self) -> Result<Option<Picture>, SkipReason> {
        let name = self.listed.pop_front();
        name.map(|name| self.named(&name)).transpose()
    }

    fn named(&mut self, name: &str) -> Result<Picture, SkipReason> {
        if let Some(picture) = inline(name, self.most_bytes) {
            return picture;
        }
        if is_remote(name) {
            return Err(SkipReason::RemotePicture);
        }
        checked(self.folder.file(name, self.most_bytes, self.known, is_known_picture)?)
    }

    fn next_sound(&mut self) -> Result<Option<Recording>, SkipReason> {
        let name = self.sounds.pop_front();
        name.map(|name| self.named_sound(&name)).transpose()
    }

    fn named_sound(&mut self, name: &str) -> Result<Recording, SkipReason> {
        let file = match inline_bytes(name, self.most_bytes, SkipReason::BrokenSound) {
            Some(bytes) => bytes?.into(),
            None if is_remote(name) => return Err(SkipReason::RemotePicture),
            None => self.folder.file(name, self.most_bytes, self.known, is_known_sound)?,
        };
        Ok(Recording::Encoded(file))
    }

    fn next_video(&mut self) -> Result<Option<Video>, SkipReason> {
        let name = self.videos.pop_front();
        name.map(|name| self.named_video(&name)).transpose()
    }

    fn named_video(&mut self, name: &str) -> Result<Video, SkipReason> {
        if is_remote(name) {
            return Err(SkipReason::RemotePicture);
        }
        let end = name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
        let format = video_format(&end).ok_or(SkipReason::MissingVideo)?;
        Ok(format(self.folder.file(name, self.most_bytes, self.known, is_known_video)?))
    }
}

fn is_remote(name: &str) -> bool {
    name.starts_with("http://") || name.starts_with("https://")
}
