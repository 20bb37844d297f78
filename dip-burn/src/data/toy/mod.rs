//! Embedded toy data, drawn on demand: it needs no files, and document `n` of a seed is always the same.
//!
//! | data | trains | documents |
//! |---|---|---|
//! | [`Scenes`] | vision-language models | pictures of coloured shapes with captions |
//! | [`Melodies`] | audio-language and omni models | sounds of a few notes with captions, alone or beside scenes |
//! | [`MovingShapes`] | text-to-video models | clips of one moving shape with a caption |

mod match_caption;
mod melodies;
mod moving;
mod scenes;
mod shape;

pub use match_caption::{CaptionMatch, match_caption};
pub use melodies::{Melodies, MelodiesConfig, Melody, Note, Pitch, Tone};
pub use moving::{
    ClipCaption, Motion, MovingConfig, MovingShape, MovingShapes, SampleMatch, match_clip,
    write_moving_shards,
};
pub use scenes::{Frame, Scene, Scenes, ScenesConfig, write_scene_shards};
pub use shape::{Colour, DataSplit, Object, Shape};

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Writes samples 0 to `count` into shards `NAME-00000.tar` and so on of `per_shard` samples each, and returns the shards.
fn write_shards(
    folder: &Path,
    name: &str,
    count: u64,
    per_shard: u64,
    mut append: impl FnMut(&mut tar::Builder<File>, u64) -> io::Result<()>,
) -> io::Result<Vec<PathBuf>> {
    fs::create_dir_all(folder)?;
    let per_shard = per_shard.max(1);
    let mut shards = Vec::new();
    for first in (0..count).step_by(per_shard as usize) {
        let path = folder.join(format!("{name}-{:05}.tar", shards.len()));
        let mut tar = tar::Builder::new(File::create(&path)?);
        for n in first..count.min(first + per_shard) {
            append(&mut tar, n)?;
        }
        tar.into_inner()?.sync_all()?;
        shards.push(path);
    }
    Ok(shards)
}

fn append_member(tar: &mut tar::Builder<File>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, bytes)
}
