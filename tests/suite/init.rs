//! Runs that `dip init` writes are trained unchanged.

use std::path::{Path, PathBuf};

use crate::support::inputs::{MODEL, VIDEO_MODEL};
use crate::support::{Folder, read};

/// Files of the tests of dip-burn.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dip-burn/tests/fixtures").join(name)
}

fn picture() -> Vec<u8> {
    std::fs::read(fixture("processors/pictures/rgb.png")).unwrap()
}

/// Copies the weights of a tiny published model into `model`, with a tokenizer of words.
fn published(folder: &Folder, name: &str) {
    let model = folder.path("model");
    std::fs::create_dir(&model).unwrap();
    for entry in std::fs::read_dir(fixture("hf").join(name)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, model.join(path.file_name().unwrap())).unwrap();
    }
    std::fs::remove_file(model.join("expected.safetensors")).unwrap();
    let token =
        r#""single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true"#;
    let words = r#"{"type":"WordLevel","vocab":{"?":0,"red":1,"</s>":2},"unk_token":"?"}"#;
    let added = format!(r#"[{{"id":2,"content":"</s>",{token}}}]"#);
    let rest = r#""normalizer":null,"pre_tokenizer":{"type":"Whitespace"},"post_processor":null"#;
    let text = format!(
        r#"{{"version":"1.0","added_tokens":{added},{rest},"decoder":null,"model":{words}}}"#
    );
    folder.write("model/tokenizer.json", &text);
}

/// Writes a tar with these members.
fn shard(folder: &Folder, name: &str, members: &[(String, Vec<u8>)]) {
    let mut tar = tar::Builder::new(std::fs::File::create(folder.path(name)).unwrap());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    tar.into_inner().unwrap();
}

/// Writes a run, trains two iterations of it, and returns what `dip init` said.
fn init_and_train(folder: &Folder, more: &[&str]) -> String {
    let said = folder.dip(&[&["init"], more].concat()).ok();
    assert!(said.contains("dip train run.toml"), "{said}");
    let trained = folder.dip(&["train", "run.toml", "--iterations", "2"]).ok();
    assert!(trained.contains("iterations   2 in "), "{trained}");
    said
}

#[test]
fn a_vision_language_model_with_conversations_and_pictures() {
    let folder = Folder::new();
    published(&folder, "qwen2-vl");
    let processor = r#"{"image_processor_type":"Qwen2VLImageProcessor","patch_size":4,"min_pixels":64,"max_pixels":1024}"#;
    folder.write("model/preprocessor_config.json", processor);
    std::fs::create_dir_all(folder.path("data/images")).unwrap();
    std::fs::write(folder.path("data/images/a.png"), picture()).unwrap();
    let turns =
        r#"[{"from":"human","value":"<image>\nWhat is it?"},{"from":"gpt","value":"red red"}]"#;
    let sample = format!(r#"{{"image":"a.png","conversations":{turns}}}"#);
    let broken = sample.replace("a.png", "none.png");
    let samples = [vec![sample.as_str(); 11], vec![broken.as_str()]].concat().join(",");
    folder.write("data/train.json", &format!("[{samples}]"));
    let said = init_and_train(&folder, &["--model", "model", "--data", "data"]);
    for part in
        ["12 samples", "1 missing picture", "train.json", "1.0 pictures", "what the assistant says"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    let run = read(&folder.path("run.toml"));
    assert!(
        run.contains("images = \"data/images\"") && run.contains("learning_rate = 1e-5"),
        "{run}"
    );
    // An existing file stays.
    let again = ["init", "--model", "model", "--data", "data"];
    let error = folder.dip(&again).fails(2);
    assert!(error.contains("--force") && read(&folder.path("run.toml")) == run, "{error}");
    // Too little memory for all weights leads to adapters, far too little to an error that says how much is needed.
    let with = |memory: &str| {
        let more = ["--force", "--no-measure", "--ranks", "1", "--memory", memory];
        folder.dip(&[&again[..], &more[..]].concat())
    };
    let error = with("1000").fails(2);
    assert!(error.contains("at least") && error.contains("--ranks"), "{error}");
}

#[test]
fn a_text_model_with_messages() {
    let folder = Folder::new();
    published(&folder, "qwen2");
    let line =
        r#"{"messages":[{"role":"user","content":"Which?"},{"role":"assistant","content":"red"}]}"#;
    folder.write("chats.jsonl", &format!("{line}\n").repeat(30));
    folder.write("chats-test.jsonl", &format!("{line}\n").repeat(3));
    let data = ["--data", "chats.jsonl", "chats-test.jsonl", "--ranks", "2"];
    let said = init_and_train(&folder, &[&["--model", "model"], &data[..]].concat());
    assert!(said.contains("30 samples") && said.contains("an epoch"), "{said}");
    let run = read(&folder.path("run.toml"));
    assert!(run.contains("held_out = [\"chats-test.jsonl\"]"), "{run}");
}

#[test]
fn a_model_from_scratch_with_shards_of_pictures() {
    let folder = Folder::new();
    let members = (0..8).flat_map(|i| {
        [(format!("{i}.png"), picture()), (format!("{i}.txt"), b"A red ring.".to_vec())]
    });
    shard(&folder, "a.tar", &members.collect::<Vec<_>>());
    folder.write("small.toml", MODEL);
    let said = init_and_train(&folder, &["--model", "small.toml", "--data", "a.tar"]);
    assert!(said.contains("8 samples") && said.contains("from scratch"), "{said}");
    // A preset; without measuring, an epoch has tokens and FLOPs.
    let more =
        ["init", "--model", "vlm-tiny", "--data", "a.tar", "--no-measure", "--out", "b.toml"];
    let said = folder.dip(&more).ok();
    assert!(said.contains("FLOP; not measured") && said.contains("tokens"), "{said}");
}

#[test]
fn a_model_from_scratch_with_clips() {
    let folder = Folder::new();
    let members = (0..4).flat_map(|i| {
        let frame = move |n: u32| (format!("{i}.{n:03}.png"), picture());
        let text = br#"{"caption":"A ring moves.","fps":4}"#.to_vec();
        (0..4).map(frame).chain([(format!("{i}.json"), text)])
    });
    shard(&folder, "a.tar", &members.collect::<Vec<_>>());
    folder.write("small.toml", VIDEO_MODEL);
    let preset =
        ["init", "--model", "t2v-tiny", "--data", "a.tar", "--no-measure", "--out", "b.toml"];
    for said in [
        init_and_train(&folder, &["--model", "small.toml", "--data", "a.tar"]),
        folder.dip(&preset).ok(),
    ] {
        assert!(said.contains("4 samples") && said.contains("latent frames"), "{said}");
    }
}

#[test]
fn what_cannot_be_used_is_named() {
    let folder = Folder::new();
    let fails = |more: &[&str]| folder.dip(&[&["init", "--no-measure"], more].concat()).fails(2);
    assert!(fails(&["--model", "vlm-huge"]).contains("vlm-huge"));
    assert!(fails(&["--model", "vlm-tiny", "--data", "none.tar"]).contains("none.tar"));
    std::fs::create_dir(folder.path("empty")).unwrap();
    let error = fails(&["--model", "vlm-tiny", "--data", "empty"]);
    assert!(error.contains("empty: has no training data"), "{error}");
    folder.write("bad.jsonl", "{\"image\": \"none.png\", \"caption\": \"A ring.\"}\n");
    let error = fails(&["--model", "vlm-tiny", "--data", "bad.jsonl"]);
    assert!(error.contains("1 missing picture"), "{error}");
    assert!(!folder.path("run.toml").exists());
}
