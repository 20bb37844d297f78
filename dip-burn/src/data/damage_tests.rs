//! Damaged files are refused or skipped, and never panic.

use std::path::Path;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::damage::{damaged, damaged_json};

fn fixture(path: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path)).unwrap()
}

fn chat() -> &'static str {
    r#"{"image": "a.png", "tools": "[{\"name\": \"add\"}]", "conversations": [{"from": "human", "value": "<image>\nWhat?"},
    {"from": "gpt", "value": "<|im_end|> A ring."}], "messages": [{"role": "user", "content": [{"type": "image"}]}]}"#
}

fn tar() -> Vec<u8> {
    let mut png = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(4, 4).write_to(&mut png, image::ImageFormat::Png).unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    let members: [(&str, &[u8]); 5] = [
        ("a.json", chat().as_bytes()),
        ("a.png", png.get_ref()),
        ("b.0.png", png.get_ref()),
        ("b.txt", b"a caption <image>"),
        ("c.json", b"{\"text\": \"words\"}"),
    ];
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

/// The tar packed with gzip.
fn packed(tar: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, tar).unwrap();
    gzip.finish().unwrap()
}

/// Reads all samples of a damaged shard, and makes tokens of them. A refusal and every skipped sample name the shard.
fn read_shard(path: &Path, tokenizer: &Tokenizer) {
    let shown = path.display().to_string();
    let config = WebDatasetConfig { shuffle_buffer: 1, ..WebDatasetConfig::default() };
    let mut data = match WebDataset::open(&[path.to_owned()], config) {
        Ok(data) => data,
        Err(error) => return check_refusal(&error.to_string(), &shown),
    };
    while let Ok(Some(document)) = data.next_in_epoch() {
        let _ = document.tokenize(tokenizer, &MediaProcessor::default());
    }
    let file = path.file_name().unwrap().to_str().unwrap();
    for SkippedSample { reason, name } in data.first_skipped() {
        let sample = name.strip_prefix(file).and_then(|rest| rest.strip_prefix(": "));
        let is_named = sample.is_some_and(|sample| !sample.is_empty());
        assert!(is_named || (name == shown && reason == SkipReason::BrokenShard), "{name}");
    }
}

/// A refusal names the file, the fault and the remedy.
fn check_refusal(error: &str, file: &str) {
    let fault = error.strip_prefix(file).and_then(|rest| rest.strip_prefix(": "));
    assert!(fault.is_some_and(|fault| fault.contains("; ")), "{error}");
}

/// A damaged file; of a JSON mostly a valid one with a changed value.
fn damage_of(name: &str, bytes: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let is_json = name.ends_with(".json") || name.ends_with(".jsonl");
    match rng.random_range(0..3) {
        1.. if is_json => match name.ends_with(".jsonl") {
            true => {
                let lines = bytes.split(|&byte| byte == b'\n');
                lines.map(|line| damaged_json(line, rng)).collect::<Vec<_>>().join(&b'\n')
            }
            false => damaged_json(bytes, rng),
        },
        _ => damaged(bytes, rng),
    }
}

fn damage(rounds: u64) {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    std::fs::create_dir(&model).unwrap();
    let chats: serde_json::Value =
        serde_json::from_slice(&fixture("tokenizers/chats.json")).unwrap();
    let template = chats[0]["template"].as_str().unwrap().as_bytes();
    let json = |text: &str| text.as_bytes().to_vec();
    let own = serde_json::json!({ "chat_template": [{"name": "default", "template": chats[1]["template"]}] });
    let files = [
        ("tokenizer.json", fixture("tokenizers/bytes/tokenizer.json")),
        (
            "tokenizer_config.json",
            json(
                r#"{"eos_token": {"content": "<|im_end|>"}, "add_bos_token": false, "pad_token": null}"#,
            ),
        ),
        (
            "special_tokens_map.json",
            json(r#"{"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}"#),
        ),
        ("generation_config.json", json(r#"{"eos_token_id": [3, 4], "bos_token_id": 1}"#)),
        ("config.json", json(r#"{"image_token_id": 5, "text_config": {"pad_token_id": 2}}"#)),
        ("chat_template.json", own.to_string().into_bytes()),
        ("chat_template.jinja", template.to_vec()),
    ];
    let whole = |name: &str, bytes: &[u8]| std::fs::write(model.join(name), bytes).unwrap();
    files.iter().for_each(|(name, bytes)| whole(name, bytes));
    let tokenizer = Tokenizer::from_file(&model).unwrap();
    let lines = format!("{}\n{}", chat().replace('\n', " "), r#"{"caption": "words"}"#);
    let shards = [
        ("a.tar", tar()),
        ("a.tar.gz", packed(&tar())),
        ("a.jsonl", lines.into_bytes()),
        ("a.json", format!("[{}, {}]", chat(), chat()).into_bytes()),
        ("a.parquet", fixture("parquet/chats.parquet")),
    ];
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    for _ in 0..rounds {
        for (name, bytes) in &shards {
            let path = folder.path().join(name);
            std::fs::write(&path, damage_of(name, bytes, &mut rng)).unwrap();
            read_shard(&path, &tokenizer);
        }
        for (name, bytes) in &files {
            whole(name, &damage_of(name, bytes, &mut rng));
            if *name == "chat_template.json" {
                std::fs::remove_file(model.join("chat_template.jinja")).unwrap();
            }
            match Tokenizer::from_file(&model) {
                Ok(tokenizer) => {
                    let _ = tokenizer.encode("a red <|im_end|> square");
                }
                Err(error) => {
                    check_refusal(&error.to_string(), &model.join(name).display().to_string())
                }
            }
            whole(name, bytes);
            whole("chat_template.jinja", template);
        }
    }
}

#[test]
fn damaged_samples_and_tokenizers_never_panic() {
    damage(60);
}

/// Run by name: about ten thousand damaged files.
#[test]
#[ignore = "takes minutes"]
fn ten_thousand_damaged_samples_and_tokenizers_never_panic() {
    damage(1500);
}
