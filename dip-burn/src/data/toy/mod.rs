//! Embedded toy data, drawn on demand: it needs no files, and document `n` of a seed is always the same.
//!
//! | data | trains | documents |
//! |---|---|---|
//! | [`Scenes`] | vision-language models | pictures of coloured shapes with captions |
//! | [`MovingShapes`] | text-to-video models | clips of one moving shape with a caption |

mod moving;
mod scenes;
mod shape;

pub use moving::{
    ClipCaption, Motion, MovingConfig, MovingShape, MovingShapes, SampleMatch, match_clip,
    write_moving_shards,
};
pub use scenes::{CaptionMatch, Scene, Scenes, ScenesConfig, match_caption, write_scene_shards};
pub use shape::{Colour, DataSplit, Object, Shape};

use std::fs::File;
use std::io;

fn append_member(tar: &mut tar::Builder<File>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, bytes)
}
