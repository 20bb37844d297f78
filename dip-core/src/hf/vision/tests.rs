use crate::hf::{HfModel, from_config};
use crate::spec::{DecoderSpec, ModelSpec, ModuleId, Tower, VitSpec};

/// The fields of published files that define the architecture.
const LLAVA_INTERLEAVE: &str = r#"{"architectures":["LlavaForConditionalGeneration"],"image_token_index":151646,
"text_config":{"hidden_size":1024,"intermediate_size":2816,"max_position_embeddings":32768,"model_type":"qwen2",
"num_attention_heads":16,"num_hidden_layers":24,"num_key_value_heads":16,"vocab_size":152000,"rms_norm_eps":1e-06},
"vision_config":{"hidden_size":1152,"image_size":384,"intermediate_size":4304,"model_type":"siglip_vision_model",
"num_attention_heads":16,"num_hidden_layers":26,"patch_size":14,"vision_use_head":false},"vision_feature_layer":-1,
"vision_feature_select_strategy":"full"}"#;
const LLAVA_NEXT_VICUNA: &str = r#"{"architectures":["LlavaNextForConditionalGeneration"],"image_grid_pinpoints":
[[336,672],[672,336],[672,672],[1008,336],[336,1008]],"image_token_index":32000,"projector_hidden_act":"gelu",
"text_config":{"architectures":["LlamaForCausalLM"],"max_position_embeddings":4096,"model_type":"llama",
"rms_norm_eps":1e-05,"vocab_size":32064},"use_image_newline_parameter":true,"vision_config":{"hidden_size":1024,
"image_size":336,"intermediate_size":4096,"model_type":"clip_vision_model","num_attention_heads":16,
"num_hidden_layers":24,"patch_size":14,"projection_dim":768,"vocab_size":32000},"vision_feature_layer":-2,
"vision_feature_select_strategy":"default"}"#;
const LLAVA_ONEVISION_05B: &str = r#"{"architectures":["LlavaOnevisionForConditionalGeneration"],
"image_token_index":151646,"text_config":{"hidden_size":896,"max_position_embeddings":32768,"intermediate_size":4864,"model_type":"qwen2",
"num_attention_heads":14,"num_hidden_layers":24,"num_key_value_heads":2,"rope_theta":1000000.0,"vocab_size":152000,
"tie_word_embeddings":true},"tie_word_embeddings":true,"vision_aspect_ratio":"anyres_max_9","vision_config":
{"hidden_size":1152,"image_size":384,"intermediate_size":4304,"model_type":"siglip_vision_model",
"num_attention_heads":16,"num_hidden_layers":26,"patch_size":14,"vision_use_head":false}}"#;
const SMOLVLM_22B: &str = r#"{"architectures":["Idefics3ForConditionalGeneration"],"image_token_id":49153,
"scale_factor":3,"text_config":{"hidden_size":2048,"intermediate_size":8192,"max_position_embeddings":16384,
"model_type":"llama","num_attention_heads":32,"num_hidden_layers":24,"num_key_value_heads":32,"rms_norm_eps":1e-05,
"rope_theta":273768.0,"tie_word_embeddings":true,"vocab_size":49155},"tie_word_embeddings":false,"vision_config":
{"hidden_size":1152,"image_size":384,"intermediate_size":4304,"model_type":"idefics3","num_attention_heads":16,
"num_hidden_layers":27,"patch_size":14}}"#;

fn vit(model: &HfModel) -> &VitSpec {
    model.spec.modules[0].kind.get().unwrap()
}

fn error(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from:?}");
    from_config("m", &text.replacen(from, to, 1)).unwrap_err().to_string()
}

#[test]
fn an_image_whose_side_is_no_multiple_of_its_patches_has_the_whole_ones() {
    let model = from_config("m", LLAVA_INTERLEAVE).unwrap();
    let vision = &model.spec.modules[0];
    assert_eq!((vision.layers, vision.tower()), (26, Tower::Siglip));
    assert_eq!((vision.rows_per_image(), vision.tokens_per_image()), (27 * 27, 27 * 27));
}

#[test]
fn the_strategy_decides_whether_the_first_row_is_dropped() {
    let tokens = |text: &str| from_config("m", text).unwrap().spec.modules[0].tokens_per_image();
    let first_patch = LLAVA_INTERLEAVE.replace("\"full\"", "\"default\"");
    assert_eq!(tokens(&first_patch), 27 * 27 - 1);
    let clip = LLAVA_NEXT_VICUNA.replace("LlavaNext", "Llava");
    assert_eq!(tokens(&clip), 576);
    assert_eq!(tokens(&clip.replace("\"default\"", "\"full\"")), 577);
    let tiles = error(LLAVA_NEXT_VICUNA, "\"default\"", "\"full\"");
    assert!(tiles.contains("kind.vit.tiles is present, but must be absent"), "{tiles}");
}

#[test]
fn tiles_have_the_resolutions_of_the_file_or_of_its_class() {
    let next = from_config("m", LLAVA_NEXT_VICUNA).unwrap();
    let tiles = vit(&next).tiles.as_ref().unwrap();
    assert_eq!((tiles.resolutions.len(), tiles.max_tiles), (5, None));
    let largest = vit(&next).largest_size();
    assert_eq!((largest.patches, largest.views), (5 * 576, 5));
    assert!(next.spec.patch_limit() >= 5 * 576 && next.spec.sequence_tokens > largest.tokens);
    assert_eq!(next.spec.modules[0].layers, 23);
    let one = from_config("m", LLAVA_ONEVISION_05B).unwrap();
    let tiles = vit(&one).tiles.as_ref().unwrap();
    assert_eq!((tiles.resolutions.len(), tiles.max_tiles), (36, Some(9)));
    let largest = vit(&one).largest_size();
    assert_eq!((largest.patches, largest.views), (37 * 729, 37));
    assert!(one.spec.patch_limit() >= 37 * 729 && one.spec.sequence_tokens > largest.tokens);
    assert_eq!(one.spec.modules[0].layers, 26, "all layers");
    assert!(one.spec.modules[1].is_tied());
    for (text, from, to, named) in [
        (LLAVA_NEXT_VICUNA, "[336,672]", "[336,670]", "tiles.resolutions is [336, 670]"),
        (LLAVA_NEXT_VICUNA, "[336,672]", "[0,672]", "tiles.resolutions is [0, 672]"),
        (LLAVA_NEXT_VICUNA, "[336,672]", "[336]", "image_grid_pinpoints"),
        (LLAVA_ONEVISION_05B, "anyres_max_9", "anyres", "vision_aspect_ratio is \"anyres\""),
        (LLAVA_ONEVISION_05B, "anyres_max_9", "anyres_max_0", "vision_aspect_ratio"),
    ] {
        let error = error(text, from, to);
        assert!(error.contains(named), "{named}: {error}");
    }
}

#[test]
fn idefics_merges_patches_and_only_its_own_field_ties_the_head() {
    let model = from_config("m", SMOLVLM_22B).unwrap();
    let [vision, lm] = model.spec.modules.as_slice() else { panic!("two modules") };
    assert_eq!((vision.tower(), vision.layers), (Tower::Idefics, 27));
    assert_eq!((vision.rows_per_image(), vision.tokens_per_image()), (27 * 27, 81));
    assert_eq!(lm.kind, DecoderSpec { vocab: 49_155, head: true, tied: false, z_loss: 0.0 }.into());
    assert_eq!(model.spec.parameters(ModuleId(0)).last, 1152 * 9 * 2048);
    let wrong = error(SMOLVLM_22B, "\"scale_factor\":3", "\"scale_factor\":2");
    assert!(wrong.contains("27 patches are a multiple of merge = 2"), "{wrong}");
    let tied = SMOLVLM_22B
        .replace("\"tie_word_embeddings\":false,\"vision", "\"tie_word_embeddings\":true,\"vision");
    assert!(from_config("m", &tied).unwrap().spec.modules[1].is_tied());
}

#[test]
fn features_of_several_layers_are_refused_by_name() {
    let several =
        error(LLAVA_NEXT_VICUNA, "\"vision_feature_layer\":-2", "\"vision_feature_layer\":[-2,-5]");
    assert!(
        several.contains("vision_feature_layer is [-2,-5], but must be one whole number"),
        "{several}"
    );
}

#[test]
fn specs_with_tiles_and_dropped_rows_survive_their_toml_form() {
    let first_patch = LLAVA_INTERLEAVE.replace("\"full\"", "\"default\"");
    for text in [&first_patch, LLAVA_NEXT_VICUNA, LLAVA_ONEVISION_05B, SMOLVLM_22B] {
        let spec = from_config("m", text).unwrap().spec;
        assert_eq!(ModelSpec::from_toml(&toml::to_string(&spec).unwrap()).unwrap(), spec);
    }
}

#[test]
fn extreme_sizes_never_panic() {
    let numbers = ["0", "1", "2", "65535", "1048576", "16777216", "16777217", "1e300", "-1"];
    for text in [LLAVA_INTERLEAVE, LLAVA_NEXT_VICUNA, LLAVA_ONEVISION_05B, SMOLVLM_22B] {
        let digits = |at: &usize| text.as_bytes()[*at].is_ascii_digit();
        let starts = (1..text.len()).filter(|at| digits(at) && !digits(&(at - 1)));
        for at in starts {
            let end = at + text[at..].find(|c: char| !c.is_ascii_digit()).unwrap();
            for number in numbers {
                let _ = from_config("m", &format!("{}{number}{}", &text[..at], &text[end..]));
            }
        }
    }
}
