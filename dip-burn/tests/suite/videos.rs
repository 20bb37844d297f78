//! Videos of vision-language models: frames, sizes and pixels equal the video processor of Qwen2-VL.

use std::path::PathBuf;
use std::sync::Arc;

use dip_burn::data::{
    FrameSource, ImageProcessor, Picture, PictureError, PixelSource, RgbImage, Video, VideoError,
    VideoRule,
};
use dip_burn::model::vit::PatchShape;
use dip_burn::weights::TensorStore;
use dip_core::hf::PixelSize;
use dip_core::{ModelSpec, VitSpec};
use image::Rgb;

/// A frame that `scripts/hf_fixtures/videos.py` draws, too.
#[derive(Debug)]
struct Drawn {
    frame: u32,
    width: u32,
    height: u32,
}

impl PixelSource for Drawn {
    fn size(&self, _: u32) -> PixelSize {
        PixelSize::new(self.width, self.height)
    }

    fn rgb(&self, _: u32) -> Result<RgbImage, PictureError> {
        let value = |x: u32, y: u32, c: u32| {
            ((7 * x + 3 * y + 50 * c + 11 * self.frame) ^ ((x * y) >> (3 + c))) as u8
        };
        let pixel = |x, y| Rgb([0, 1, 2].map(|c| value(x, y, c)));
        Ok(RgbImage::from_fn(self.width, self.height, pixel))
    }
}

fn video(frames: u32, per_second: f64, width: u32, height: u32) -> Video {
    let picture = |frame| Picture::Drawn(Arc::new(Drawn { frame, width, height }));
    Video::Frames { pictures: (0..frames).map(picture).collect(), per_second }
}

/// The processor of a model of the Qwen2-VL type, with its patches.
fn processor() -> (ImageProcessor, PatchShape) {
    let text = "name = 'm'\nsequence_tokens = 99\n[[module]]\nname = 'v'\nlayers = 1\nhidden = 8\nffn = 8\nheads = 2\n\
                kind.vit = { image_px = 56, patch_px = 14, merge = 2, tower = 'qwen2_vl', \
                native = { min_pixels = 784, max_pixels = 78400 } }\n";
    let model = ModelSpec::from_toml(text).unwrap();
    let processor = ImageProcessor::of_model(&model).unwrap();
    let rule = VideoRule {
        min_pixels: 2 * 28 * 28,
        max_pixels: 6 * 28 * 28,
        ..*processor.videos().unwrap()
    };
    (processor.with_videos(rule), PatchShape::of(model.modules[0].kind.get::<VitSpec>().unwrap()))
}

#[test]
fn frames_sizes_and_pixels_equal_transformers() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/videos/expected.safetensors");
    let expected = TensorStore::open_file(&PathBuf::from(path)).unwrap();
    let (processor, patches) = processor();
    for (name, video) in [
        ("short", video(9, 24.0, 50, 40)),
        ("long", video(40, 10.0, 61, 37)),
        ("odd", video(35, 10.0, 30, 70)),
        ("few", video(3, 25.0, 33, 33)),
    ] {
        let layout = processor.video_layout(&video).unwrap();
        let grid = layout.views[0];
        let of = |kind: &str| expected.all(&format!("{kind}.{name}")).unwrap();
        assert_eq!(of("grid"), [grid.frames, grid.rows, grid.columns].map(|n| n as f32), "{name}");
        assert!((of("seconds")[0] - layout.frame_seconds).abs() < 1e-6, "{name}");
        assert_eq!(layout.tokens as usize, grid.patches() / 4, "{name}");
        let image = processor.video(&video, &layout).unwrap();
        assert_eq!(image.layout(), layout);
        let mut values = Vec::new();
        patches.extend(&mut values, &image.views[0]);
        let samples = of("pixels");
        for (i, sample) in samples.iter().enumerate() {
            let ours = values[i * values.len() / samples.len()];
            assert!((ours - sample).abs() < 1e-5, "{name} {i}: {ours} {sample}");
        }
    }
}

#[test]
fn a_limit_of_tokens_makes_frames_smaller_and_then_fewer() {
    let (processor, _) = processor();
    let rule = *processor.videos().unwrap();
    let layout = |max_tokens| {
        let processor = processor.clone().with_videos(VideoRule { max_tokens, ..rule });
        let layout = processor.video_layout(&video(40, 10.0, 84, 56)).unwrap();
        (layout.views[0].frames, layout.tokens)
    };
    assert_eq!(layout(u32::MAX), (4, 4 * 6));
    for max_tokens in [4, 9, 12, 16, 20] {
        let (frames, tokens) = layout(max_tokens);
        assert!(frames <= 4 && tokens <= max_tokens, "{max_tokens}: {frames} {tokens}");
    }
    assert_eq!(layout(12).0, 4);
}

#[derive(Debug)]
struct Nothing;

impl FrameSource for Nothing {
    fn seconds(&self) -> f64 {
        1.0
    }

    fn frames(&self, _: u32) -> Result<Vec<RgbImage>, VideoError> {
        Ok(Vec::new())
    }
}

#[test]
fn a_video_without_frames_and_a_model_without_videos_are_named() {
    let (processor, _) = processor();
    let layout =
        |processor: &ImageProcessor, video| processor.video_layout(&video).unwrap_err().to_string();
    for video in [
        Video::Drawn(Arc::new(Nothing)),
        Video::Gif(vec![1, 2, 3].into()),
        Video::Frames { pictures: Vec::new().into(), per_second: 1.0 },
        Video::Latents(vec![0; 9].into()),
    ] {
        let error = layout(&processor, video);
        assert!(error.contains("cannot be decoded"), "{error}");
    }
    let model = dip_core::presets::model("vlm-tiny").unwrap();
    let pictures = ImageProcessor::of_model(&model).unwrap();
    let error = layout(&pictures, video(4, 2.0, 8, 8));
    assert!(error.contains("takes no videos"), "{error}");
}
