//! Sampled clips as files: a GIF for each, and a contact sheet of all.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use image::codecs::gif::{GifEncoder, Repeat};
use image::imageops::{FilterType, resize};
use image::{Delay, Frame, ImageError, Rgb, RgbImage, imageops};
use safetensors::tensor::{Dtype, TensorView};

use super::{MetricSink, SinkError};
use crate::checkpoint::CheckpointError;
use crate::data::ChannelLatents;
use crate::train::report::{Evaluation, SampledClip};

/// Most frames in a row of the contact sheet.
const MAX_COLUMNS: usize = 8;
/// Pixels in a file per pixel of a frame, along each side.
const SCALE: u32 = 6;
const GAP_PX: u32 = 6;

/// Writes the samples of every evaluation to a folder, and replaces the previous samples.
pub struct SampleFiles(PathBuf);

impl SampleFiles {
    /// Files in `folder`, which is made with the first samples.
    pub fn new(folder: &Path) -> Self {
        Self(folder.to_owned())
    }
}

impl MetricSink for SampleFiles {
    fn evaluation(&mut self, evaluation: &Evaluation) -> Result<(), SinkError> {
        write(&self.0, &evaluation.samples)?;
        Ok(())
    }
}

/// Writes `<number>.gif`, `contact-sheet.png` with a row for each clip, and `captions.txt` with a line for each row. Clips in a
/// latent space become `<number>.safetensors`, for their decoder: `latents` has the shape of stored latents. Returns the file of
/// each clip.
///
/// # Errors
/// [`CheckpointError::Io`] names the file.
pub fn write(folder: &Path, samples: &[SampledClip]) -> Result<Vec<PathBuf>, CheckpointError> {
    if samples.is_empty() {
        return Ok(Vec::new());
    }
    fs::create_dir_all(folder).map_err(CheckpointError::io(folder))?;
    let (mut rows, mut files) = (Vec::new(), Vec::new());
    for (number, sample) in samples.iter().enumerate() {
        let Some(patch_px) = sample.shape.patch_px() else {
            let path = folder.join(format!("{number:02}.safetensors"));
            write_latents(&path, sample).map_err(CheckpointError::io(&path))?;
            files.push(path);
            continue;
        };
        let frames: Vec<RgbImage> = sample.latents.frames(patch_px).iter().map(enlarged).collect();
        let path = folder.join(format!("{number:02}.gif"));
        write_gif(&path, &frames, sample.shape.frames_per_second)
            .map_err(std::io::Error::other)
            .map_err(CheckpointError::io(&path))?;
        files.push(path);
        rows.push(frames);
    }
    if !rows.is_empty() {
        let path = folder.join("contact-sheet.png");
        contact_sheet(&rows)
            .save(&path)
            .map_err(std::io::Error::other)
            .map_err(CheckpointError::io(&path))?;
    }
    let path = folder.join("captions.txt");
    fs::write(&path, samples.iter().map(line).collect::<String>())
        .map_err(CheckpointError::io(&path))?;
    Ok(files)
}

/// A caption, and the parts of it that the sample shows.
fn line(sample: &SampledClip) -> String {
    let mark = |right: bool| if right { "yes" } else { "no" };
    let seen = sample.seen.map(|s| {
        let (colour, shape) = (mark(s.colour), mark(s.shape));
        format!(" (colour {colour}, shape {shape}, direction {})", mark(s.direction))
    });
    format!("{}{}\n", sample.caption, seen.unwrap_or_default())
}

/// The contact sheet of clips of pixels; `None` without such clips.
pub(super) fn sheet(samples: &[SampledClip]) -> Option<RgbImage> {
    let frames = |sample: &SampledClip| -> Option<Vec<RgbImage>> {
        let patch_px = sample.shape.patch_px()?;
        Some(sample.latents.frames(patch_px).iter().map(enlarged).collect())
    };
    let rows: Vec<Vec<RgbImage>> = samples.iter().filter_map(frames).collect();
    (!rows.is_empty()).then(|| contact_sheet(&rows))
}

fn enlarged(frame: &RgbImage) -> RgbImage {
    resize(frame, SCALE * frame.width(), SCALE * frame.height(), FilterType::Nearest)
}

fn write_gif(path: &Path, frames: &[RgbImage], per_second: f64) -> Result<(), ImageError> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut encoder = GifEncoder::new(&mut file);
    encoder.set_repeat(Repeat::Infinite)?;
    let delay = Delay::from_numer_denom_ms((1e3 / per_second) as u32, 1);
    for frame in frames {
        let rgba = image::DynamicImage::ImageRgb8(frame.clone()).to_rgba8();
        encoder.encode_frame(Frame::from_parts(rgba, 0, 0, delay))?;
    }
    drop(encoder);
    Ok(file.flush()?)
}

/// A row for each clip, with frames spread evenly over its length.
fn contact_sheet(rows: &[Vec<RgbImage>]) -> RgbImage {
    let all = || rows.iter().flatten();
    let width = all().map(RgbImage::width).max().unwrap_or(1) + GAP_PX;
    let height = all().map(RgbImage::height).max().unwrap_or(1) + GAP_PX;
    let columns = rows.iter().map(Vec::len).max().unwrap_or(1).min(MAX_COLUMNS);
    let size = (columns as u32 * width + GAP_PX, rows.len() as u32 * height + GAP_PX);
    let mut sheet = RgbImage::from_pixel(size.0, size.1, Rgb([64; 3]));
    for (row, frames) in rows.iter().enumerate() {
        let shown = frames.len().min(columns);
        for column in 0..shown {
            let frame = &frames[column * (frames.len() - 1) / (shown - 1).max(1)];
            let x = GAP_PX + column as u32 * width;
            let y = GAP_PX + row as u32 * height;
            imageops::replace(&mut sheet, frame, x.into(), y.into());
        }
    }
    sheet
}

fn write_latents(path: &Path, sample: &SampledClip) -> std::io::Result<()> {
    let grid = sample.latents.grid;
    let (sides, values) = match sample.shape.patch {
        Some(_) => {
            let ChannelLatents { sides, values } =
                ChannelLatents::of(&sample.latents, &sample.shape);
            (sides, values)
        }
        None => {
            let sides = [grid.frames, grid.rows, grid.columns, sample.shape.values];
            (sides.map(|side| side as usize), sample.latents.values.clone())
        }
    };
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let view =
        TensorView::new(Dtype::F32, sides.to_vec(), &bytes).map_err(std::io::Error::other)?;
    let file = safetensors::serialize([("latents", view)], None).map_err(std::io::Error::other)?;
    fs::write(path, file)
}
