//! Models of Hugging Face: planned from a `config.json`, trained, exported, and fine-tuned with adapters.

use crate::support::inputs::{PUBLISHED_CONFIG, PUBLISHED_RUN};
use crate::support::{Folder, read};

fn folder() -> Folder {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("tiny")).unwrap();
    folder.write("tiny/config.json", PUBLISHED_CONFIG);
    folder.write("tiny/tokenizer_config.json", "{}");
    folder.write("run.toml", PUBLISHED_RUN);
    folder
}

/// The run with tokens of bytes, which its published weights do not name.
fn with_bytes(run: &str) -> String {
    run.replace("[data]\n", "[data]\ntokenizer = 'bytes'\n")
}

#[test]
fn a_run_of_a_published_model_reads_the_tokenizer_beside_it() {
    let folder = folder();
    let token =
        r#""single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true"#;
    let model = r#""model":{"type":"WordLevel","vocab":{"?":0,"red":1,"</s>":2},"unk_token":"?"}"#;
    let added = format!(r#"[{{"id":2,"content":"</s>",{token}}}]"#);
    let rest = r#""normalizer":null,"pre_tokenizer":{"type":"Whitespace"},"post_processor":null"#;
    let text =
        format!(r#"{{"version":"1.0","added_tokens":{added},{rest},"decoder":null,{model}}}"#);
    folder.write("tiny/tokenizer.json", &text);
    let trained = folder.dip(&["train", "run.toml"]).ok();
    assert!(trained.contains("tokens of tiny/tokenizer.json"), "{trained}");
}

#[test]
fn a_run_of_a_published_model_prepares_pictures_as_its_own_processor_does() {
    let folder = folder();
    folder.write("run.toml", &with_bytes(PUBLISHED_RUN));
    let processor = r#"{"image_processor_type":"Qwen2VLImageProcessor","patch_size":4,"min_pixels":64,"max_pixels":1024}"#;
    folder.write("tiny/preprocessor_config.json", &processor.replace(":4,", ":14,"));
    let error = folder.dip(&["train", "run.toml"]).fails(2);
    assert!(error.contains("patch_size is 14, but must be 4"), "{error}");
    folder.write("tiny/preprocessor_config.json", &processor.replace("Qwen2VL", "ViT"));
    let error = folder.dip(&["train", "run.toml"]).fails(2);
    assert!(error.contains("preprocessor_config.json: image_processor_type"), "{error}");
    folder.write("tiny/preprocessor_config.json", processor);
    folder.dip(&["train", "run.toml"]).ok();
}

#[test]
fn a_config_json_or_its_folder_can_be_given_as_a_model() {
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
    folder.write(
        "tiny/config.json",
        &PUBLISHED_CONFIG.replace("\"hidden_size\":24,\"inter", "\"inter"),
    );
    let error = folder.dip(&["plan", "--model", "tiny"]).fails(2);
    assert!(error.contains("config.json") && error.contains("hidden_size is absent"), "{error}");
    let error = folder.dip(&["plan", "--model", "tinny"]).fails(2);
    assert!(error.contains("\"tinny\"") && error.contains("config.json"), "{error}");
}

#[test]
fn a_plan_takes_degrees_and_says_which_ranks_hold_no_layer() {
    let folder = folder();
    let plan = |more: &[&str]| {
        let plan = ["plan", "--model", "tiny", "--schedule", "1f1b", "--iterations-budget", "10"];
        folder.dip(&[&plan[..], more].concat())
    };
    let out = ["--tensor", "2", "--data", "4", "--pipeline", "2", "--microbatches", "3"];
    plan(&[&out[..], &["--out", "plan.json"]].concat()).ok();
    let text = read(&folder.path("plan.json"));
    assert!(text.contains("\"microbatch\":2") && !text.contains("\"microbatch\":3"));
    let error = plan(&["--tensor", "0"]).fails(2);
    assert!(error.contains("parallel is data 1, tensor 0"), "{error}");
}

#[test]
fn a_model_is_trained_exported_and_fine_tuned_with_adapters() {
    let folder = folder();
    let trained = folder.dip(&["train", "run.toml"]).ok();
    assert!(trained.contains("weights drawn from seed 0"), "{trained}");
    let exported = folder.dip(&["export", "run.toml", "--out", "published"]).ok();
    assert!(exported.contains("from out/checkpoint-00000003"), "{exported}");
    assert_eq!(read(&folder.path("published/config.json")), PUBLISHED_CONFIG);
    assert!(folder.path("published/tokenizer_config.json").exists());

    let lora = "[weights]\nfrom = 'published'\nfrozen = ['vision']\n[lora]\nrank = 2\ntargets = ['query', 'down']\n";
    let run = PUBLISHED_RUN.replace("\"out\"", "\"tuned\"");
    folder.write("lora.toml", &format!("{}{lora}", with_bytes(&run)));
    let trained = folder.dip(&["train", "lora.toml"]).ok();
    assert!(trained.contains("weights from published"), "{trained}");
    folder.dip(&["export", "lora.toml", "--out", "merged", "--bf16", "--shard-mib", "1"]).ok();
    let size = |name: &str| std::fs::metadata(folder.path(name)).unwrap().len();
    assert!(size("merged/model.safetensors") < size("published/model.safetensors"));

    let error = folder.dip(&["export", "lora.toml", "--out", "merged"]).fails(2);
    assert!(error.contains("merged: is there already"), "{error}");
    let preset =
        PUBLISHED_RUN.replace("\"tiny\"", "\"vlm-tiny\"").replace("image_px = 16", "image_px = 32");
    folder.write("preset.toml", &preset);
    let error = folder.dip(&["export", "preset.toml", "--out", "x"]).fails(2);
    assert!(error.contains("\"vlm-tiny\" has no config.json"), "{error}");
}

#[test]
fn errors_name_missing_weights_and_unknown_modules() {
    let folder = folder();
    folder.write("bad.toml", &format!("{PUBLISHED_RUN}[weights]\nfrom = 'tiny'\n"));
    let error = folder.dip(&["train", "bad.toml"]).fails(2);
    assert!(error.contains("data.tokenizer is absent") && error.contains("tiny has no"), "{error}");
    let run = with_bytes(PUBLISHED_RUN);
    folder.write("bad.toml", &format!("{run}[weights]\nfrom = 'tiny'\n"));
    let error = folder.dip(&["train", "bad.toml"]).fails(2);
    assert!(error.contains("weights.from: tiny/model.safetensors"), "{error}");
    folder.write("bad.toml", &format!("{PUBLISHED_RUN}[lora]\nmodules = ['ears']\n"));
    let error = folder.dip(&["train", "bad.toml"]).fails(2);
    assert!(error.contains("lora.modules is \"ears\""), "{error}");
}
