//! One tar shard: an index of its samples, read from headers alone.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tar::{EntryType, Header, PaxExtensions};

use super::document::Document;
use super::error::{DataError, SkipReason};
use super::picture::{Picture, PictureError};
use super::video::{CaptionedVideo, Video};

const BLOCK: u64 = 512;
/// Longest name and longest extended header of a member, in bytes.
const MAX_NAME_BYTES: u64 = 64 << 10;
/// Most members of one shard.
const MAX_MEMBERS: usize = 1 << 22;
/// Most pictures of one sample.
pub const MAX_PICTURES: usize = 4096;
/// Pictures of a second of video, where a sample does not say.
const FRAMES_PER_SECOND: f64 = 24.0;

/// Largest sizes that are read; what is over them is skipped and counted.
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
struct Member {
    /// What follows the first dot of its base name, in lower case.
    extension: String,
    offset: u64,
    bytes: u64,
}

/// Members with one stem: folder and base name up to its first dot.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sample {
    stem: String,
    members: Vec<Member>,
}

/// A shard that is open, with the places of its samples.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    file: File,
    samples: Vec<Sample>,
    /// A header in the middle was broken: what stands behind it is not indexed.
    pub broken: bool,
}

impl Shard {
    /// Opens a shard and indexes it.
    ///
    /// # Errors
    /// [`DataError::Io`] and [`DataError::NotATar`] name the file. A broken header behind the first only sets
    /// [`Shard::broken`].
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let io = |source| DataError::Io { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut samples: Vec<Sample> = Vec::new();
        let mut headers = Headers { file: &mut file, length, at: 0 };
        let mut members = 0;
        let mut broken = false;
        loop {
            match headers.next() {
                Ok(None) => break,
                Ok(Some((name, offset, bytes))) => {
                    members += 1;
                    if members > MAX_MEMBERS {
                        broken = true;
                        break;
                    }
                    let Some((stem, extension)) = split_name(&name) else { continue };
                    let member = Member { extension, offset, bytes };
                    match samples.last_mut() {
                        Some(last) if last.stem == stem => last.members.push(member),
                        _ => samples.push(Sample { stem, members: vec![member] }),
                    }
                }
                Err(Bad::Io(source)) => return Err(io(source)),
                Err(Bad::Header(what)) if headers.at == 0 => {
                    return Err(DataError::NotATar { path: path.to_owned(), what: what.into() });
                }
                Err(Bad::Header(_)) => {
                    broken = true;
                    break;
                }
            }
        }
        Ok(Self { path: path.to_owned(), file, samples, broken })
    }

    /// Checks that the file begins like a tar, without indexing it.
    ///
    /// # Errors
    /// [`DataError`] names the file.
    pub fn probe(path: &Path) -> Result<u64, DataError> {
        let io = |source| DataError::Io { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        match (Headers { file: &mut file, length, at: 0 }).block() {
            Ok(_) => Ok(length),
            Err(Bad::Io(source)) => Err(io(source)),
            Err(Bad::Header(what)) => {
                Err(DataError::NotATar { path: path.to_owned(), what: what.into() })
            }
        }
    }

    /// Samples of the shard, usable or not.
    pub fn samples(&self) -> usize {
        self.samples.len()
    }

    /// Reads a sample; pictures stay encoded, only their headers are checked. The inner error says why it must be skipped.
    ///
    /// # Errors
    /// [`DataError::Io`] names the shard.
    pub fn read(
        &mut self,
        sample: usize,
        limits: &SizeLimits,
    ) -> Result<Result<Document, SkipReason>, DataError> {
        self.with(sample, limits, |reader| reader.document())
    }

    /// Reads a sample as a captioned video, which is not decoded. The inner error says why it must be skipped.
    ///
    /// # Errors
    /// [`DataError::Io`] names the shard.
    pub fn read_video(
        &mut self,
        sample: usize,
        limits: &SizeLimits,
    ) -> Result<Result<CaptionedVideo, SkipReason>, DataError> {
        self.with(sample, limits, |reader| reader.video())
    }

    fn with<D>(
        &mut self,
        sample: usize,
        limits: &SizeLimits,
        read: impl FnOnce(&mut SampleReader<'_>) -> Result<D, Unusable>,
    ) -> Result<Result<D, SkipReason>, DataError> {
        let Self { path, file, samples, .. } = self;
        let Some(sample) = samples.get(sample) else { return Ok(Err(SkipReason::Empty)) };
        match read(&mut SampleReader { path, file, sample, limits }) {
            Ok(document) => Ok(Ok(document)),
            Err(Unusable::Skip(reason)) => Ok(Err(reason)),
            Err(Unusable::Data(error)) => Err(error),
        }
    }
}

enum Unusable {
    Skip(SkipReason),
    Data(DataError),
}

struct SampleReader<'a> {
    path: &'a Path,
    file: &'a mut File,
    sample: &'a Sample,
    limits: &'a SizeLimits,
}

impl SampleReader<'_> {
    fn document(&mut self) -> Result<Document, Unusable> {
        let members = &self.sample.members;
        let pictures = numbered_pictures(self.sample);
        let used = members.iter().filter(|m| is_text(m) || picture_number(&m.extension).is_some());
        let bytes = used.fold(0u64, |sum, m| sum.saturating_add(m.bytes));
        if bytes > self.limits.sample_bytes || pictures.len() > MAX_PICTURES {
            return Err(Unusable::Skip(SkipReason::Oversized));
        }
        let text = self.text()?;
        let pictures: Vec<Picture> =
            pictures.into_iter().map(|(_, m)| self.picture(m)).collect::<Result<_, _>>()?;
        if pictures.is_empty() && text.trim().is_empty() {
            return Err(Unusable::Skip(SkipReason::Empty));
        }
        Document::interleave(&text, pictures).ok_or(Unusable::Skip(SkipReason::WrongMarks))
    }

    /// The caption, and the file of a video or else the pictures of its frames.
    fn video(&mut self) -> Result<CaptionedVideo, Unusable> {
        let members = &self.sample.members;
        if members.iter().fold(0u64, |sum, m| sum.saturating_add(m.bytes))
            > self.limits.sample_bytes
        {
            return Err(Unusable::Skip(SkipReason::Oversized));
        }
        let caption = self.text()?;
        let find = |extension: &str| members.iter().find(|m| m.extension == extension);
        let files: [(&str, VideoFile); 5] = [
            ("safetensors", Video::Latents),
            ("gif", Video::Gif),
            ("webp", Video::WebP),
            ("mp4", Video::Ffmpeg),
            ("webm", Video::Ffmpeg),
        ];
        let file = files.into_iter().find_map(|(extension, of)| Some((find(extension)?, of)));
        let video = match file {
            Some((member, of)) => of(self.bytes(member)?.into()),
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
        let json = self.sample.members.iter().find(|m| m.extension == "json");
        let per_second = match json {
            Some(member) => {
                let json: serde_json::Value = serde_json::from_slice(&self.bytes(member)?)
                    .map_err(|_| Unusable::Skip(SkipReason::InvalidJson))?;
                json.get("fps").and_then(serde_json::Value::as_f64).unwrap_or(FRAMES_PER_SECOND)
            }
            None => FRAMES_PER_SECOND,
        };
        match per_second {
            rate if rate > 0.0 && rate <= 1e4 => Ok(Video::Frames(pictures.into(), rate)),
            _ => Err(Unusable::Skip(SkipReason::BrokenVideo)),
        }
    }

    /// The `.txt`, or `text` or `caption` of the `.json`.
    fn text(&mut self) -> Result<String, Unusable> {
        let find = |extension: &str| self.sample.members.iter().find(|m| m.extension == extension);
        if let Some(member) = find("txt") {
            return String::from_utf8(self.bytes(member)?)
                .map_err(|_| Unusable::Skip(SkipReason::InvalidText));
        }
        let member = find("json").ok_or(Unusable::Skip(SkipReason::MissingText))?;
        let json: serde_json::Value = serde_json::from_slice(&self.bytes(member)?)
            .map_err(|_| Unusable::Skip(SkipReason::InvalidJson))?;
        let field = |name| json.get(name).and_then(|v| v.as_str());
        let text = field("text").or_else(|| field("caption"));
        text.map(str::to_owned).ok_or(Unusable::Skip(SkipReason::MissingText))
    }

    fn picture(&mut self, member: &Member) -> Result<Picture, Unusable> {
        let picture = Picture::Encoded(self.bytes(member)?.into());
        match picture.check() {
            Ok(()) => Ok(picture),
            Err(PictureError::Broken(_)) => Err(Unusable::Skip(SkipReason::BrokenPicture)),
            Err(PictureError::Oversized { .. }) => Err(Unusable::Skip(SkipReason::Oversized)),
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

/// How the bytes of a member become a video.
type VideoFile = fn(Arc<[u8]>) -> Video;

/// The pictures of a sample, in the order of their numbers.
fn numbered_pictures(sample: &Sample) -> Vec<(u64, &Member)> {
    let number = |m: &Member| picture_number(&m.extension);
    let mut pictures: Vec<(u64, &Member)> =
        sample.members.iter().filter_map(|m| Some((number(m)?, m))).collect();
    pictures.sort_by_key(|&(number, _)| number);
    pictures
}

fn is_text(member: &Member) -> bool {
    member.extension == "txt" || member.extension == "json"
}

/// The place of a picture among those of its sample: `png` is 0, `3.png` is 3; `None` for what is no picture.
fn picture_number(extension: &str) -> Option<u64> {
    let (number, format) = extension.rsplit_once('.').unwrap_or(("0", extension));
    matches!(format, "jpg" | "jpeg" | "png" | "webp").then(|| number.parse().unwrap_or(u64::MAX))
}

/// Stem and extension of a member; `None` for hidden files and names with no dot.
fn split_name(name: &str) -> Option<(String, String)> {
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = base + name[base..].find('.')?;
    (dot > base).then(|| (name[..dot].to_owned(), name[dot + 1..].to_ascii_lowercase()))
}

/// Walks over the headers of a tar. The `tar` crate's own walk reads extended headers of any size into memory, this one does not.
struct Headers<'a> {
    file: &'a mut File,
    length: u64,
    at: u64,
}

enum Bad {
    Io(std::io::Error),
    Header(&'static str),
}

impl Headers<'_> {
    /// Name, offset and size of the next regular file.
    fn next(&mut self) -> Result<Option<(String, u64, u64)>, Bad> {
        let mut long_name: Option<String> = None;
        let mut long_size: Option<u64> = None;
        loop {
            let Some(header) = self.block()? else { return Ok(None) };
            let kind = header.entry_type();
            let extends = kind.is_gnu_longname() || kind.is_pax_local_extensions();
            let size = header.entry_size().map_err(|_| Bad::Header("a member has no size"))?;
            let size = if extends { size } else { long_size.take().unwrap_or(size) };
            let offset = self.at + BLOCK;
            let end = offset.checked_add(size).filter(|&end| end <= self.length);
            let end = end.ok_or(Bad::Header("it ends inside a member"))?;
            if extends {
                let data = self.extension(offset, size)?;
                if kind.is_gnu_longname() {
                    long_name = Some(text(&data));
                } else {
                    for field in PaxExtensions::new(&data).flatten() {
                        match field.key_bytes() {
                            b"path" => long_name = Some(text(field.value_bytes())),
                            b"size" => long_size = text(field.value_bytes()).parse().ok(),
                            _ => {}
                        }
                    }
                }
            }
            self.at = end.next_multiple_of(BLOCK);
            if matches!(kind, EntryType::Regular | EntryType::Continuous) {
                let name = long_name.take().unwrap_or_else(|| text(&header.path_bytes()));
                return Ok(Some((name, offset, size)));
            }
            if !extends {
                long_name = None;
            }
        }
    }

    fn extension(&mut self, offset: u64, size: u64) -> Result<Vec<u8>, Bad> {
        if size > MAX_NAME_BYTES {
            return Err(Bad::Header("an extended header is too large"));
        }
        let mut data = vec![0; size as usize];
        self.file.seek(SeekFrom::Start(offset)).map_err(Bad::Io)?;
        self.file.read_exact(&mut data).map_err(Bad::Io)?;
        Ok(data)
    }

    /// The header at the present place, checked; `None` at the end of the archive.
    fn block(&mut self) -> Result<Option<Header>, Bad> {
        if self.at + BLOCK > self.length {
            // Archives without their closing zero blocks are common; a file that is shorter than one block is no archive.
            return if self.at == 0 { Err(Bad::Header("it is too short")) } else { Ok(None) };
        }
        let mut header = Header::new_old();
        self.file.seek(SeekFrom::Start(self.at)).map_err(Bad::Io)?;
        self.file.read_exact(header.as_mut_bytes()).map_err(Bad::Io)?;
        let bytes = header.as_bytes();
        if bytes.iter().all(|&b| b == 0) {
            return Ok(None);
        }
        let sum = |range: &[u8]| range.iter().map(|&b| u32::from(b)).sum::<u32>();
        let expected = sum(&bytes[..148]) + 8 * u32::from(b' ') + sum(&bytes[156..]);
        match header.cksum() {
            Ok(stored) if stored == expected => Ok(Some(header)),
            _ if self.at == 0 && bytes.starts_with(&[0x1f, 0x8b]) => {
                Err(Bad::Header("it is compressed with gzip"))
            }
            _ => Err(Bad::Header("its header has a wrong checksum")),
        }
    }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_split_at_the_first_dot_of_its_base() {
        let split = |name| split_name(name).unwrap();
        assert_eq!(split("a.b/c.0.PNG"), ("a.b/c".into(), "0.png".into()));
        assert_eq!(split_name("a.b/c"), None);
        assert_eq!(split_name("a/.hidden"), None);
    }

    #[test]
    fn pictures_are_ordered_by_number() {
        assert_eq!(picture_number("png"), Some(0));
        assert_eq!(picture_number("10.jpeg"), Some(10));
        assert_eq!(picture_number("txt"), None);
        assert_eq!(picture_number("seg.png"), Some(u64::MAX));
    }
}
