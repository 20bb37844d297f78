//! Models of Hugging Face: planned from a `config.json`, trained, exported, and fine-tuned with adapters.

use crate::support::{Folder, read};

const CONFIG: &str = r#"{"architectures":["Qwen2VLForConditionalGeneration"],"hidden_size":24,"intermediate_size":32,
"num_hidden_layers":2,"num_attention_heads":2,"num_key_value_heads":1,"vocab_size":260,"max_position_embeddings":512,
"rms_norm_eps":1e-6,"rope_theta":10000.0,"rope_scaling":{"type":"mrope","mrope_section":[2,2,2]},"tie_word_embeddings":true,
"vision_config":{"depth":2,"embed_dim":16,"hidden_size":24,"num_heads":2,"mlp_ratio":2,"patch_size":4,
"spatial_merge_size":2,"temporal_patch_size":2},"some_field_of_the_future":[1]}"#;

const RUN: &str = r#"name = "small"
model = "tiny"
iterations = 3
output = "out"
[sequence]
tokens = 96
images = 4
image_px = 16
[data]
microbatches = 2
[evaluation]
pictures = 0
captions = 0
"#;

fn folder() -> Folder {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("tiny")).unwrap();
    folder.write("tiny/config.json", CONFIG);
    folder.write("tiny/tokenizer_config.json", "{}");
    folder.write("run.toml", RUN);
    folder
}

#[test]
fn a_config_json_or_its_folder_is_a_model_wherever_a_model_is_named() {
    let folder = folder();
    for model in ["tiny", "tiny/config.json"] {
        folder.dip(&["sample", "--model", model, "--out", "batch.jsonl"]).ok();
        let plan =
            ["plan", "--model", model, "--batch", "batch.jsonl", "--iterations-budget", "10"];
        let planned = folder.dip(&plan).ok();
        assert!(planned.starts_with("tiny on"), "{planned}");
        let compare = ["compare", "--models", model, "--schedules", "1f1b", "--iterations", "1"];
        folder.dip(&[&compare[..], &["--iterations-budget", "10"]].concat()).ok();
    }
    folder.write("tiny/config.json", &CONFIG.replace("\"hidden_size\":24,\"inter", "\"inter"));
    let error = folder.dip(&["plan", "--model", "tiny"]).fails(2);
    assert!(error.contains("config.json") && error.contains("hidden_size is absent"), "{error}");
    let error = folder.dip(&["plan", "--model", "tinny"]).fails(2);
    assert!(error.contains("\"tinny\"") && error.contains("config.json"), "{error}");
}

#[test]
fn a_model_is_trained_exported_and_fine_tuned_with_adapters() {
    let folder = folder();
    let trained = folder.dip(&["train", "run.toml"]).ok();
    assert!(trained.contains("weights drawn from seed 0"), "{trained}");
    let exported = folder.dip(&["export", "run.toml", "--out", "published"]).ok();
    assert!(exported.contains("from out/checkpoint-00000003"), "{exported}");
    assert_eq!(read(&folder.path("published/config.json")), CONFIG);
    assert!(folder.path("published/tokenizer_config.json").exists());

    let lora = "[weights]\nfrom = 'published'\nfrozen = ['vision']\n[lora]\nrank = 2\ntargets = ['query', 'down']\n";
    folder.write("lora.toml", &format!("{}{lora}", RUN.replace("\"out\"", "\"tuned\"")));
    let trained = folder.dip(&["train", "lora.toml"]).ok();
    assert!(trained.contains("weights from published"), "{trained}");
    folder.dip(&["export", "lora.toml", "--out", "merged", "--bf16", "--shard-mib", "1"]).ok();
    let size = |name: &str| std::fs::metadata(folder.path(name)).unwrap().len();
    assert!(size("merged/model.safetensors") < size("published/model.safetensors"));

    let error = folder.dip(&["export", "lora.toml", "--out", "merged"]).fails(2);
    assert!(error.contains("merged: is there already"), "{error}");
    let preset = RUN.replace("\"tiny\"", "\"vlm-tiny\"").replace("image_px = 16", "image_px = 32");
    folder.write("preset.toml", &preset);
    let error = folder.dip(&["export", "preset.toml", "--out", "x"]).fails(2);
    assert!(error.contains("\"vlm-tiny\" has no config.json"), "{error}");
}

#[test]
fn weights_that_are_not_there_or_of_another_model_are_named() {
    let folder = folder();
    folder.write("bad.toml", &format!("{RUN}[weights]\nfrom = 'tiny'\n"));
    let error = folder.dip(&["train", "bad.toml"]).fails(2);
    assert!(error.contains("weights.from: tiny/model.safetensors"), "{error}");
    folder.write("bad.toml", &format!("{RUN}[lora]\nmodules = ['ears']\n"));
    let error = folder.dip(&["train", "bad.toml"]).fails(2);
    assert!(error.contains("lora.modules is \"ears\""), "{error}");
}
