use super::*;

fn read(preprocessor: &str) -> Result<ImageProcessorConfig, String> {
    let files = ProcessorFiles { preprocessor: Some(preprocessor), ..ProcessorFiles::default() };
    ImageProcessorConfig::read(files).map(Option::unwrap).map_err(|error| error.to_string())
}

fn square(size: u32) -> PixelSize {
    PixelSize::square(size)
}

#[test]
fn pixel_limits_of_qwen_are_read_in_all_their_spellings() {
    let expected =
        NativeRule { patch_px: 14, merge: 2, frames: 2, min_pixels: 3136, max_pixels: 12_845_056 };
    for limits in [
        r#""min_pixels": 3136, "max_pixels": 12845056"#,
        r#""size": {"shortest_edge": 3136, "longest_edge": 12845056}"#,
        r#""size": {"min_pixels": 3136, "max_pixels": 12845056}"#,
        r#""size": {"shortest_edge": 1, "longest_edge": 2}, "min_pixels": 3136, "max_pixels": 12845056"#,
    ] {
        let text = format!(r#"{{"image_processor_type": "Qwen2VLImageProcessor", {limits}}}"#);
        let config = read(&text).unwrap();
        assert_eq!(config.rule, ImageRule::Native(expected), "{limits}");
        assert_eq!(config.filter, ResizeFilter::Bicubic);
        assert_eq!(config.scale, ColorStatistics::CLIP.into());
    }
    let plain = read(r#"{"image_processor_type": "Qwen2VLImageProcessorFast"}"#).unwrap();
    let default = NativeRule { max_pixels: 28 * 28 * 1280, ..expected };
    assert_eq!(plain.rule, ImageRule::Native(default));
}

#[test]
fn squares_are_read_from_numbers_and_objects() {
    let clip = r#"{"crop_size": 224, "size": 224, "resample": 3, "do_center_crop": true,
        "feature_extractor_type": "CLIPFeatureExtractor", "do_normalize": true}"#;
    let crop =
        SquareRule { pad: false, resize: SquareResize::ShorterSide(224), crop_px: Some(224) };
    assert_eq!(read(clip).unwrap().rule, ImageRule::Square(crop));
    let siglip = r#"{"image_processor_type": "SiglipImageProcessor", "resample": 2,
        "size": {"height": 384, "width": 384}, "image_mean": [0.5, 0.5, 0.5], "image_std": 0.5}"#;
    let config = read(siglip).unwrap();
    let squash = SquareRule { pad: false, resize: SquareResize::Both(384), crop_px: None };
    assert_eq!(config.rule, ImageRule::Square(squash));
    assert_eq!(
        (config.filter, config.scale),
        (ResizeFilter::Bilinear, ColorStatistics::HALF.into())
    );
    let llava = r#"{"image_processor_type": "LlavaImageProcessorFast", "do_pad": true,
        "size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}"#;
    let ImageRule::Square(rule) = read(llava).unwrap().rule else { panic!() };
    assert!(rule.pad);
}

#[test]
fn tiles_are_read_with_the_limit_of_the_model() {
    let next = r#"{"image_processor_type": "LlavaNextImageProcessor", "size": {"shortest_edge": 336},
        "crop_size": {"height": 336, "width": 336}, "image_grid_pinpoints": [[336, 672], [1008, 336]]}"#;
    let ImageRule::Tiles(rule) = read(next).unwrap().rule else { panic!() };
    assert_eq!(rule.sizes, [PixelSize::new(672, 336), PixelSize::new(336, 1008)]);
    assert_eq!((rule.side_px, rule.alone, rule.max_tiles), (336, false, None));
    let files = ProcessorFiles {
        preprocessor: Some(r#"{"image_processor_type": "LlavaOnevisionImageProcessor"}"#),
        processor: Some(r#"{"processor_class": "LlavaOnevisionProcessor"}"#),
        model: Some("\u{feff}{\"vision_aspect_ratio\": \"anyres_max_4\"}"),
    };
    let config = ImageProcessorConfig::read(files).unwrap().unwrap();
    let ImageRule::Tiles(rule) = config.rule else { panic!() };
    assert_eq!(
        (rule.sizes.len(), rule.sizes[6], rule.max_tiles),
        (36, PixelSize::new(384, 768), Some(4))
    );
    assert!(rule.alone && rule.sizes[0] == square(384));
}

#[test]
fn a_nested_processor_precedes_its_own_file() {
    let nested = r#"{"image_processor": {"image_processor_type": "SmolVLMImageProcessor",
        "size": {"longest_edge": 2048}, "max_image_size": {"longest_edge": 512}}}"#;
    let files = ProcessorFiles { preprocessor: Some("{}"), processor: Some(nested), model: None };
    let config = ImageProcessorConfig::read(files).unwrap().unwrap();
    let split = SplitRule { longer_side_px: 2048, side_px: 512, divide: true };
    assert_eq!(config.rule, ImageRule::Split(split));
    assert_eq!(config.filter, ResizeFilter::Lanczos);
    // The model's type names the class of a file that does not.
    let files = ProcessorFiles {
        preprocessor: Some("{}"),
        model: Some(r#"{"model_type": "idefics3"}"#),
        processor: None,
    };
    let config = ImageProcessorConfig::read(files).unwrap().unwrap();
    let split = SplitRule { longer_side_px: 1456, side_px: 364, divide: true };
    assert_eq!(config.rule, ImageRule::Split(split));
    assert_eq!(ImageProcessorConfig::read(ProcessorFiles::default()).unwrap(), None);
    let sounds =
        Some(r#"{"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 128}"#);
    let files = ProcessorFiles { preprocessor: sounds, ..ProcessorFiles::default() };
    assert_eq!(ImageProcessorConfig::read(files).unwrap(), None);
}

#[test]
fn fields_that_are_not_supported_are_named() {
    let of = |class: &str, fields: &str| {
        read(&format!(r#"{{"image_processor_type": "{class}", {fields}}}"#)).unwrap_err()
    };
    for (class, fields, path) in [
        ("ViTImageProcessor", r#""size": 224"#, "image_processor_type is \"ViTImageProcessor\""),
        ("Qwen2VLImageProcessor", r#""do_resize": false"#, "do_resize is false"),
        ("Qwen2VLImageProcessor", r#""resample": 0"#, "resample is 0"),
        ("Qwen2VLImageProcessor", r#""min_pixels": 9, "max_pixels": 4"#, "max_pixels is 4"),
        (
            "Qwen2VLImageProcessor",
            r#""size": {"height": 4, "width": 4}"#,
            "size is height and width",
        ),
        ("Qwen2VLImageProcessor", r#""image_std": [0.5, 0.0, 0.5]"#, "image_std is"),
        ("Qwen2VLImageProcessor", r#""image_mean": [0.5, 0.5]"#, "image_mean is"),
        ("CLIPImageProcessor", r#""do_center_crop": false"#, "size.shortest_edge is 224"),
        ("CLIPImageProcessor", r#""crop_size": {"height": 4, "width": 5}"#, "crop_size is 5 x 4"),
        ("SiglipImageProcessor", r#""size": {"height": 0, "width": 5}"#, "size.height is 0"),
        ("LlavaNextImageProcessor", r#""size": 336"#, "crop_size is 224"),
        (
            "LlavaNextImageProcessor",
            r#""size": 336, "crop_size": 336, "image_grid_pinpoints": [[336, 500]]"#,
            "image_grid_pinpoints is 336 x 500",
        ),
        (
            "Idefics3ImageProcessor",
            r#""max_image_size": {"longest_edge": 1}"#,
            "size.longest_edge is",
        ),
        (
            "Idefics3ImageProcessor",
            r#""size": {"longest_edge": 99999}"#,
            "size.longest_edge is 99999",
        ),
    ] {
        let error = of(class, fields);
        assert!(error.starts_with(&format!("preprocessor_config.json: {path}")), "{error}");
        assert!(error.contains("must be"), "{error}");
    }
}
