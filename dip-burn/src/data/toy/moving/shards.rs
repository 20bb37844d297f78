//! Moving shapes as WebDataset shards of GIF files, to try the reader on files.

use std::io;
use std::path::{Path, PathBuf};

use image::codecs::gif::GifEncoder;
use image::{Delay, DynamicImage, Frame, ImageError};

use super::{MovingConfig, MovingShape, MovingShapes};
use crate::data::toy::{append_member, write_shards};

/// Frame rate of the files.
const FRAMES_PER_SECOND: f32 = 10.0;

/// Writes the first `clips` clips into shards of `per_shard` clips under `folder`, as `.gif` and `.txt` members. Returns the
/// shards.
///
/// # Errors
/// The system's error if the folder cannot be written.
pub fn write_moving_shards(
    folder: &Path,
    config: MovingConfig,
    clips: u64,
    per_shard: u64,
) -> io::Result<Vec<PathBuf>> {
    let source = MovingShapes::new(config);
    write_shards(folder, "moving", clips, per_shard, |tar, n| {
        let clip = source.clip(n);
        let gif = gif(&clip).map_err(io::Error::other)?;
        append_member(tar, &format!("{n:06}.gif"), &gif)?;
        append_member(tar, &format!("{n:06}.txt"), clip.caption().to_string().as_bytes())
    })
}

fn gif(clip: &MovingShape) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new(&mut bytes);
    let frames = (clip.seconds * FRAMES_PER_SECOND).round().max(1.0) as u32;
    let delay = Delay::from_numer_denom_ms((1e3 / FRAMES_PER_SECOND) as u32, 1);
    for i in 0..frames {
        let rgb = clip.draw(i as f32 / (frames - 1).max(1) as f32);
        let rgba = DynamicImage::ImageRgb8(rgb).to_rgba8();
        encoder.encode_frame(Frame::from_parts(rgba, 0, 0, delay))?;
    }
    drop(encoder);
    Ok(bytes)
}
