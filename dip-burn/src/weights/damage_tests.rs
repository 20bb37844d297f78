//! Damaged configs and weights are refused with the file and the remedy, and never panic.

use std::fs;
use std::path::{Path, PathBuf};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::peft::PeftAdapter;
use super::*;
use crate::damage::{damaged, damaged_json};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hf")
}

/// A copy of the fixture `name`, without expected values, and the names of its files.
fn copy(name: &str, folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(inner) = folders.pop() {
        fs::create_dir_all(folder.join(&inner)).unwrap();
        for entry in fs::read_dir(fixtures().join(name).join(&inner)).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{inner}{}", entry.file_name().to_str().unwrap());
            if entry.path().is_dir() {
                folders.push(format!("{path}/"));
            } else if !path.starts_with("expected") {
                fs::copy(entry.path(), folder.join(&path)).unwrap();
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// The model in a folder.
fn model(folder: &Path) -> Result<ModelSpec, String> {
    let read = |name: &str| {
        let path = folder.join(name);
        path.exists().then(|| store::read_text(&path)).transpose()
    };
    let model = match PipelineFiles::read(read).map_err(|e| e.to_string())? {
        Some(files) => hf::from_pipeline("", &files),
        None => {
            let text = store::read_text(&folder.join(CONFIG)).map_err(|e| e.to_string())?;
            hf::from_config("", &text)
        }
    };
    // Whoever reads the file adds its name.
    Ok(model.map_err(|e| format!("{}: {e}", folder.display()))?.spec)
}

/// Reads a whole model: its description, the places of its weights, and the values of all tensors.
fn read_model(folder: &Path) -> Result<(), String> {
    let model = model(folder)?;
    let weights = Weights::open(folder, &model).map_err(|e| e.to_string())?;
    read_all(&weights.store)
}

/// Reads an adapter.
fn read_adapter(folder: &Path) -> Result<(), String> {
    let adapter = PeftAdapter::open(folder).map_err(|e| e.to_string())?;
    read_all(adapter.store())
}

fn read_all(store: &TensorStore) -> Result<(), String> {
    store.names().try_for_each(|name| store.all(name).map(drop).map_err(|e| e.to_string()))
}

/// A damaged file: its bytes, a value of its JSON, or the header of its tensors.
fn damage_of(name: &str, bytes: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let is_text = name.ends_with(".json");
    match (is_text, rng.random_range(0..3)) {
        (true, 0) | (false, 0) => damaged(bytes, rng),
        (true, _) => damaged_json(bytes, rng),
        (false, which) => {
            let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let (header, data) = bytes[8..].split_at(length);
            let header = match which {
                1 => damaged(header, rng),
                _ => damaged_json(header, rng),
            };
            [&(header.len() as u64).to_le_bytes()[..], &header, data].concat()
        }
    }
}

/// Reads `count` damaged copies of every fixture. Every refusal says where the fault is and what to do.
fn damage(count: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut refused = 0;
    for entry in fs::read_dir(fixtures()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name == "documents" {
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        let (folder, files) = (folder.path(), copy(&name, folder.path()));
        let read = if name.starts_with("peft") { read_adapter } else { read_model };
        read(folder).unwrap();
        for _ in 0..count {
            let file = &files[rng.random_range(0..files.len())];
            let whole = fs::read(folder.join(file)).unwrap();
            let broken = damage_of(file, &whole, &mut rng);
            fs::write(folder.join(file), &broken).unwrap();
            if let Err(error) = read(folder) {
                refused += 1;
                let names_place = error.contains(&folder.display().to_string());
                assert!(names_place && error.contains("; "), "{name}/{file}: {error}");
            }
            fs::write(folder.join(file), whole).unwrap();
        }
    }
    // Some damage is harmless, such as another value of a weight.
    assert!(refused > 4 * count, "only {refused} of {count} for each fixture were refused");
}

#[test]
fn damaged_configs_and_weights_are_refused_with_file_and_remedy() {
    damage(12);
}

/// Run by name: about ten thousand damaged folders.
#[test]
#[ignore = "takes minutes in a debug build"]
fn ten_thousand_damaged_configs_and_weights_are_refused_with_file_and_remedy() {
    damage(500);
}
