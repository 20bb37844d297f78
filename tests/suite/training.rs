//! Training of a vision-language model, and its interruptions.

use std::time::{Duration, Instant};

use crate::support::inputs::{MODEL, RUN};
use crate::support::{Folder, assert_close, bytes_needed, last_loss, saved};

#[test]
fn a_killed_run_resumes_with_the_losses_of_an_uninterrupted_one() {
    let folder = Folder::of_run(MODEL, RUN);
    folder.dip(&["train", "run.toml", "--output", "whole"]).ok();
    let whole = folder.losses("whole");
    assert_eq!(whole.len(), 40);
    folder.share_profile("whole", "killed");
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
    assert_eq!(folder.losses("killed"), whole);
    let end = |run: &str| saved(&folder.path(run).join("checkpoint-00000040"));
    assert!(end("whole") == end("killed"), "the weights differ");
}

#[test]
fn the_first_batches_of_a_run_can_be_planned_without_training() {
    let folder = Folder::new();
    folder.write("run.toml", include_str!("../../examples/vlm-native.toml"));
    let sample = ["sample", "--run", "run.toml", "--iterations", "2", "--out", "batches.jsonl"];
    folder.dip(&sample).ok();
    let text = std::fs::read_to_string(folder.path("batches.jsonl")).unwrap();
    assert!(text.lines().count() == 12 && text.contains("\"patches\":"), "{text}");
    let budget = ["--iterations-budget", "20", "--iteration", "1"];
    let plan = ["plan", "--model", "vlm-tiny", "--cluster", "cpu", "--batch", "batches.jsonl"];
    folder.dip(&[&plan[..], &budget].concat()).ok();
    let error = folder.dip(&["sample", "--run", "run.toml", "--model", "vlm-tiny"]).fails(2);
    assert!(error.contains("--model"), "{error}");
}

#[test]
fn two_schedules_train_in_turns_to_the_same_loss() {
    let folder = Folder::of_run(MODEL, RUN);
    let text = folder.dip(&["train", "run.toml", "--compare", "1f1b", "--iterations", "12"]).ok();
    let (a, b) = (last_loss(&text, "dip"), last_loss(&text, "1f1b"));
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

fn with_limit(limit: u64) -> String {
    RUN.replace("[pipeline]", &format!("[pipeline]\nmemory_limit_bytes = {limit}"))
}

#[test]
fn a_memory_limit_is_kept_in_every_iteration_or_refused_before_the_first() {
    let folder = Folder::of_run(MODEL, RUN);
    folder.dip(&["train", "run.toml", "--iterations", "12", "--output", "free"]).ok();
    folder.share_profile("free", "refused");
    folder.write("run.toml", &with_limit(1000));
    let error = folder.dip(&["train", "run.toml", "--output", "refused"]).fails(2);
    let need = bytes_needed(&error);
    folder.write("run.toml", &with_limit(need - 1));
    folder.dip(&["train", "run.toml", "--output", "refused"]).fails(2);
    assert!(!folder.path("refused/metrics.jsonl").exists());
    let free = *folder.peaks("free").iter().max().unwrap();
    assert!(free > need + need / 10, "{free} leaves no room for limits above {need}");
    for step in 0..4 {
        let limit = need + step * (free - need) / 4;
        let output = format!("limit-{step}");
        folder.share_profile("free", &output);
        folder.write("run.toml", &with_limit(limit));
        folder.dip(&["train", "run.toml", "--iterations", "12", "--output", &output]).ok();
        let peaks = folder.peaks(&output);
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
    assert_close(&folder.losses("one"), &folder.losses("two"));
    folder.share_profile("two", "cut");
    // The learning rate depends on the length of a run: `cut` resumes from a copy of a checkpoint, not from a shorter run.
    let checkpoint = "checkpoint-00000010";
    folder.copy(&format!("two/{checkpoint}"), &format!("cut/{checkpoint}"));
    let resume = ["train", "run.toml", "--iterations", "20", "--output", "cut", "--resume"];
    folder.dip(&resume).ok();
    assert_eq!(folder.losses("cut"), folder.losses("two")[10..]);
    let few = format!("{RUN}[data]\nmicrobatches = 1\n");
    folder.write("run.toml", &few.replace("[pipeline]", "[pipeline]\nreplicas = 2"));
    let error = folder.dip(&["train", "run.toml", "--output", "few"]).fails(2);
    assert!(error.contains("pipeline.replicas"), "{error}");
}

#[test]
fn a_checkpoint_resumes_on_other_ranks() {
    let folder = Folder::of_run(MODEL, RUN);
    folder.dip(&["train", "run.toml", "--iterations", "20", "--output", "two"]).ok();
    let expected = folder.losses("two");
    for ranks in [1, 3] {
        let newest = folder.path("two").join("checkpoint-00000020");
        let _ = std::fs::remove_dir_all(newest);
        let run = RUN.replace("[pipeline]", &format!("[pipeline]\nranks = {ranks}"));
        folder.write("run.toml", &run);
        let resume = ["train", "run.toml", "--iterations", "20", "--output", "two", "--resume"];
        let text = folder.dip(&resume).ok();
        assert!(text.contains("resuming after iteration 10"), "{text}");
        assert_close(&folder.losses("two"), &expected);
    }
}

#[test]
fn every_metric_is_written_for_every_iteration() {
    let folder = Folder::of_run(MODEL, RUN);
    folder.dip(&["train", "run.toml", "--iterations", "4"]).ok();
    let fields = "loss gradient_norm learning_rate tokens_per_s mfu bubble_ratio predicted_s makespan_s stall_s skipped \
                  peak_bytes";
    for field in fields.split_whitespace() {
        let values = folder.metric("out", field);
        assert_eq!(values.len(), 4);
        assert!(values.iter().all(|v| v.is_number() || v.is_array()), "{field}: {values:?}");
    }
    let utilisation = folder.metric("out", "mfu");
    assert!(utilisation.iter().all(|u| (0.0..1.0).contains(&u.as_f64().unwrap())));
    let events: Vec<_> = std::fs::read_dir(folder.path("out/tensorboard")).unwrap().collect();
    assert_eq!(events.len(), 1);
}

#[test]
#[cfg(not(feature = "mpi"))]
fn several_processes_are_refused_by_a_build_without_mpi() {
    let folder = Folder::of_run(MODEL, RUN);
    let mut command = folder.command(&["train", "run.toml"]);
    let output = command.env("OMPI_COMM_WORLD_SIZE", "4").output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(
        error.contains("4 processes were started") && error.contains("--features mpi"),
        "{error}"
    );
}
