//! Files that an installed `ffmpeg` decodes.

use std::io::Write;
use std::process::{Command, Stdio};

use image::RgbImage;

use super::VideoError;
use super::grid::LatentShape;
use crate::data::picture::checked_size;

pub(super) fn frames(
    bytes: &[u8],
    shape: &LatentShape,
    most: u32,
) -> Result<Vec<RgbImage>, VideoError> {
    let io = |e: std::io::Error| VideoError::broken(e);
    // The index of an MP4 may be at its end, which a pipe cannot reach first.
    let mut file = tempfile::NamedTempFile::new().map_err(io)?;
    file.write_all(bytes).map_err(io)?;
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
