use std::time::{Duration, Instant};

use crate::support::{Folder, losses};

const MODEL: &str = r#"name = "small"
sequence_tokens = 96
max_images = 6
microbatches = 3
parallel = { data = 1, tensor = 1, pipeline = 2 }
[[module]]
name = "vision"
layers = 2
hidden = 16
ffn = 32
heads = 2
kind = { vit = { image_px = 16, patch_px = 4, merge = 2 } }
[[module]]
name = "language"
layers = 2
hidden = 24
ffn = 32
heads = 2
inputs = ["vision"]
kind = { decoder = { vocab = 260 } }
"#;

const RUN: &str = r#"name = "small"
model = "small.toml"
iterations = 40
output = "out"
[pipeline]
search_iterations = 20
[checkpoint]
every = 10
[evaluation]
every = 20
pictures = 4
captions = 2
max_caption_tokens = 8
"#;

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("small.toml", MODEL);
    folder.write("run.toml", RUN);
    folder
}

#[test]
fn a_killed_run_goes_on_with_the_losses_of_an_uninterrupted_one() {
    let folder = folder();
    folder.dip(&["train", "run.toml", "--output", "whole"]).ok();
    let whole = losses(&folder, "whole");
    assert_eq!(whole.len(), 40);
    // Plans follow the measured profile, and sums their order: both runs must read the same one.
    std::fs::create_dir(folder.path("killed")).unwrap();
    let profile = |run: &str| folder.path(run).join("profile.json");
    std::fs::copy(profile("whole"), profile("killed")).unwrap();

    for checkpoint in ["checkpoint-00000010", "checkpoint-00000020"] {
        let mut child = folder
            .command(&["train", "run.toml", "--output", "killed", "--resume"])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while !folder.path("killed").join(checkpoint).exists() {
            assert!(start.elapsed() < Duration::from_secs(120), "no {checkpoint}");
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    folder.dip(&["train", "run.toml", "--output", "killed", "--resume"]).ok();
    assert_eq!(losses(&folder, "killed"), whole);
    let end = |run: &str| {
        std::fs::read(folder.path(run).join("checkpoint-00000040/model.safetensors")).unwrap()
    };
    assert!(end("whole") == end("killed"), "the weights differ");
}

#[test]
fn two_schedules_train_side_by_side_to_the_same_loss() {
    let folder = folder();
    let text = folder.dip(&["train", "run.toml", "--compare", "1f1b", "--iterations", "12"]).ok();
    let last_loss = |schedule: &str| -> f64 {
        let row = text.lines().find(|l| l.starts_with(&format!("{schedule} ")) && l.contains("ms"));
        row.unwrap().split_whitespace().last().unwrap().parse().unwrap()
    };
    let (a, b) = (last_loss("dip"), last_loss("1f1b"));
    assert!((a - b).abs() < 1e-3 * a, "{text}");
}

#[test]
fn a_second_run_does_not_touch_the_checkpoints_of_the_first() {
    let folder = folder();
    folder.dip(&["train", "run.toml", "--iterations", "3"]).ok();
    let error = folder.dip(&["train", "run.toml", "--iterations", "3"]).fails(2);
    assert!(error.contains("--resume") && error.contains("--restart"), "{error}");
    let again = folder.dip(&["train", "run.toml", "--iterations", "3", "--resume"]).ok();
    assert!(again.contains("nothing to do"), "{again}");
    folder.dip(&["train", "run.toml", "--iterations", "3", "--restart"]).ok();
}

#[test]
fn bad_runs_are_refused_before_anything_is_trained() {
    let folder = folder();
    let fails = |text: &str, parts: &[&str]| {
        folder.write("bad.toml", text);
        let error = folder.dip(&["train", "bad.toml"]).fails(2);
        assert!(parts.iter().all(|p| error.contains(p)), "{error}");
    };
    fails("name = 1", &["bad.toml"]);
    fails(&RUN.replace("iterations = 40", "iterations = 0"), &["bad.toml", "iterations is 0"]);
    let schedule = RUN.replace("[pipeline]", "[pipeline]\nschedule = \"2f2b\"");
    fails(&schedule, &["pipeline.schedule", "2f2b", "1f1b"]);
    let shards = format!("{RUN}[data]\nshards = [\"missing.tar\"]\n");
    fails(&shards, &["missing.tar"]);
    #[cfg(not(feature = "cuda"))]
    fails(&RUN.replace("[pipeline]", "[pipeline]\ndevice = \"cuda\""), &["--features cuda"]);
}

#[test]
fn a_memory_limit_that_is_too_small_says_which_rank_needs_how_much() {
    let folder = folder();
    folder.write("run.toml", &RUN.replace("[pipeline]", "[pipeline]\nmemory_limit_bytes = 1000"));
    let error = folder.dip(&["train", "run.toml"]).fails(2);
    assert!(error.contains("rank 0 needs") || error.contains("rank 1 needs"), "{error}");
}
