use super::*;
use crate::spec::ModuleId;

const INDEX: &str = r#"{"_class_name":"WanPipeline","_diffusers_version":"0.33.0","boundary_ratio":null,
"expand_timesteps":false,"scheduler":["diffusers","UniPCMultistepScheduler"],"transformer":["diffusers","WanTransformer3DModel"],
"transformer_2":[null,null],"vae":["diffusers","AutoencoderKLWan"]}"#;
const WAN_1_3B: &str = r#"{"_class_name":"WanTransformer3DModel","added_kv_proj_dim":null,"attention_head_dim":128,
"cross_attn_norm":true,"eps":1e-06,"ffn_dim":8960,"freq_dim":256,"image_dim":null,"in_channels":16,"num_attention_heads":12,
"num_layers":30,"out_channels":16,"patch_size":[1,2,2],"pos_embed_seq_len":null,"qk_norm":"rms_norm_across_heads",
"rope_max_seq_len":1024,"text_dim":4096}"#;
const UMT5_XXL: &str = r#"{"architectures":["UMT5EncoderModel"],"d_ff":10240,"d_kv":64,"d_model":4096,
"feed_forward_proj":"gated-gelu","layer_norm_epsilon":1e-06,"num_heads":64,"num_layers":24,
"relative_attention_max_distance":128,"relative_attention_num_buckets":32,"vocab_size":256384}"#;
const SCHEDULER: &str = r#"{"_class_name":"UniPCMultistepScheduler","flow_shift":5.0}"#;

fn files() -> PipelineFiles {
    PipelineFiles {
        index: INDEX.into(),
        transformer: WAN_1_3B.into(),
        text_encoder: UMT5_XXL.into(),
        scheduler: Some(SCHEDULER.into()),
    }
}

#[test]
fn wan_has_its_sizes_its_shift_and_a_frozen_encoder() {
    let HfModel { architecture, spec } = from_pipeline("wan", &files()).unwrap();
    assert_eq!(architecture, Architecture::Wan);
    let [text, video] = spec.modules.as_slice() else { panic!("two modules") };
    assert!(!text.trainable && video.trainable && video.inputs == [TEXT]);
    let dit: &DitSpec = video.kind.get().unwrap();
    assert_eq!((video.hidden, dit.token_channels, dit.tokens_per_frame), (1536, 64, 1560));
    let wan = dit.wan.unwrap();
    assert_eq!((wan.patch, wan.caption_tokens, wan.flow_shift), ([1, 2, 2], 512, 5.0));
    // Norms, biases and small tables are not counted: 1,418,996,800 and 5,680,910,336 are published.
    let millions = |module: usize| spec.parameters(ModuleId::from(module)).total() / 1_000_000;
    assert_eq!((millions(0), millions(1)), (5680, 1417));
    assert_eq!((spec.sequence_tokens, spec.max_clips, spec.parallel.pipeline), (2048, 4, 2));
    let without = PipelineFiles { scheduler: None, ..files() };
    let spec = from_pipeline("wan", &without).unwrap().spec;
    assert_eq!(spec.video().unwrap().wan.unwrap().flow_shift, 3.0);
    assert_eq!(ModelSpec::from_toml(&toml::to_string(&spec).unwrap()).unwrap(), spec);
}

/// The error after a change of one of the files.
fn error(of: fn(&mut PipelineFiles) -> &mut String, from: &str, to: &str) -> String {
    let mut files = files();
    let text = of(&mut files);
    assert!(text.contains(from), "{from}");
    *text = text.replacen(from, to, 1);
    from_pipeline("wan", &files).unwrap_err().to_string()
}

#[test]
fn errors_name_the_file_the_field_its_value_and_the_limit() {
    let index: fn(&mut PipelineFiles) -> &mut String = |files| &mut files.index;
    let video: fn(&mut PipelineFiles) -> &mut String = |files| &mut files.transformer;
    let text: fn(&mut PipelineFiles) -> &mut String = |files| &mut files.text_encoder;
    assert_eq!(
        error(video, "\"image_dim\":null", "\"image_dim\":1280"),
        "transformer/config.json: image_dim is 1280, but must be absent: it is not implemented; choose Wan 2.1 from text to video"
    );
    for (of, from, to, named) in [
        (index, "WanPipeline", "WanImageToVideoPipeline", "_class_name is \"WanImageTo"),
        (index, "[null,null]", "[\"diffusers\",\"WanTransformer3DModel\"]", "transformer_2 is a"),
        (index, "\"boundary_ratio\":null", "\"boundary_ratio\":0.9", "boundary_ratio is 0.9"),
        (index, "\"expand_timesteps\":false", "\"expand_timesteps\":true", "expand_timesteps is"),
        (video, "\"added_kv_proj_dim\":null", "\"added_kv_proj_dim\":5120", "added_kv_proj_dim is"),
        (video, "\"out_channels\":16", "\"out_channels\":8", "in_channels = 16"),
        (video, "\"in_channels\":16", "\"in_channels\":36", "out_channels is 16"),
        (video, "\"text_dim\":4096", "\"text_dim\":4095", "text_dim is 4095"),
        (video, "rms_norm_across_heads", "rms_norm", "qk_norm is \"rms_norm\""),
        (
            video,
            "\"cross_attn_norm\":true",
            "\"cross_attn_norm\":false",
            "cross_attn_norm is false",
        ),
        (video, "[1,2,2]", "[2,2]", "patch_size is [2, 2]"),
        (video, "[1,2,2]", "[1,0,2]", "patch_size is [1, 0, 2]"),
        (video, "\"freq_dim\":256", "\"freq_dim\":255", "step_waves is 255"),
        (video, "\"eps\":1e-06", "\"eps\":-1", "norm_epsilon is -1"),
        (text, "gated-gelu", "relu", "text_encoder/config.json: feed_forward_proj is \"relu\""),
        (text, "UMT5EncoderModel", "T5EncoderModel", "architectures is [\"T5EncoderModel\"]"),
        (text, "num_buckets\":32", "num_buckets\":6", "kind.t5.buckets is 6"),
        (text, "max_distance\":128", "max_distance\":8", "kind.t5.max_distance is 8"),
    ] {
        let error = error(of, from, to);
        assert!(error.contains(named), "{named}: {error}");
    }
    let missing = PipelineFiles { text_encoder: String::new(), ..files() };
    let error = from_pipeline("wan", &missing).unwrap_err().to_string();
    assert!(error.contains("text_encoder/config.json is missing"), "{error}");
    let part = super::super::from_config("wan", WAN_1_3B).unwrap_err().to_string();
    assert!(part.contains("model_index.json"), "{part}");
}

#[test]
fn extreme_sizes_and_damaged_files_never_panic() {
    let numbers =
        ["0", "1", "7", "1048576", "16777216", "16777217", "1e300", "-1", "null", "\"x\""];
    for (text, of) in [(WAN_1_3B, 0), (UMT5_XXL, 1), (SCHEDULER, 2), (INDEX, 3)] {
        let with = |text: String| {
            let mut files = files();
            match of {
                0 => files.transformer = text,
                1 => files.text_encoder = text,
                2 => files.scheduler = Some(text),
                _ => files.index = text,
            }
            let _ = from_pipeline("wan", &files);
        };
        for (at, _) in text.match_indices("\":") {
            let end = at + 2 + text[at + 2..].find([',', '}']).unwrap();
            for number in numbers {
                with(format!("{}{number}{}", &text[..at + 2], &text[end..]));
            }
        }
        (0..text.len()).for_each(|end| with(text[..end].to_owned()));
    }
}
