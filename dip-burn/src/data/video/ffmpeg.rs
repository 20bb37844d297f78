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
    let io = |e: std::io::Error| VideoError::Broken(e.to_string());
    // MP4 may have its index at its end, so that it cannot be read from a pipe.
    let mut file = tempfile::NamedTempFile::new().map_err(io)?;
    file.write_all(bytes).map_err(io)?;
    let path = file.path().to_string_lossy().into_owned();
    let (width, height) = size(&path)?;
    let patch_px = shape.patch_px().unwrap_or(1);
    let grid = shape.grid((width, height), 1, patch_px);
    let (width, height) = (grid.columns * patch_px, grid.rows * patch_px);
    let filter = format!("fps={},scale={width}:{height}", shape.frames_per_second);
    let count = most.to_string();
    let pixels = output(
        "ffmpeg",
        &[
            "-v",
            "error",
            "-i",
            &path,
            "-vf",
            &filter,
            "-frames:v",
            &count,
            "-f",
            "rawvideo",
            "-pix_fmt",
            "rgb24",
            "-",
        ],
    )?;
    let frame = |p: &[u8]| RgbImage::from_raw(width, height, p.to_vec());
    Ok(pixels.chunks_exact(3 * (width * height) as usize).filter_map(frame).collect())
}

fn size(path: &str) -> Result<(u32, u32), VideoError> {
    let text = output(
        "ffprobe",
        &[
            "-v",
            "error",
            "-select_streams",
            "v:0",
            "-show_entries",
            "stream=width,height",
            "-of",
            "csv=p=0",
            path,
        ],
    )?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let mut sides = text.trim().split(',').map(|side| side.trim().parse::<u32>().ok());
    let (Some(Some(width)), Some(Some(height))) = (sides.next(), sides.next()) else {
        return Err(VideoError::Broken("it has no video stream".into()));
    };
    checked_size(width, height)?;
    Ok((width, height))
}

fn output(program: &str, arguments: &[&str]) -> Result<Vec<u8>, VideoError> {
    let run = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let run = run.map_err(|e| VideoError::NoFfmpeg(e.to_string()))?;
    match run.status.success() {
        true => Ok(run.stdout),
        false => Err(VideoError::Broken(String::from_utf8_lossy(&run.stderr).trim().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_tools_the_error_names_what_to_install_and_what_else_is_read() {
        let error = output("no-such-program-of-dip", &[]).unwrap_err();
        assert!(matches!(error, VideoError::NoFfmpeg(_)), "{error:?}");
        let text = error.to_string();
        for part in ["`ffmpeg` and `ffprobe`", "install them", "GIF or WebP"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn bytes_that_are_no_video_are_refused() {
        const SHAPE: LatentShape =
            LatentShape { frames_per_second: 2.0, tokens_per_frame: 4, values: 48 };
        // Whether the tools are there or not, there is an error.
        assert!(frames(b"no video", &SHAPE, 9).is_err());
    }
}
