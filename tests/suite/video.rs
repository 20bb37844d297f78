use dip::burn::data::toy::{MovingConfig, Split, write_moving_shards};

use crate::support::{Folder, losses, read};
use crate::training::peaks;

const MODEL: &str = r#"name = "small-video"
sequence_tokens = 80
max_clips = 2
microbatches = 3
parallel = { data = 1, tensor = 1, pipeline = 2 }
[[module]]
name = "text"
layers = 2
hidden = 16
ffn = 32
heads = 2
kind = { decoder = { vocab = 260, head = false } }
[[module]]
name = "video"
layers = 2
hidden = 24
ffn = 32
heads = 2
inputs = ["text"]
kind = { dit = { latent_frames_per_second = 3.0, tokens_per_frame = 48, token_channels = 48 } }
"#;

const RUN: &str = r#"name = "small-video"
model = "small.toml"
iterations = 12
output = "out"
[pipeline]
search_iterations = 20
[optimizer]
ema_decay = 0.9
[checkpoint]
every = 6
[evaluation]
every = 6
clips = 4
samples = 2
sample_steps = 3
sample_seconds = 1.0
"#;

#[test]
fn a_resumed_run_sees_the_same_clips_and_noise_and_samples_the_same_pictures() {
    let folder = Folder::of_run(MODEL, RUN);
    let text = folder.dip(&["train", "run.toml", "--output", "whole"]).ok();
    assert!(text.contains("flow-matching loss") && text.contains("the named colour"), "{text}");
    let from = |name: &str| folder.path("whole").join(name);
    std::fs::create_dir(folder.path("again")).unwrap();
    let again = |name: &str| folder.path("again").join(name);
    // Plans follow the measured profile, and sums their order: both runs must read the same one.
    std::fs::copy(from("profile.json"), again("profile.json")).unwrap();
    std::fs::rename(from("checkpoint-00000006"), again("checkpoint-00000006")).unwrap();
    folder.dip(&["train", "run.toml", "--output", "again", "--resume"]).ok();
    assert_eq!(losses(&folder, "again"), losses(&folder, "whole")[6..]);
    for file in [
        "checkpoint-00000012/model.safetensors",
        "checkpoint-00000012/optimizer.safetensors",
        "samples/00.gif",
        "samples/contact-sheet.png",
        "samples/captions.txt",
    ] {
        let bytes = |path| std::fs::read(path).unwrap();
        assert!(bytes(from(file)) == bytes(again(file)), "{file} differs");
    }
    assert_eq!(read(&from("samples/captions.txt")).lines().count(), 2);
}

#[test]
fn schedules_train_clips_side_by_side_to_the_same_loss() {
    let folder = Folder::of_run(MODEL, RUN);
    for other in ["1f1b", "interleaved", "optimus"] {
        let arguments = ["train", "run.toml", "--compare", other, "--iterations", "7"];
        let text = folder.dip(&arguments).ok();
        let last_loss = |schedule: &str| -> f64 {
            let is_row = |l: &&str| l.starts_with(&format!("{schedule} ")) && l.contains("ms");
            let row = text.lines().find(is_row);
            row.unwrap().split_whitespace().last().unwrap().parse().unwrap()
        };
        let (a, b) = (last_loss("dip"), last_loss(other));
        assert!((a - b).abs() < 1e-3 * a, "{text}");
    }
}

#[test]
fn a_run_trains_on_shards_of_gif() {
    let folder = Folder::of_run(MODEL, RUN);
    let shards = |name, split| {
        write_moving_shards(&folder.path(name), MovingConfig { seed: 1, split }, 12, 6).unwrap();
    };
    shards("train", Split::Train);
    shards("held-out", Split::HeldOut);
    folder
        .write("run.toml", &format!("{RUN}[data]\nshards = ['train']\nheld_out = ['held-out']\n"));
    let text = folder.dip(&["train", "run.toml", "--iterations", "4"]).ok();
    assert!(text.contains("skipped samples 0"), "{text}");
    assert!(folder.path("out/samples/contact-sheet.png").exists());
}

#[test]
fn a_memory_limit_counts_full_microbatches_of_clips_and_averaged_weights() {
    let folder = Folder::of_run(MODEL, RUN);
    folder.dip(&["train", "run.toml", "--iterations", "1", "--output", "free"]).ok();
    // The need depends on the profile: all runs read the same one.
    let run = |output: &str, limit: u64, from: &str| {
        std::fs::create_dir(folder.path(output)).unwrap();
        let to = folder.path(output).join("profile.json");
        std::fs::copy(folder.path("free/profile.json"), to).unwrap();
        let limit = format!("[pipeline]\nmemory_limit_bytes = {limit}");
        folder.write("run.toml", &from.replace("[pipeline]", &limit));
        folder.dip(&["train", "run.toml", "--output", output])
    };
    let need = |output: &str, from: &str| -> u64 {
        let error = run(output, 1000, from).fails(2);
        let need = error.split("needs ").nth(1).and_then(|rest| rest.split(' ').next());
        need.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{error}"))
    };
    let averaged = need("averaged", RUN);
    assert!(averaged > need("plain", &RUN.replace("ema_decay = 0.9", "")));
    run("short", averaged - 1, RUN).fails(2);
    run("enough", averaged, RUN).ok();
    let peaks = peaks(&folder, "enough");
    assert_eq!(peaks.len(), 12);
    // Which rows are whose clip is a table of rows and clips, which is measured for some numbers of clips.
    assert!(peaks.iter().all(|&peak| peak <= averaged + averaged / 1000), "{averaged}: {peaks:?}");
}

#[test]
fn a_text_encoder_with_a_head_is_refused_with_the_remedy() {
    let folder = Folder::of_run(MODEL, RUN);
    folder.write("small.toml", &MODEL.replace(", head = false", ""));
    let error = folder.dip(&["train", "run.toml"]).fails(2);
    assert!(error.contains("\"video\"") && error.contains("head = false"), "{error}");
}
