//! Layouts, tokens and pixel values equal those of `transformers`; see `scripts/hf_fixtures/processors.py`.

use std::path::{Path, PathBuf};

use crc::{CRC_32_ISO_HDLC, Crc};
use dip_core::hf::ProcessorFiles;
use image::Rgb;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use super::*;
use crate::batch::PromptPiece;

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

#[derive(Deserialize)]
struct ExpectedPicture {
    width: u32,
    height: u32,
    /// Pictures of its document.
    pictures: usize,
    text: Vec<TextOrTokens>,
    views: Vec<ExpectedView>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TextOrTokens {
    Text(String),
    Tokens(u32),
}

#[derive(Deserialize)]
struct ExpectedView {
    width: u32,
    height: u32,
    crc32: u32,
    samples: Vec<f32>,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/processors")
}

fn model(image_px: u32, patch_px: u32, merge: u32, tower: &str) -> ModelSpec {
    let text = format!(
        "name = 'm'\nsequence_tokens = 4096\n[[module]]\nname = 'v'\nlayers = 1\nhidden = 4\nffn = 4\nheads = 1\n\
         kind.vit = {{ image_px = {image_px}, patch_px = {patch_px}, merge = {merge}, tower = '{tower}' }}\n"
    );
    ModelSpec::from_toml(&text).unwrap()
}

/// A tower whose pictures come in tiles.
const TILED: &str = "siglip', tiles = { resolutions = [[56, 112]] }, norm = 'layer";

/// The model of a folder.
fn model_of(name: &str) -> ModelSpec {
    match name {
        "qwen2_vl" | "qwen2_5_vl" => model(56, 14, 2, "qwen2_vl"),
        "qwen3_vl" => model(64, 16, 2, "qwen3_vl"),
        "llava_next" | "llava_onevision" => model(56, 14, 1, TILED),
        "idefics3" | "smolvlm" | "smolvlm_whole" => model(56, 14, 2, "idefics"),
        "siglip" => model(76, 14, 1, "siglip"),
        _ => model(70, 14, 1, "clip"),
    }
}

/// The processor of a folder.
fn processor(name: &str) -> ImageProcessor {
    let config = ImageProcessor::read(&fixtures().join(name)).unwrap().unwrap();
    ImageProcessor::new(config, &model_of(name)).unwrap()
}

/// The picture that the script draws, too.
fn drawn(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([0, 1, 2].map(|c| ((7 * x + 3 * y + 50 * c) ^ ((x * y) >> (3 + c))) as u8))
    })
}

fn check_picture(name: &str, processor: &ImageProcessor, expected: &ExpectedPicture) {
    let &ExpectedPicture { width, height, pictures, .. } = expected;
    let case = format!("{name}, {width} x {height}, {pictures} pictures");
    let layout = processor.layout(PixelSize::new(width, height), pictures).expect(&case);
    let text: Vec<PromptPiece> = expected
        .text
        .iter()
        .map(|part| match part {
            TextOrTokens::Text(text) => PromptPiece::Text(text.clone()),
            TextOrTokens::Tokens(tokens) => PromptPiece::Image(*tokens),
        })
        .collect();
    assert_eq!(layout.prompt(), text, "{case}");
    let views = processor.process(&drawn(width, height), &layout).expect(&case);
    assert_eq!(views.len(), expected.views.len(), "{case}");
    for (i, (view, expected)) in views.iter().zip(&expected.views).enumerate() {
        let side = processor.patches.patch_px;
        let size = (view.grid.columns * side, view.grid.rows * side);
        assert_eq!(size, (expected.width, expected.height), "{case}, view {i}");
        let last = view.pixels.len() - 1;
        let parts = expected.samples.len() - 1;
        for (k, &sample) in expected.samples.iter().enumerate() {
            let value = view.pixels[last * k / parts];
            assert!((value - sample).abs() < 1e-5, "{case}, view {i}: {value} {sample}");
        }
        let bytes: Vec<u8> = view.pixels.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(CRC.checksum(&bytes), expected.crc32, "{case}, view {i}");
    }
}

#[test]
fn layouts_tokens_and_pixel_values_equal_those_of_transformers() {
    let text = std::fs::read_to_string(fixtures().join("expected.json")).unwrap();
    let all: std::collections::BTreeMap<String, Vec<ExpectedPicture>> =
        serde_json::from_str(&text).unwrap();
    assert_eq!(all.len(), 15);
    for (name, pictures) in &all {
        let processor = processor(name);
        pictures.iter().for_each(|picture| check_picture(name, &processor, picture));
    }
}

#[test]
fn a_square_has_the_tokens_that_the_model_keeps() {
    let tokens = |tower: &str| {
        let model = model(70, 14, 1, tower);
        ImageProcessor::new(processor("clip").config, &model).unwrap().fixed().unwrap().tokens
    };
    assert_eq!((tokens("clip"), tokens("clip', drop_first = false, norm = 'layer")), (25, 26));
    assert_eq!((tokens("siglip"), tokens("siglip', drop_first = true, norm = 'layer")), (25, 24));
}

#[test]
fn pictures_that_the_encoder_does_not_take_are_refused() {
    let thin = PixelSize::new(1000, 4);
    for (name, limit) in [("qwen2_vl", "ratio of at most 200"), ("llava_next", "has content")] {
        let error = processor(name).layout(thin, 1).unwrap_err();
        assert!(error.to_string().contains(limit), "{error}");
        assert_eq!(error.reason(), crate::data::SkipReason::UnfitPicture);
    }
    assert!(processor("clip").layout(thin, 1).is_ok());
    // A layout of another picture is found out.
    let qwen = processor("qwen2_vl");
    let layout = qwen.layout(PixelSize::new(280, 280), 1).unwrap();
    assert!(qwen.process(&drawn(140, 280), &layout).is_err());
    let next = processor("llava_next");
    let layout = next.layout(PixelSize::new(112, 56), 1).unwrap();
    assert!(next.process(&drawn(112, 112), &layout).is_err());
}

#[test]
fn a_processor_of_another_encoder_is_refused() {
    let files = |name: &str| ImageProcessor::read(&fixtures().join(name)).unwrap().unwrap();
    for (name, model, path) in [
        ("qwen2_vl", model(64, 16, 2, "qwen2_vl"), "patch_size is 14"),
        ("qwen2_vl", model(56, 14, 1, "qwen2_vl"), "merge_size is 2"),
        ("qwen2_vl", model(56, 14, 2, "native"), "temporal_patch_size is 2"),
        ("qwen2_vl", model(56, 14, 2, "clip"), "learned positions"),
        ("clip", model(84, 14, 1, "clip"), "size is 70"),
        ("llava_next", model(28, 14, 1, TILED), "size is 56"),
        ("llava_next", model(56, 14, 1, "siglip"), "image_grid_pinpoints is given"),
        ("siglip", model(56, 14, 1, TILED), "image_grid_pinpoints is absent"),
        ("smolvlm", model(70, 14, 1, "siglip"), "size is 56"),
    ] {
        let error = ImageProcessor::new(files(name), &model).unwrap_err().to_string();
        assert!(error.contains(path), "{error}");
    }
}

/// Reads `count` damaged files of processors, and lays out pictures of random sizes. None may panic.
fn damage(count: usize) {
    let folders: Vec<String> = std::fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| fixtures().join(name).join("preprocessor_config.json").exists())
        .collect();
    let mut random = ChaCha8Rng::seed_from_u64(7);
    for _ in 0..count {
        let name = &folders[random.random_range(0..folders.len())];
        let path = fixtures().join(name).join("preprocessor_config.json");
        let mut text = std::fs::read(path).unwrap();
        for _ in 0..random.random_range(0..3) {
            let at = random.random_range(0..text.len());
            text[at] = b"0123456789-.e{}[],\"truefalsn"[random.random_range(0..28)];
        }
        let text = String::from_utf8(text).unwrap();
        let files = ProcessorFiles { preprocessor: Some(&text), ..ProcessorFiles::default() };
        let Ok(Some(config)) = ImageProcessorConfig::read(files) else { continue };
        let Ok(processor) = ImageProcessor::new(config, &model_of(name)) else { continue };
        for _ in 0..20 {
            let mut side = || 1u32 << random.random_range(0..14) | random.random_range(0..200);
            let size = PixelSize::new(side(), side());
            if let Ok(layout) = processor.layout(size, 1) {
                assert!(layout.tokens > 0 && layout.patches() > 0, "{name}: {size:?}");
            }
        }
        // Of a picture of this size no view is large.
        let size = PixelSize::new(random.random_range(1..60), random.random_range(1..60));
        if let Ok(layout) = processor.layout(size, 1)
            && layout.patches() < 4096
        {
            let _ = processor.process(&drawn(size.width, size.height), &layout);
        }
    }
}

#[test]
fn damaged_files_of_processors_do_not_panic() {
    damage(200);
}

#[test]
#[ignore = "takes minutes in a debug build"]
fn ten_thousand_damaged_files_of_processors_do_not_panic() {
    damage(10_000);
}

#[test]
fn a_model_without_files_has_the_processor_of_its_tower() {
    let squash = ImageProcessor::of_model(&model(2, 1, 1, "native")).unwrap();
    let red = RgbImage::from_pixel(8, 4, Rgb([255, 0, 51]));
    let layout = squash.layout(PixelSize::new(8, 4), 1).unwrap();
    assert_eq!(squash.fixed().as_ref(), Some(&layout));
    let pixels = &squash.process(&red, &layout).unwrap()[0].pixels;
    assert_eq!(pixels[..8], [1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0]);
    assert!((pixels[8] - (-0.6)).abs() < 1e-6);
    let clip = ImageProcessor::of_model(&model(70, 14, 1, "clip")).unwrap();
    assert_eq!(clip, processor("clip"));
}
