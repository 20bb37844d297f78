//! Wan in a folder of `diffusers`: planned, trained on stored latents, sampled, exported and fine-tuned with adapters.

use std::fs::{self, File};
use std::path::Path;

use crate::support::Folder;

const RUN: &str = r#"name = "wan"
model = "wan"
iterations = 3
output = "out"
[weights]
from = "wan"
[pipeline]
search_iterations = 20
[data]
shards = ["train"]
held_out = ["held-out"]
microbatches = 2
vae = "wan/vae/config.json"
[optimizer]
learning_rate = 1e-4
[evaluation]
clips = 2
samples = 1
sample_steps = 2
sample_seconds = 0.5
"#;

fn folder() -> Folder {
    let folder = Folder::new();
    let wan = concat!(env!("CARGO_MANIFEST_DIR"), "/dip-burn/tests/fixtures/hf/wan");
    copy(Path::new(wan), &folder.path("wan"));
    shard(&folder.path("train"), 4);
    shard(&folder.path("held-out"), 4);
    folder.write("run.toml", RUN);
    folder
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// A shard of clips of several sizes with `channels` channels, as NumPy saves them.
fn shard(folder: &Path, channels: usize) {
    fs::create_dir_all(folder).unwrap();
    let mut tar = tar::Builder::new(File::create(folder.join("0.tar")).unwrap());
    let sizes = [[2, 4, 4], [1, 4, 8], [3, 2, 4], [2, 6, 4]];
    for (i, [frames, rows, columns]) in sizes.into_iter().cycle().take(8).enumerate() {
        let count = channels * frames * rows * columns;
        let values = (0..count).flat_map(|k| (((k + i) as f32) * 0.7).sin().to_le_bytes());
        let shape = format!("({channels}, {frames}, {rows}, {columns})");
        let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
        let header = format!("{header:<117}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.bytes());
        bytes.extend(values);
        for (extension, bytes) in [("npy", &bytes[..]), ("txt", b"a red  circle\nmoves left")] {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, format!("{i}.{extension}"), bytes).unwrap();
        }
    }
    tar.finish().unwrap();
}

#[test]
fn a_folder_of_wan_is_planned_trained_sampled_exported_and_tuned_with_adapters() {
    let folder = folder();
    let planned = folder.dip(&["plan", "--model", "wan", "--iterations-budget", "10"]).ok();
    assert!(planned.starts_with("wan on"), "{planned}");
    let trained = folder.dip(&["train", "run.toml"]).ok();
    assert!(trained.contains("tokens of wan/tokenizer/tokenizer.json"), "{trained}");
    assert!(trained.contains("flow-matching loss") && trained.contains("samples      0 skipped"));
    // Two latent frames of the held-out clip's size, as the autoencoder decodes them.
    let sample = fs::read(folder.path("out/samples/00.safetensors")).unwrap();
    let header = String::from_utf8_lossy(&sample[8..120]).into_owned();
    assert!(header.contains("\"shape\":[4,2,4,4]"), "{header}");

    folder.dip(&["export", "run.toml", "--out", "published"]).ok();
    for file in [
        "model_index.json",
        "transformer/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "tokenizer/tokenizer.json",
        "scheduler/scheduler_config.json",
        "vae/config.json",
    ] {
        assert!(folder.path("published").join(file).exists(), "{file}");
    }
    // The frozen encoder is as it was.
    let encoder = |model: &str| {
        let bytes = fs::read(folder.path(model).join("text_encoder/model.safetensors")).unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut values = bytes[8 + header..].to_vec();
        values.sort_unstable();
        values
    };
    assert!(encoder("wan") == encoder("published"));

    let tuned = RUN.replace("\"wan\"", "\"published\"").replace("\"out\"", "\"tuned\"");
    let lora = "[lora]\nrank = 2\nmodules = ['video']\ntargets = ['query', 'value', 'down']\n";
    folder.write("lora.toml", &format!("{tuned}{lora}"));
    folder.dip(&["train", "lora.toml"]).ok();
    folder.dip(&["export", "lora.toml", "--out", "merged", "--bf16"]).ok();
    folder.dip(&["plan", "--model", "merged", "--iterations-budget", "10"]).ok();
}

#[test]
fn latents_of_another_autoencoder_are_named_with_their_shape() {
    let folder = folder();
    shard(&folder.path("train"), 3);
    let error = folder.dip(&["train", "run.toml"]).fails(2);
    assert!(error.contains("but must be [4, frames, rows, columns] with sides"), "{error}");
    folder.write("run.toml", &RUN.replace("wan/vae/config.json", "wan/transformer/config.json"));
    let error = folder.dip(&["train", "run.toml"]).fails(2);
    assert!(error.contains("transformer/config.json") && error.contains("latents_mean"), "{error}");
    folder.write("wan/model_index.json", "{\"_class_name\":\"WanImageToVideoPipeline\"}");
    let error = folder.dip(&["plan", "--model", "wan"]).fails(2);
    assert!(error.contains("model_index.json: _class_name is \"WanImageTo"), "{error}");
}
