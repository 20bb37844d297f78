use std::fs::File;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::RgbImage;

use super::*;
use crate::data::toy::{
    ClipCaption, DataSplit, MovingConfig, MovingShapes, match_clip, write_moving_shards,
};
use crate::data::{DataSource, Folders, SizeLimits, SkipReason, WebDataset, WebDatasetConfig};

const SHAPE: LatentShape =
    LatentShape { frames_per_second: 3.0, tokens_per_frame: 48, values: 48, patch: None };
const ORDERED: WebDatasetConfig = WebDatasetConfig {
    seed: 0,
    shuffle_buffer: 1,
    limits: SizeLimits { member_bytes: 1 << 20, sample_bytes: 1 << 20 },
    folders: Folders { images: None, cache: None, indexes: None },
};

fn shard(folder: &Path, members: &[(&str, &[u8])]) -> PathBuf {
    let path = folder.join("videos.tar");
    let mut tar = tar::Builder::new(File::create(&path).unwrap());
    for (name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, *bytes).unwrap();
    }
    tar.finish().unwrap();
    path
}

fn png(frame: &RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.write_to(&mut Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
    bytes
}

#[test]
fn clips_written_as_gif_still_match_their_captions() {
    let folder = tempfile::tempdir().unwrap();
    let config = MovingConfig { seed: 4, split: DataSplit::Train };
    let shards = write_moving_shards(folder.path(), config, 12, 5).unwrap();
    assert_eq!(shards.len(), 3);
    let mut source = WebDataset::open_videos(&[folder.path().into()], ORDERED).unwrap();
    for n in 0..12 {
        let CaptionedVideo { video, caption } = source.next_document().unwrap();
        let drawn = MovingShapes::new(config).clip(n);
        let latents = video.latents(&SHAPE, 99).unwrap();
        assert_eq!(latents.grid.frames, SHAPE.frames(f64::from(drawn.seconds)), "clip {n}");
        let parsed = ClipCaption::parse(&caption).unwrap();
        assert_eq!(parsed, drawn.caption());
        // The 256 colours of a GIF are enough to recognise the caption.
        assert!(match_clip(&latents.frames(4), parsed).all(), "{caption}");
    }
}

#[test]
fn numbered_pictures_are_frames_at_the_rate_of_their_json() {
    let folder = tempfile::tempdir().unwrap();
    let frame = |red: u8| png(&RgbImage::from_pixel(8, 8, image::Rgb([red, 0, 0])));
    let frames: Vec<Vec<u8>> = (0..12).map(|i| frame(20 * i)).collect();
    let names: Vec<String> = (0..12).map(|i| format!("a.{i:03}.png")).collect();
    let mut members: Vec<(&str, &[u8])> =
        names.iter().map(String::as_str).zip(frames.iter().map(Vec::as_slice)).collect();
    members.push(("a.json", br#"{"caption":"it reddens","fps":6}"#));
    let path = shard(folder.path(), &members);
    let video = WebDataset::open_videos(&[path], ORDERED).unwrap().next_document().unwrap();
    assert_eq!(video.caption, "it reddens");
    // Two seconds at three latent frames per second: every second picture.
    let reds: Vec<u8> = video
        .video
        .latents(&SHAPE, 99)
        .unwrap()
        .frames(4)
        .iter()
        .map(|f| f.get_pixel(0, 0).0[0])
        .collect();
    assert_eq!(reds, [0, 40, 80, 120, 160, 200]);
}

#[test]
fn samples_without_video_or_caption_are_skipped_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let text: &[u8] = b"a caption";
    let picture = png(&RgbImage::new(4, 4));
    let members: [(&str, &[u8]); 6] = [
        ("a.txt", text),
        ("b.gif", b"no caption"),
        ("c.0.png", b"no picture"),
        ("c.txt", text),
        ("d.0.png", &picture),
        ("d.txt", text),
    ];
    let path = shard(folder.path(), &members);
    let mut source = WebDataset::open_videos(&[path], ORDERED).unwrap();
    assert!(matches!(source.next_document().unwrap().video, Video::Frames { .. }));
    let skipped = source.skipped();
    for reason in [SkipReason::MissingVideo, SkipReason::MissingText, SkipReason::BrokenPicture] {
        assert_eq!(skipped.get(reason), 1, "{skipped}");
    }
}

#[test]
fn a_model_without_pixels_needs_latents() {
    let shape = LatentShape { values: 64, ..SHAPE };
    let clip = MovingShapes::new(MovingConfig { seed: 1, split: DataSplit::Train }).clip(0);
    let error = Video::Drawn(Arc::new(clip)).latents(&shape, 9).unwrap_err().to_string();
    assert!(error.contains("64 values") && error.contains("safetensors"), "{error}");
}
