//! Indexes of shards in files, `dip.index/v1`: a line about the shard, then a line for each of its samples.

use std::fmt::Write;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use dip_core::hf::PixelSize;
use dip_files::Kind;
use serde::{Deserialize, Serialize};

use super::index::Index;
use super::known::{KnownFile, KnownMedia, KnownSample};
use crate::data::encoded::{FrameInfo, MediaFacts, SoundFacts, VideoFacts};
use crate::data::picture::checked_size;

const SCHEMA: &str = "dip.index/v1";

/// What an index must know of its shard to be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShardVersion {
    schema: String,
    /// The name of the shard.
    shard: String,
    /// Follows from its name, its length, its first and its last bytes; hexadecimal.
    identity: String,
    /// Its length.
    bytes: u64,
    /// When it was changed, in nanoseconds since 1970; absent for shards by URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    modified_ns: Option<u64>,
    samples: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SampleLine {
    bytes: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    media: Vec<FileLine>,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileLine {
    name: Box<str>,
    bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    modified_ns: Option<u64>,
    /// Width and height.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    picture: Option<[u32; 2]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    video: Option<VideoLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sound: Option<SoundFacts>,
}

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VideoLine {
    frames: u32,
    frames_per_second: f64,
    seconds: f64,
    size: [u32; 2],
}

impl ShardVersion {
    /// The version of an open shard with samples at `index`.
    pub fn of(path: &Path, identity: u64, file: &File, index: &Index) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let is_remote = super::format::is_remote(path);
        Ok(Self {
            schema: SCHEMA.into(),
            shard: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            identity: format!("{identity:016x}"),
            bytes: metadata.len(),
            modified_ns: if is_remote { None } else { modified_ns(&metadata) },
            samples: index.samples.len(),
        })
    }

    /// The index of the shard in a folder.
    pub fn path_in(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}-{}.index", self.shard, self.identity))
    }

    /// What a file knows of the samples of the shard; `None` if it is absent or damaged, or belongs to another version of the shard.
    pub fn read(&self, path: &Path, index: &Index) -> Option<KnownMedia> {
        let text = dip_files::read_text(path, Kind::INDEX).ok()?;
        let mut lines = text.lines();
        let version: Self = serde_json::from_str(lines.next()?).ok()?;
        if version != *self {
            return None;
        }
        let mut samples = Vec::with_capacity(index.samples.len());
        for place in &index.samples {
            let line: SampleLine = serde_json::from_str(lines.next()?).ok()?;
            if line.bytes != place.bytes() {
                return None;
            }
            let files = line.media.into_iter().map(FileLine::known).collect::<Option<_>>()?;
            samples.push(KnownSample::indexed(files));
        }
        lines.next().is_none().then(|| KnownMedia::all(samples))
    }

    /// Writes what is known of the samples of the shard.
    ///
    /// # Errors
    /// The system's error.
    pub fn write(&self, path: &Path, known: &KnownMedia, index: &Index) -> io::Result<()> {
        let mut text = line(self);
        for (sample, place) in known.samples.iter().zip(&index.samples) {
            let media = sample.files.iter().filter_map(FileLine::of).collect();
            text += &line(&SampleLine { bytes: place.bytes(), media });
        }
        if text.len() as u64 > Kind::INDEX.max_bytes {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the index is too large"));
        }
        std::fs::create_dir_all(dip_files::parent(path))?;
        dip_files::write_whole(path, text.as_bytes())
    }
}

/// The index beside a shard.
pub(super) fn beside(shard: &Path) -> PathBuf {
    let mut name = shard.as_os_str().to_owned();
    name.push(".index");
    name.into()
}

/// When a file was changed, in nanoseconds since 1970.
pub(super) fn modified_ns(metadata: &std::fs::Metadata) -> Option<u64> {
    let since = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}

fn line(value: &impl Serialize) -> String {
    let mut line = serde_json::to_string(value).expect("plain data has a JSON form");
    let _ = writeln!(line);
    line
}

impl FileLine {
    /// The line of a file of which something is known.
    fn of(file: &KnownFile) -> Option<Self> {
        let facts = &*file.facts;
        let sides = |size: PixelSize| [size.width, size.height];
        let video = facts.video.get().map(|&VideoFacts { info, seconds }| VideoLine {
            frames: info.frames,
            frames_per_second: info.per_second,
            seconds,
            size: sides(info.size),
        });
        let line = Self {
            name: file.name.clone(),
            bytes: file.bytes,
            modified_ns: file.modified_ns,
            picture: facts.picture.get().copied().map(sides),
            // JSON may round the last bit of a number.
            video: video.filter(|video| {
                serde_json::from_str::<VideoLine>(&line(video)).is_ok_and(|read| read == *video)
            }),
            sound: facts.sound(),
        };
        let Self { picture, video, sound, .. } = &line;
        (picture.is_some() || video.is_some() || sound.is_some()).then_some(line)
    }

    /// The facts of the line; `None` if a number is impossible.
    fn known(self) -> Option<KnownFile> {
        let size = |[width, height]: [u32; 2]| {
            checked_size(width, height).ok().map(|()| PixelSize::new(width, height))
        };
        let facts = MediaFacts::default();
        if let Some(sides) = self.picture {
            let _ = facts.picture.set(size(sides)?);
        }
        if let Some(VideoLine { frames, frames_per_second, seconds, size: sides }) = self.video {
            let info = FrameInfo { frames, per_second: frames_per_second, size: size(sides)? };
            let is_possible = info.has_frames() && seconds.is_finite() && seconds >= 0.0;
            let _ = is_possible.then(|| facts.video.set(VideoFacts { info, seconds }))?;
        }
        if let Some(sound) = self.sound {
            facts.learn_sound(sound);
        }
        let Self { name, bytes, modified_ns, .. } = self;
        Some(KnownFile { name, bytes, modified_ns, facts: Arc::new(facts) })
    }
}
