//! Damaged files are refused or skipped, and never panic.

use std::path::Path;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

/// A file with a few bytes changed, removed, repeated or swapped.
fn damaged(bytes: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..rng.random_range(1..5) {
        if out.is_empty() {
            break;
        }
        let at = rng.random_range(0..out.len());
        let length = rng.random_range(1..64).min(out.len() - at);
        match rng.random_range(0..6) {
            0 => out[at] = rng.random(),
            1 => out[at] ^= 1 << rng.random_range(0..8),
            2 => drop(out.drain(at..at + length)),
            3 => out.truncate(at),
            4 => {
                let part = out[at..at + length].to_vec();
                out.splice(at..at, part);
            }
            // Numbers and brackets change more than other bytes do.
            _ => out[at] = b"0129-[]{}\"\\,:\0\xff"[rng.random_range(0..15)],
        }
    }
    out
}

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

/// Reads all samples of a damaged shard, and makes tokens of them.
fn read_shard(path: &Path, tokenizer: &Tokenizer) {
    let config = WebDatasetConfig { shuffle_buffer: 1, ..WebDatasetConfig::default() };
    let Ok(mut data) = WebDataset::open(&[path.to_owned()], config) else { return };
    while let Ok(Some(document)) = data.next_in_epoch() {
        let _ = document.tokenize(tokenizer, &MediaProcessor::default());
    }
}

fn damage(rounds: u64) {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    std::fs::create_dir(&model).unwrap();
    let chats: serde_json::Value =
        serde_json::from_slice(&fixture("tokenizers/chats.json")).unwrap();
    let template = chats[0]["template"].as_str().unwrap().as_bytes();
    let config =
        br#"{"eos_token": {"content": "<|im_end|>"}, "add_bos_token": false, "pad_token": null}"#;
    let files = [
        ("tokenizer.json", fixture("tokenizers/bytes/tokenizer.json")),
        ("tokenizer_config.json", config.to_vec()),
        ("chat_template.jinja", template.to_vec()),
    ];
    let whole = |name: &str, bytes: &[u8]| std::fs::write(model.join(name), bytes).unwrap();
    files.iter().for_each(|(name, bytes)| whole(name, bytes));
    let tokenizer = Tokenizer::from_file(&model).unwrap();
    let lines = format!("{}\n{}", chat().replace('\n', " "), r#"{"caption": "words"}"#);
    let shards = [
        ("a.tar", tar()),
        ("a.jsonl", lines.into_bytes()),
        ("a.json", format!("[{}, {}]", chat(), chat()).into_bytes()),
        ("a.parquet", fixture("parquet/chats.parquet")),
    ];
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    for _ in 0..rounds {
        for (name, bytes) in &shards {
            let path = folder.path().join(name);
            std::fs::write(&path, damaged(bytes, &mut rng)).unwrap();
            read_shard(&path, &tokenizer);
        }
        for (name, bytes) in &files {
            whole(name, &damaged(bytes, &mut rng));
            if let Ok(tokenizer) = Tokenizer::from_file(&model) {
                let _ = tokenizer.encode("a red <|im_end|> square");
            }
            whole(name, bytes);
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
