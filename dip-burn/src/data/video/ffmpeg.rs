//! Files that an installed `ffmpeg` decodes.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use dip_core::hf::PixelSize;
use image::RgbImage;
use tempfile::NamedTempFile;

use super::error::VideoError;
use super::grid::LatentShape;
use crate::data::encoded::FrameInfo;
use crate::data::picture::checked_size;

pub(super) fn frames(
    bytes: &[u8],
    shape: &LatentShape,
    most: u32,
) -> Result<Vec<RgbImage>, VideoError> {
    let file = written(bytes)?;
    let path = file.path().to_string_lossy().into_owned();
    let (width, height) = size(&path)?;
    let patch_px = shape.patch_px().unwrap_or(1);
    let grid = shape.grid((width, height), 1, patch_px);
    let (width, height) = (grid.columns * patch_px, grid.rows * patch_px);
    let filter = format!("fps={},scale={width}:{height}", shape.frames_per_second);
    let count = most.to_string();
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-i", &path, "-vf", &filter, "-frames:v", &count]);
    ffmpeg.args(["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]);
    let pixels = output(ffmpeg)?;
    let frame = |p: &[u8]| RgbImage::from_raw(width, height, p.to_vec());
    Ok(pixels.chunks_exact(3 * (width * height) as usize).filter_map(frame).collect())
}

/// Number, rate and size of the frames of the first video stream. Frames are counted by reading the whole file.
pub(super) fn info(bytes: &[u8]) -> Result<FrameInfo, VideoError> {
    let file = written(bytes)?;
    let path = file.path().to_string_lossy().into_owned();
    let (width, height) = size(&path)?;
    let mut ffprobe = Command::new("ffprobe");
    ffprobe.args(["-v", "error", "-select_streams", "v:0", "-count_packets"]);
    ffprobe.args(["-of", "default=noprint_wrappers=1"]);
    ffprobe.args(["-show_entries", "stream=avg_frame_rate,nb_read_packets", &path]);
    let text = String::from_utf8_lossy(&output(ffprobe)?).into_owned();
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let frames = field("nb_read_packets=").and_then(|n| n.trim().parse().ok());
    let rate = field("avg_frame_rate=").and_then(|rate| {
        let (frames, seconds) = rate.trim().split_once('/')?;
        Some(frames.parse::<f64>().ok()? / seconds.parse::<f64>().ok()?)
    });
    let (Some(frames), Some(per_second)) = (frames, rate) else {
        return Err(VideoError::broken("its frames cannot be counted"));
    };
    Ok(FrameInfo { frames, per_second, size: PixelSize::new(width, height) })
}

/// Gives `see` the frames with these numbers, which ascend, as they come out of the decoder.
pub(super) fn each_frame_at(
    bytes: &[u8],
    numbers: &[u32],
    info: &FrameInfo,
    see: &mut dyn FnMut(RgbImage) -> Result<(), VideoError>,
) -> Result<(), VideoError> {
    let file = written(bytes)?;
    let path = file.path().to_string_lossy().into_owned();
    let PixelSize { width, height } = info.size;
    let scale = format!("scale={width}:{height}");
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-i", &path, "-vf", &scale, "-fps_mode", "passthrough"]);
    ffmpeg.args(["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]);
    ffmpeg.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut run = ffmpeg.spawn().map_err(VideoError::NoFfmpeg)?;
    let mut pixels = run.stdout.take().ok_or_else(|| VideoError::broken("it has no output"))?;
    let mut frame = vec![0; 3 * width as usize * height as usize];
    let (mut number, mut wanted, mut seen) = (0, numbers.iter().peekable(), Ok(()));
    while seen.is_ok() && wanted.peek().is_some() && pixels.read_exact(&mut frame).is_ok() {
        while seen.is_ok() && wanted.next_if_eq(&&number).is_some() {
            let rgb = RgbImage::from_raw(width, height, frame.clone());
            seen = rgb.map_or(Ok(()), &mut *see);
        }
        number += 1;
    }
    // The rest of the video is not needed.
    let _ = run.kill();
    let _ = run.wait();
    seen
}

/// A file of these bytes. The index of an MP4 may be at its end, which a pipe cannot reach first.
fn written(bytes: &[u8]) -> Result<NamedTempFile, VideoError> {
    let mut file = NamedTempFile::new().map_err(VideoError::broken)?;
    file.write_all(bytes).map_err(VideoError::broken)?;
    Ok(file)
}

/// Width and height of the first video stream, in pixels.
fn size(path: &str) -> Result<(u32, u32), VideoError> {
    let mut ffprobe = Command::new("ffprobe");
    ffprobe.args(["-v", "error", "-select_streams", "v:0", "-of", "csv=p=0"]);
    ffprobe.args(["-show_entries", "stream=width,height", path]);
    let text = String::from_utf8_lossy(&output(ffprobe)?).into_owned();
    let mut sides = text.trim().split(',').map(|side| side.trim().parse::<u32>().ok());
    let (Some(Some(width)), Some(Some(height))) = (sides.next(), sides.next()) else {
        return Err(VideoError::broken("it has no video stream"));
    };
    checked_size(width, height)?;
    Ok((width, height))
}

fn output(mut command: Command) -> Result<Vec<u8>, VideoError> {
    let run = command.stdin(Stdio::null()).output();
    let run = run.map_err(VideoError::NoFfmpeg)?;
    match run.status.success() {
        true => Ok(run.stdout),
        false => Err(VideoError::broken(String::from_utf8_lossy(&run.stderr).trim())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_tools_the_error_names_them_and_other_formats() {
        let error = output(Command::new("no-such-program-of-dip")).unwrap_err();
        assert!(matches!(error, VideoError::NoFfmpeg(_)), "{error:?}");
        let text = error.to_string();
        for part in ["`ffmpeg` and `ffprobe`", "install them", "GIF or WebP"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn bytes_that_are_no_video_are_refused() {
        const SHAPE: LatentShape =
            LatentShape { frames_per_second: 2.0, tokens_per_frame: 4, values: 48, patch: None };
        // With or without the tools, there is an error.
        assert!(frames(b"no video", &SHAPE, 9).is_err());
    }
}
