use super::*;
use crate::spec::{
    Activation, AttentionBias, DecoderSpec, Modality, ModuleId, NormKind, QueryKeyNorm, Tower,
    VitSpec,
};

/// The fields of published files that define the architecture, and some others.
const LLAMA_31_8B: &str = r#"{"architectures":["LlamaForCausalLM"],"attention_bias":false,"eos_token_id":[1,2],
"hidden_act":"silu","hidden_size":4096,"intermediate_size":14336,"max_position_embeddings":131072,"mlp_bias":false,
"num_attention_heads":32,"num_hidden_layers":32,"num_key_value_heads":8,"rms_norm_eps":1e-05,"rope_theta":500000.0,
"rope_scaling":{"factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":8192,
"rope_type":"llama3"},"tie_word_embeddings":false,"vocab_size":128256,"pretraining_tp":1}"#;
const QWEN2_VL_2B: &str = r#"{"architectures":["Qwen2VLForConditionalGeneration"],"hidden_act":"silu",
"hidden_size":1536,"intermediate_size":8960,"max_position_embeddings":32768,"num_attention_heads":12,
"num_hidden_layers":28,"num_key_value_heads":2,"rms_norm_eps":1e-06,"rope_theta":1000000.0,"sliding_window":32768,
"use_sliding_window":false,"tie_word_embeddings":true,"vocab_size":151936,"vision_config":{"depth":32,"embed_dim":1280,
"mlp_ratio":4,"num_heads":16,"in_chans":3,"hidden_size":1536,"patch_size":14,"spatial_merge_size":2,
"temporal_patch_size":2},"rope_scaling":{"type":"mrope","mrope_section":[16,24,24]}}"#;
const LLAVA_15_7B: &str = r#"{"architectures":["LlavaForConditionalGeneration"],"image_token_index":32000,
"projector_hidden_act":"gelu","text_config":{"architectures":["LlamaForCausalLM"],"max_position_embeddings":4096,
"model_type":"llama","rms_norm_eps":1e-05,"vocab_size":32064},"vision_config":{"hidden_size":1024,"image_size":336,
"intermediate_size":4096,"model_type":"clip_vision_model","num_attention_heads":16,"num_hidden_layers":24,
"patch_size":14,"projection_dim":768},"vision_feature_layer":-2,"vision_feature_select_strategy":"default"}"#;

fn billions(model: &HfModel, module: usize) -> f64 {
    model.spec.parameters(ModuleId::from(module)).total() as f64 / 1e9
}

fn error(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from:?}");
    from_config("m", &text.replacen(from, to, 1)).unwrap_err().to_string()
}

#[test]
fn llama_3_1_has_its_size_and_scaled_positions() {
    let model = from_config("llama", LLAMA_31_8B).unwrap();
    assert_eq!(model.architecture, Architecture::Llama);
    assert!((billions(&model, 0) - 8.03).abs() < 0.01);
    let lm = &model.spec.modules[0];
    assert_eq!((lm.attention_bias(), lm.kv_heads(), lm.is_tied()), (AttentionBias::None, 8, false));
    let rope = &lm.options.rope;
    assert_eq!((rope.theta, rope.scaling.unwrap().original_positions), (500_000.0, 8192));
    assert_eq!((model.spec.sequence_tokens, model.spec.max_images), (8192, 0));
    // 8e9 weights of 16 bytes are 128 GB; a rank holds 40 GiB.
    assert_eq!(model.spec.parallel.pipeline, 4);
}

#[test]
fn qwen2_vl_of_transformers_4_has_its_decoder_at_the_top_level() {
    let model = from_config("qwen", QWEN2_VL_2B).unwrap();
    let [vision, lm] = model.spec.modules.as_slice() else { panic!("two modules") };
    assert!(lm.is_tied() && lm.attention_bias() == AttentionBias::Qkv);
    assert_eq!(lm.options.rope.sections, Some([16, 24, 24]));
    assert_eq!((vision.tower(), vision.ffn, vision.head_dim()), (Tower::Qwen2Vl, 5120, 80));
    assert_eq!((vision.rows_per_image(), vision.tokens_per_image()), (1024, 256));
    // Layers have 0.63e9 weights, the adapter 0.034e9; the first matrix of the adapter is square.
    assert!((billions(&model, 0) - 0.665).abs() < 0.01, "{}", billions(&model, 0));
    assert!(model.spec.max_images > 0);
}

#[test]
fn llava_omits_defaults_of_llama_and_takes_features_before_the_last_layer() {
    let model = from_config("llava", LLAVA_15_7B).unwrap();
    let [vision, lm] = model.spec.modules.as_slice() else { panic!("two modules") };
    assert_eq!(
        (vision.layers, vision.tower(), vision.adapter_hidden),
        (23, Tower::Clip, Some(4096))
    );
    assert_eq!((vision.rows_per_image(), vision.tokens_per_image()), (577, 576));
    assert_eq!(
        (vision.options.activation, vision.options.norm_epsilon),
        (Activation::QuickGelu, 1e-5)
    );
    assert_eq!((lm.hidden, lm.ffn, lm.layers, lm.heads), (4096, 11_008, 32, 32));
    assert_eq!(lm.kind, DecoderSpec { vocab: 32_064, head: true, tied: false, z_loss: 0.0 }.into());
    assert!((billions(&model, 1) - 6.74).abs() < 0.01);
}

#[test]
fn a_spec_survives_its_toml_form() {
    for text in [LLAMA_31_8B, QWEN2_VL_2B, LLAVA_15_7B] {
        let spec = from_config("m", text).unwrap().spec;
        assert_eq!(ModelSpec::from_toml(&toml::to_string(&spec).unwrap()).unwrap(), spec);
    }
}

#[test]
fn errors_name_the_field_its_value_the_limit_and_the_remedy() {
    assert_eq!(
        error(LLAMA_31_8B, "\"hidden_size\":4096,", ""),
        "hidden_size is absent, but must be a whole number of at least 1; \
         take the config.json that came with the weights"
    );
    for (text, from, to, named) in [
        (LLAMA_31_8B, "LlamaForCausalLM", "MixtralForCausalLM", "architectures is [\"Mixtral"),
        (LLAMA_31_8B, "\"llama3\"", "\"dynamic\"", "rope_scaling.rope_type is \"dynamic\""),
        (
            LLAMA_31_8B,
            "\"factor\":8.0,",
            "\"factor\":8.0,\"partial_rotary_factor\":0.5,",
            "partial_rotary_factor is 0.5",
        ),
        (
            LLAMA_31_8B,
            "\"vocab_size\"",
            "\"quantization_config\":{\"quant_method\":\"fp8\"},\"vocab_size\"",
            "quantization_config is \"fp8\"",
        ),
        (LLAMA_31_8B, "\"silu\"", "\"relu\"", "hidden_act is \"relu\""),
        (LLAMA_31_8B, "\"hidden_size\":4096", "\"hidden_size\":-1", "hidden_size is -1"),
        (LLAMA_31_8B, "\"hidden_size\":4096", "\"hidden_size\":\"big\"", "hidden_size is \"big\""),
        (
            LLAMA_31_8B,
            "\"num_key_value_heads\":8",
            "\"num_key_value_heads\":7",
            "a divisor of heads",
        ),
        (QWEN2_VL_2B, "[16,24,24]", "[16,24]", "rope_scaling.mrope_section is [16, 24]"),
        (QWEN2_VL_2B, "[16,24,24]", "[16,24,25]", "add up to head_dim / 2 = 64"),
        (
            QWEN2_VL_2B,
            "\"in_chans\":3,\"hidden_size\":1536",
            "\"hidden_size\":99",
            "vision_config.hidden_size is 99",
        ),
        (LLAVA_15_7B, "clip_vision_model", "pixtral", "vision_config.model_type is \"pixtral\""),
        (
            LLAVA_15_7B,
            "\"vision_feature_layer\":-2",
            "\"vision_feature_layer\":-25",
            "a layer of the 24",
        ),
        (
            LLAVA_15_7B,
            "\"vision_feature_layer\":-2",
            "\"vision_feature_layer\":[-2,-5]",
            "one whole number",
        ),
        (LLAVA_15_7B, "\"default\"", "\"cls\"", "vision_feature_select_strategy is \"cls\""),
    ] {
        let error = error(text, from, to);
        assert!(error.contains(named), "{named}: {error}");
    }
    for text in ["", "[]", "{", "{}", "{\"architectures\":3}"] {
        assert!(from_config("m", text).is_err(), "{text}");
    }
}

#[test]
fn extreme_sizes_never_panic() {
    let numbers = ["0", "1", "2", "65535", "1048576", "16777216", "16777217", "1e300", "-1"];
    for text in [LLAMA_31_8B, QWEN2_VL_2B, LLAVA_15_7B] {
        let fields = text.match_indices("\":").map(|(at, _)| at + 2);
        for at in fields.filter(|&at| text.as_bytes()[at].is_ascii_digit()) {
            let end = at + text[at..].find([',', '}']).unwrap();
            for number in numbers {
                let _ = from_config("m", &format!("{}{number}{}", &text[..at], &text[end..]));
            }
        }
    }
    // All sizes at once at their limits.
    let mut large = QWEN2_VL_2B.replace("[16,24,24]", "[524288,0,0]");
    for (from, to) in
        [("1536", "1048576"), ("8960", "1048576"), ("1280", "1048576"), (":28", ":65536")]
    {
        large = large.replace(from, to);
    }
    let large =
        large.replace(":12,", ":1,").replace(":16,", ":1,").replace("heads\":2", "heads\":1");
    let large = large.replace("\"mlp_ratio\":4", "\"mlp_ratio\":1");
    let model = from_config("m", &large).unwrap();
    assert!(billions(&model, 1) > 1e8);
}

const QWEN25_VL_7B: &str = r#"{"architectures":["Qwen2_5_VLForConditionalGeneration"],"hidden_act":"silu",
"hidden_size":3584,"intermediate_size":18944,"max_position_embeddings":128000,"max_window_layers":28,
"num_attention_heads":28,"num_hidden_layers":28,"num_key_value_heads":4,"rms_norm_eps":1e-06,"rope_theta":1000000.0,
"sliding_window":32768,"use_sliding_window":false,"tie_word_embeddings":false,"vocab_size":152064,"vision_config":{
"depth":32,"hidden_act":"silu","hidden_size":1280,"intermediate_size":3420,"num_heads":16,"in_chans":3,
"out_hidden_size":3584,"patch_size":14,"spatial_merge_size":2,"spatial_patch_size":14,"window_size":112,
"fullatt_block_indexes":[7,15,23,31],"tokens_per_second":2,"temporal_patch_size":2},
"rope_scaling":{"type":"mrope","mrope_section":[16,24,24]}}"#;

#[test]
fn qwen2_5_vl_has_windows_in_all_but_four_layers_of_its_encoder() {
    let model = from_config("qwen", QWEN25_VL_7B).unwrap();
    let [vision, lm] = model.spec.modules.as_slice() else { panic!("two modules") };
    let vit = vision.kind.get::<VitSpec>().unwrap();
    let full: Vec<u32> = (0..32).filter(|&layer| !vit.is_windowed(layer)).collect();
    assert_eq!((full, vit.window_side(), vit.norm), (vec![7, 15, 23, 31], Some(4), NormKind::Rms));
    assert_eq!((vit.positions_per_second, vision.gated_ffn()), (Some(2), true));
    assert_eq!(
        (lm.attention_bias(), lm.options.rope.sections),
        (AttentionBias::Qkv, Some([16, 24, 24]))
    );
    let refused = error(QWEN25_VL_7B, "\"out_hidden_size\":3584", "\"out_hidden_size\":2048");
    assert!(refused.contains("vision_config.out_hidden_size"), "{refused}");
    let refused = error(QWEN25_VL_7B, "[7,15,23,31]", "[7,15,23,32]");
    assert!(refused.contains("window.full_layers"), "{refused}");
}

const QWEN3_8B: &str = r#"{"architectures":["Qwen3ForCausalLM"],"attention_bias":false,"head_dim":128,"hidden_act":"silu",
"hidden_size":4096,"intermediate_size":12288,"max_position_embeddings":40960,"max_window_layers":36,
"num_attention_heads":32,"num_hidden_layers":36,"num_key_value_heads":8,"rms_norm_eps":1e-06,"rope_scaling":null,
"rope_theta":1000000,"sliding_window":null,"tie_word_embeddings":false,"use_sliding_window":false,"vocab_size":151936}"#;
const MISTRAL_7B: &str = r#"{"architectures":["MistralForCausalLM"],"hidden_act":"silu","hidden_size":4096,
"intermediate_size":14336,"max_position_embeddings":32768,"num_attention_heads":32,"num_hidden_layers":32,
"num_key_value_heads":8,"rms_norm_eps":1e-05,"rope_theta":10000.0,"sliding_window":4096,"tie_word_embeddings":false,
"vocab_size":32000}"#;

/// The decoder of a config with a text replaced.
fn decoder(text: &str, from: &str, to: &str) -> ModuleSpec {
    assert!(text.contains(from), "{from:?}");
    let mut spec = from_config("m", &text.replacen(from, to, 1)).unwrap().spec;
    spec.modules.pop().unwrap()
}

#[test]
fn qwen3_norms_its_queries_and_keys_and_a_byte_order_mark_is_no_part_of_a_file() {
    let with_mark = format!("\u{feff}{QWEN3_8B}");
    let model = from_config("m", &with_mark).unwrap();
    assert_eq!(model.architecture, Architecture::Qwen3);
    let options = &model.spec.modules[0].options;
    assert_eq!(options.query_key_norm, Some(QueryKeyNorm::Head));
    assert_eq!((options.attention_bias, &options.window), (Some(AttentionBias::None), &None));
    assert_eq!(decoder(QWEN3_8B, "\"head_dim\":128,", "").head_dim(), 128);
}

#[test]
fn windows_are_those_of_transformers() {
    let window = |text: &str, from: &str, to: &str| {
        let window = decoder(text, from, to).options.window;
        window.map(|w| (w.tokens, w.full_layers))
    };
    let sliding = "\"sliding_window\":4096,";
    assert_eq!(window(MISTRAL_7B, "x", "x"), Some((4096, vec![])));
    assert_eq!(window(MISTRAL_7B, sliding, "\"sliding_window\":null,"), None);
    assert_eq!(window(MISTRAL_7B, sliding, ""), Some((4096, vec![])));
    let used = QWEN3_8B.replace("\"use_sliding_window\":false", "\"use_sliding_window\":true");
    // null is no window, although the model says that it uses one.
    assert_eq!(window(&used, "x", "x"), None);
    let used = used.replace("\"sliding_window\":null", "\"sliding_window\":512");
    assert_eq!(window(&used, "x", "x"), None, "max_window_layers is the number of layers");
    let early = "\"max_window_layers\":30,";
    assert_eq!(window(&used, "\"max_window_layers\":36,", early), Some((512, (0..30).collect())));
    let types = |count: usize, last: &str| {
        let full = vec!["\"full_attention\""; count];
        format!("\"layer_types\":[{},\"{last}\"],\"head_dim\"", full.join(","))
    };
    let listed = window(&used, "\"head_dim\"", &types(35, "sliding_attention"));
    assert_eq!(listed, Some((512, (0..35).collect())));
    for (types, named) in [
        (types(35, "chunked"), "layer_types is \"chunked\""),
        (types(34, "full_attention"), "layer_types is 35 types"),
    ] {
        let error = error(&used, "\"head_dim\"", &types);
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn yarn_and_linear_scaling_are_read_with_their_defaults() {
    let rope = |scaling: &str| {
        let to = format!("\"rope_scaling\":{scaling}");
        decoder(QWEN3_8B, "\"rope_scaling\":null", &to).options.rope
    };
    let yarn = rope(r#"{"type":"yarn","factor":4.0,"original_max_position_embeddings":32768}"#);
    let yarn = yarn.yarn.unwrap();
    assert_eq!(
        (yarn.factor, yarn.fast, yarn.slow, yarn.original_positions),
        (4.0, 32.0, 1.0, 32_768)
    );
    assert!((yarn.amplitude - 1.138_629_436).abs() < 1e-9 && yarn.whole_angles);
    assert_eq!(rope(r#"{"rope_type":"linear","factor":2.0}"#).linear, Some(2.0));
    let spec = from_config("m", QWEN3_8B).unwrap().spec;
    assert_eq!(ModelSpec::from_toml(&toml::to_string(&spec).unwrap()).unwrap(), spec);
}

/// A file with few fields, and the values that `transformers` takes for the others.
#[derive(serde::Deserialize)]
struct Defaults {
    name: String,
    config: serde_json::Value,
    decoder: serde_json::Value,
    encoder: serde_json::Value,
}

#[test]
fn absent_fields_have_the_defaults_of_transformers() {
    let all: Vec<Defaults> = serde_json::from_str(include_str!("defaults.json")).unwrap();
    assert!(all.len() >= 18);
    for Defaults { name, config, decoder, encoder } in all {
        let model = from_config(&name, &config.to_string());
        let model = model.unwrap_or_else(|error| panic!("{name}: {error}")).spec;
        let lm = model.modules.last().unwrap();
        let kind = lm.kind.get::<DecoderSpec>().unwrap();
        let window = lm.options.window.clone();
        let full_layers = window.as_ref().map_or_else(Vec::new, |w| w.full_layers.clone());
        let positions = decoder["positions"].as_u64().unwrap().min(SEQUENCE_TOKENS.into());
        let tiled = model.sequence_tokens > SEQUENCE_TOKENS;
        let found = serde_json::json!({
            "hidden": lm.hidden, "ffn": lm.ffn, "layers": lm.layers, "heads": lm.heads,
            "kv_heads": lm.kv_heads(), "head_dim": lm.head_dim(), "vocab": kind.vocab,
            "positions": if tiled { positions } else { model.sequence_tokens.into() },
            "norm_epsilon": lm.options.norm_epsilon, "theta": lm.options.rope.theta, "tied": kind.tied,
            "window": window.map(|w| w.tokens), "full_layers": full_layers,
        });
        let mut expected = decoder;
        expected["positions"] = positions.into();
        assert_eq!(found, expected, "{name}");
        if encoder.is_null() {
            continue;
        }
        let tower = &model.modules[0];
        let patch = tower.kind.get::<VitSpec>().map(|vit| vit.patch_px);
        let found = serde_json::json!({
            "hidden": tower.hidden, "ffn": tower.ffn, "heads": tower.heads, "patch": patch,
            // The last layers are left out where features come from one before them.
            "layers": if name.starts_with("llava") { encoder["layers"].clone() } else { tower.layers.into() },
            "norm_epsilon": encoder["norm_epsilon"].as_f64().map(|_| tower.options.norm_epsilon),
        });
        assert_eq!(found, encoder, "{name}");
    }
}
