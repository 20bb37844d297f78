//! Videos in documents of vision-language models: frames, sizes and pixels equal the video processor of Qwen2-VL.

use std::path::PathBuf;
use std::sync::Arc;

use dip_burn::data::{
    Conversation, Document, DocumentMedia, DocumentPiece, FrameSource, ImageProcessor, JsonFields,
    Picture, PictureError, PixelSource, RgbImage, Role, Tokenizer, Turn, Video, VideoError,
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
    let (plain, patches) = processor();
    let config = r#"{"fps":4,"min_frames":6,"max_frames":12,"max_video_tokens":20}"#;
    let other = plain.clone().with_video_settings(&serde_json::from_str(config).unwrap());
    let videos = [
        ("short", video(9, 24.0, 50, 40)),
        ("long", video(40, 10.0, 61, 37)),
        ("odd", video(35, 10.0, 30, 70)),
        ("few", video(3, 25.0, 33, 33)),
    ];
    let all = |processor, start: &'static str| {
        videos.iter().map(move |(name, video)| (format!("{start}{name}"), video, processor))
    };
    for (name, video, processor) in all(&plain, "").chain(all(&other, "other-")) {
        let layout = processor.video_layout(video).unwrap();
        let grid = layout.views[0];
        let of = |kind: &str| expected.all(&format!("{kind}.{name}")).unwrap();
        assert_eq!(of("grid"), [grid.frames, grid.rows, grid.columns].map(|n| n as f32), "{name}");
        assert!((of("seconds")[0] - layout.frame_seconds).abs() < 1e-6, "{name}");
        assert_eq!(layout.tokens as usize, grid.patches() / 4, "{name}");
        let image = processor.video(video, &layout).unwrap();
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

const TOKENIZER: &str = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[
 {"id":3,"content":"<|vision_start|>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},
 {"id":4,"content":"<|vision_end|>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},
 {"id":5,"content":"<|image_pad|>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},
 {"id":6,"content":"<|video_pad|>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},
 {"id":7,"content":"<|im_end|>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],
 "normalizer":null,"pre_tokenizer":{"type":"Whitespace"},"post_processor":null,"decoder":null,
 "model":{"type":"WordLevel","vocab":{"a":0,"b":1,"?":2,"<|vision_start|>":3,"<|vision_end|>":4,"<|image_pad|>":5,
 "<|video_pad|>":6,"<|im_end|>":7},"unk_token":"?"}}"#;

#[test]
fn a_video_stands_at_its_mark_with_the_tokens_of_all_its_frames() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, TOKENIZER).unwrap();
    let tokenizer = Tokenizer::from_file(&path).unwrap();
    let picture = Picture::Drawn(Arc::new(Drawn { frame: 0, width: 56, height: 28 }));
    let document = Document::interleave_media(
        "a <video> b <image> a",
        DocumentMedia {
            pictures: vec![picture],
            videos: vec![video(9, 24.0, 50, 40)],
            ..DocumentMedia::default()
        },
    );
    let document = document.unwrap();
    assert_eq!(document.marked_text(), "a <video> b <image> a");
    let (processor, _) = processor();
    let tokens = document.tokenize(&tokenizer, &processor.into()).unwrap();
    let mut expected = vec![0, 3];
    expected.extend([6; 2 * 2]);
    expected.extend([4, 1, 3, 5, 5, 4, 0, 7]);
    assert_eq!(tokens.tokens, expected);
    assert!(
        tokens.tokens.iter().zip(&tokens.trained).all(|(&id, &t)| !(t && (5..7).contains(&id)))
    );
    let places: Vec<u32> = tokens.pictures.iter().map(|placed| placed.offset).collect();
    assert_eq!(places, [2, 9]);
    assert!(
        Document::interleave_media(
            "<video><video>",
            DocumentMedia { videos: vec![video(2, 1.0, 28, 28)], ..DocumentMedia::default() }
        )
        .is_none()
    );
}

const TEMPLATE: &str = "{% for turn in messages %}{% for part in turn.content %}{% if part.type == 'video' %}\
<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}{% endfor %}\
{% if turn.role == 'assistant' %}<|im_end|>{% endif %}{% endfor %}";

#[test]
fn a_chat_template_places_videos() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), TOKENIZER).unwrap();
    std::fs::write(folder.path().join("chat_template.jinja"), TEMPLATE).unwrap();
    let tokenizer = Tokenizer::from_file(folder.path()).unwrap();
    let question =
        vec![DocumentPiece::Video(video(9, 24.0, 50, 40)), DocumentPiece::Text("a ".to_owned())];
    let turns = vec![
        Turn::new(Role::User, question),
        Turn::new(Role::Assistant, vec![DocumentPiece::Text("b".to_owned())]),
    ];
    let document = Document::Conversation(Conversation { turns, tools: JsonFields::default() });
    let (processor, _) = processor();
    let tokens = document.tokenize(&tokenizer, &processor.into()).unwrap();
    assert_eq!(tokens.tokens, [3, 6, 6, 6, 6, 4, 0, 1, 7]);
    assert_eq!(tokens.trained, [[false; 7].as_slice(), &[true; 2]].concat());
    assert_eq!(tokens.pictures[0].offset, 1);
}
