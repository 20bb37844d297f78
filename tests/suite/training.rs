use std::time::{Duration, Instant};

use crate::support::{Folder, losses, read};

pub const MODEL: &str = r#"name = "small"
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

pub const RUN: &str = r#"name = "small"
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

#[test]
fn a_killed_run_goes_on_with_the_losses_of_an_uninterrupted_one() {
    let folder = Folder::of_run(MODEL, RUN);
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
    let folder = Folder::of_run(MODEL, RUN);
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
    let folder = Folder::of_run(MODEL, RUN);
    folder.dip(&["train", "run.toml", "--iterations", "3"]).ok();
    let error = folder.dip(&["train", "run.toml", "--iterations", "3"]).fails(2);
    assert!(error.contains("--resume") && error.contains("--restart"), "{error}");
    let again = folder.dip(&["train", "run.toml", "--iterations", "3", "--resume"]).ok();
    assert!(again.contains("nothing to do"), "{again}");
    folder.dip(&["train", "run.toml", "--iterations", "3", "--restart"]).ok();
}

#[test]
fn bad_runs_are_refused_before_anything_is_trained() {
    let folder = Folder::of_run(MODEL, RUN);
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

/// One field of every iteration, as written.
fn of_iterations(folder: &Folder, output: &str, field: &str) -> Vec<serde_json::Value> {
    let metrics = read(&folder.path(output).join("metrics.jsonl"));
    let lines = metrics.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
    lines.filter_map(|line| line.get("train").map(|train| train[field].clone())).collect()
}

/// The largest memory of any rank in each iteration.
pub fn peaks(folder: &Folder, output: &str) -> Vec<u64> {
    let of_ranks = |ranks: &serde_json::Value| {
        ranks.as_array().unwrap().iter().map(|bytes| bytes.as_u64().unwrap()).max().unwrap()
    };
    of_iterations(folder, output, "peak_bytes").iter().map(of_ranks).collect()
}

fn with_limit(limit: u64) -> String {
    RUN.replace("[pipeline]", &format!("[pipeline]\nmemory_limit_bytes = {limit}"))
}

#[test]
fn a_memory_limit_is_kept_in_every_iteration_or_refused_before_the_first() {
    let folder = Folder::of_run(MODEL, RUN);
    folder.dip(&["train", "run.toml", "--iterations", "12", "--output", "free"]).ok();
    // The need depends on the partition, and that on the profile: all runs read the same one.
    let profile = |output: &str| {
        std::fs::create_dir(folder.path(output)).unwrap();
        let to = folder.path(output).join("profile.json");
        std::fs::copy(folder.path("free/profile.json"), to).unwrap();
    };
    profile("refused");
    folder.write("run.toml", &with_limit(1000));
    let error = folder.dip(&["train", "run.toml", "--output", "refused"]).fails(2);
    let need = error.split("needs ").nth(1).and_then(|rest| rest.split(' ').next());
    let need: u64 = need.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{error}"));
    folder.write("run.toml", &with_limit(need - 1));
    folder.dip(&["train", "run.toml", "--output", "refused"]).fails(2);
    assert!(!folder.path("refused/metrics.jsonl").exists());
    let free = *peaks(&folder, "free").iter().max().unwrap();
    assert!(free > need + need / 10, "{free} leaves no room for limits above {need}");
    for step in 0..4 {
        let limit = need + step * (free - need) / 4;
        let output = format!("limit-{step}");
        profile(&output);
        folder.write("run.toml", &with_limit(limit));
        folder.dip(&["train", "run.toml", "--iterations", "12", "--output", &output]).ok();
        let peaks = peaks(&folder, &output);
        assert_eq!(peaks.len(), 12);
        assert!(peaks.iter().all(|&peak| peak <= limit), "{limit}: {peaks:?}");
    }
}

#[test]
fn replicas_train_to_the_losses_of_one_and_a_resumed_run_to_their_digits() {
    let folder = Folder::of_run(MODEL, RUN);
    let replicas = |n: u32| {
        let run = format!("[pipeline]\nreplicas = {n}");
        folder.write("run.toml", &RUN.replace("[pipeline]", &run));
    };
    replicas(1);
    folder.dip(&["train", "run.toml", "--iterations", "20", "--output", "one"]).ok();
    replicas(2);
    folder.dip(&["train", "run.toml", "--iterations", "20", "--output", "two"]).ok();
    let number = |(_, loss): &(u64, String)| loss.parse::<f64>().unwrap();
    for (a, b) in losses(&folder, "one").iter().zip(&losses(&folder, "two")) {
        assert!((number(a) - number(b)).abs() < 1e-4 * number(a), "{a:?} {b:?}");
    }
    std::fs::create_dir(folder.path("cut")).unwrap();
    std::fs::copy(folder.path("two/profile.json"), folder.path("cut/profile.json")).unwrap();
    // The rate depends on the length of a run: the cut one is resumed from a copy of the other's checkpoint.
    let checkpoint = "checkpoint-00000010";
    std::fs::create_dir(folder.path("cut").join(checkpoint)).unwrap();
    for file in ["model.safetensors", "optimizer.safetensors", "state.json"] {
        let path = |run: &str| folder.path(run).join(checkpoint).join(file);
        std::fs::copy(path("two"), path("cut")).unwrap();
    }
    let resume = ["train", "run.toml", "--iterations", "20", "--output", "cut", "--resume"];
    folder.dip(&resume).ok();
    assert_eq!(losses(&folder, "cut"), losses(&folder, "two")[10..]);
    let error = format!("{RUN}[data]\nmicrobatches = 1\n")
        .replace("[pipeline]", "[pipeline]\nreplicas = 2");
    folder.write("run.toml", &error);
    let error = folder.dip(&["train", "run.toml", "--output", "few"]).fails(2);
    assert!(error.contains("pipeline.replicas"), "{error}");
}

#[test]
fn a_checkpoint_goes_on_with_more_ranks() {
    let folder = Folder::of_run(MODEL, RUN);
    folder.dip(&["train", "run.toml", "--iterations", "20", "--output", "two"]).ok();
    let expected = losses(&folder, "two");
    for ranks in [1, 3] {
        let newest = folder.path("two").join("checkpoint-00000020");
        let _ = std::fs::remove_dir_all(newest);
        let run = RUN.replace("[pipeline]", &format!("[pipeline]\nranks = {ranks}"));
        folder.write("run.toml", &run);
        let resume = ["train", "run.toml", "--iterations", "20", "--output", "two", "--resume"];
        let text = folder.dip(&resume).ok();
        assert!(text.contains("going on behind iteration 10"), "{text}");
        for (a, b) in losses(&folder, "two").iter().zip(&expected) {
            let (x, y): (f64, f64) = (a.1.parse().unwrap(), b.1.parse().unwrap());
            assert!((x - y).abs() < 1e-4 * y, "{ranks} ranks: {a:?} {b:?}");
        }
    }
}

#[test]
fn every_metric_is_written_for_every_iteration() {
    let folder = Folder::of_run(MODEL, RUN);
    folder.dip(&["train", "run.toml", "--iterations", "4"]).ok();
    let fields = "loss gradient_norm learning_rate tokens_per_s mfu bubble_ratio predicted_s makespan_s stall_s skipped \
                  peak_bytes";
    for field in fields.split_whitespace() {
        let values = of_iterations(&folder, "out", field);
        assert_eq!(values.len(), 4);
        assert!(values.iter().all(|v| v.is_number() || v.is_array()), "{field}: {values:?}");
    }
    let utilisation = of_iterations(&folder, "out", "mfu");
    assert!(utilisation.iter().all(|u| (0.0..1.0).contains(&u.as_f64().unwrap())));
    let events: Vec<_> = std::fs::read_dir(folder.path("out/tensorboard")).unwrap().collect();
    assert_eq!(events.len(), 1);
}
