//! Runs that are killed, stopped, started twice, or out of disk, and checkpoints that are damaged.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::inputs::{MODEL, RUN};
use crate::support::{Folder, Run, read, saved};

/// Longest wait for something that takes seconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(600);

/// Waits until `is_done`.
fn wait(what: &str, mut is_done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_done() {
        assert!(start.elapsed() < PATIENCE, "no {what}");
        sleep(Duration::from_millis(2));
    }
}

/// Starts a run in the background.
fn start(folder: &Folder, more: &[&str]) -> Child {
    let mut command = folder.command(&[&["train", "run.toml"], more].concat());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for a run to end.
fn end(child: Child) -> Run {
    Run::of(child.wait_with_output().unwrap())
}

fn signal(child: &Child, signal: &str) {
    let status = Command::new("kill").args([signal, &child.id().to_string()]).status();
    assert!(status.unwrap().success());
}

/// Waits until a run has trained `count` iterations.
fn wait_for_iterations(folder: &Folder, output: &str, count: usize) {
    let path = folder.path(output).join("metrics.jsonl");
    let trained = || fs::read_to_string(&path).map_or(0, |text| text.matches("{\"train\"").count());
    wait("iterations", || trained() >= count);
}

fn checkpoints(output: &Path) -> Vec<PathBuf> {
    dip::train::checkpoint::list(output).unwrap()
}

/// Changes one byte in the middle of a file.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn truncate(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_is_taken() {
    let folder = Folder::of_run(MODEL, RUN);
    folder.dip(&["train", "run.toml", "--iterations", "20"]).ok();
    let [older, newest] = [10, 20].map(|i| format!("out/checkpoint-{i:08}"));
    let files: Vec<String> = fs::read_dir(folder.path(&newest))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(files.len(), 6, "two files of each of two ranks, the index and the checksums");
    folder.copy("out", "start");
    for (i, file) in files.iter().enumerate() {
        folder.copy("start", "damaged");
        for checkpoint in [&older, &newest] {
            folder.copy(checkpoint, &checkpoint.replace("out", "damaged"));
        }
        let damage = [flip, truncate][i % 2];
        damage(&folder.path("damaged").join("checkpoint-00000020").join(file));
        let run = ["train", "run.toml", "--resume", "--iterations", "11", "--output", "damaged"];
        let run = folder.dip(&run);
        let warning = run.error();
        for part in ["warning", "checkpoint-00000020", "damaged"] {
            assert!(warning.contains(part), "{file}: {warning}");
        }
        let text = run.ok();
        assert!(text.contains("resuming after iteration 10"), "{text}");
        // The damaged one is of a course that was given up.
        let left = checkpoints(&folder.path("damaged"));
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        let left: Vec<String> = left.iter().map(name).collect();
        assert_eq!(left, ["checkpoint-00000010", "checkpoint-00000011"]);
        fs::remove_dir_all(folder.path("damaged")).unwrap();
    }
    flip(&folder.path(&newest).join("model-000.safetensors"));
    truncate(&folder.path(&older).join("index.json"));
    let error = folder.dip(&["train", "run.toml", "--resume"]).fails(2);
    for part in ["all 2 checkpoints are damaged", "model-000.safetensors", "checksum", "--restart"]
    {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_checkpoint_of_an_earlier_version_is_refused() {
    let folder = Folder::of_run(MODEL, RUN);
    let old = folder.path("out/checkpoint-00000010");
    fs::create_dir_all(&old).unwrap();
    fs::write(old.join("state.json"), "{\"schema\":\"dip.checkpoint/v1\"}").unwrap();
    let error = folder.dip(&["train", "run.toml", "--resume"]).fails(2);
    for part in ["checkpoint-00000010", "dip.checkpoint/v1", "dip.checkpoint/v2", "--restart"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_full_disk_leaves_the_last_good_checkpoint() {
    let folder = Folder::of_run(MODEL, RUN);
    folder.dip(&["train", "run.toml", "--iterations", "10"]).ok();
    let optimizer = folder.path("out/checkpoint-00000010/optimizer-001-000.safetensors");
    // In blocks of 512 bytes: too few for the optimiser state, enough for the metrics.
    let blocks = fs::metadata(optimizer).unwrap().len() / 2 / 512;
    // A limit on the size of files fails like a full disk, if its signal is ignored.
    let limited = |more: &str| {
        let dip = env!("CARGO_BIN_EXE_dip");
        let script =
            format!("trap '' XFSZ; ulimit -f {blocks}; exec {dip} train run.toml --resume {more}");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).current_dir(folder.path(""));
        Run::of(command.output().unwrap())
    };
    let error = limited("--iterations 30").fails(2);
    assert!(error.contains(".partial/") && error.contains("make room"), "{error}");
    let left = |output| {
        let entries = fs::read_dir(folder.path(output)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains("checkpoint")).collect::<Vec<_>>()
    };
    assert_eq!(left("out"), ["checkpoint-00000010"]);
    // A run that goes on must at least write its last checkpoint.
    let run = RUN.replace("[checkpoint]", "[checkpoint]\non_error = \"continue\"");
    folder.write("run.toml", &run);
    let error = limited("--iterations 30").fails(2);
    assert!(error.contains("warning: no checkpoint"), "{error}");
    assert_eq!(folder.losses("out").len(), 30);
    assert_eq!(left("out"), ["checkpoint-00000010"]);
    folder.dip(&["train", "run.toml", "--resume", "--iterations", "30"]).ok();
}

#[test]
fn a_second_run_on_one_output_folder_is_refused_while_the_first_lives() {
    let folder = Folder::of_run(MODEL, RUN);
    let mut first = start(&folder, &["--iterations", "100000"]);
    wait_for_iterations(&folder, "out", 12);
    for more in ["--resume", "--restart"] {
        let error = folder.dip(&["train", "run.toml", more]).fails(2);
        let used = format!("used by another run (process {})", first.id());
        assert!(error.contains(&used) && error.contains("choose another output"), "{error}");
    }
    first.kill().unwrap();
    first.wait().unwrap();
    folder.dip(&["train", "run.toml", "--resume", "--iterations", "12"]).ok();
}

#[test]
fn a_signal_finishes_the_iteration_and_saves() {
    let folder = Folder::of_run(MODEL, &RUN.replace("every = 10", "every = 0"));
    folder.dip(&["train", "run.toml", "--output", "whole"]).ok();
    folder.share_profile("whole", "cut");
    let output = ["--resume", "--output", "cut"];
    for (sent, code, iterations) in [("-TERM", 0, 5), ("-INT", 130, 25)] {
        let child = start(&folder, &output);
        wait_for_iterations(&folder, "cut", iterations);
        signal(&child, sent);
        let text = end(child).says(code);
        let trained = folder.losses("cut").len();
        let stopped = format!("stopped after iteration {trained}; continue with --resume");
        assert!(trained < 40 && text.contains(&stopped), "{text}");
        let newest = checkpoints(&folder.path("cut")).pop().unwrap();
        assert!(newest.ends_with(format!("checkpoint-{trained:08}")), "{newest:?}");
    }
    folder.dip(&[&["train", "run.toml"][..], &output].concat()).ok();
    assert_eq!(folder.losses("cut"), folder.losses("whole"));
}

#[test]
fn a_second_interrupt_ends_at_once() {
    let folder = Folder::of_run(MODEL, RUN);
    // Iterations of many seconds.
    folder.write("run.toml", &format!("{RUN}[data]\nmicrobatches = 400\n"));
    let child = start(&folder, &[]);
    wait("evaluation", || folder.path("out/metrics.jsonl").exists());
    sleep(Duration::from_millis(500));
    signal(&child, "-INT");
    sleep(Duration::from_millis(200));
    let second = Instant::now();
    signal(&child, "-INT");
    end(child).fails(130);
    assert!(second.elapsed() < Duration::from_secs(10), "{:?}", second.elapsed());
}

/// Kills a run `kills` times at random moments. Each time it goes on from its last checkpoint.
fn survives(kills: usize) {
    let run = RUN.replace("every = 10", "every = 2").replace("every = 20", "every = 0");
    let folder = Folder::of_run(MODEL, &run);
    folder.dip(&["train", "run.toml", "--output", "whole"]).ok();
    folder.share_profile("whole", "cut");
    let mut random = StdRng::seed_from_u64(7);
    let mut saved_before = 0;
    for _ in 0..kills {
        let mut child = start(&folder, &["--resume", "--output", "cut"]);
        sleep(Duration::from_millis(random.random_range(0..1500)));
        let _ = child.kill();
        end(child);
        let newest = checkpoints(&folder.path("cut")).pop();
        let number = newest.map_or(0, |path| saved(&path).1["iteration"].as_u64().unwrap());
        assert!(number >= saved_before, "iteration {saved_before} was lost");
        saved_before = number;
    }
    folder.dip(&["train", "run.toml", "--resume", "--output", "cut"]).ok();
    assert_eq!(folder.losses("cut"), folder.losses("whole"));
    let last = |output: &str| saved(&folder.path(output).join("checkpoint-00000040"));
    assert!(last("cut") == last("whole"), "the checkpoints differ");
    let leftovers = fs::read_dir(folder.path("cut")).unwrap().map(|entry| entry.unwrap().path());
    assert!(leftovers.map(|path| path.display().to_string()).all(|path| !path.contains("partial")));
    assert!(read(&folder.path("cut/metrics.jsonl")).lines().all(|line| line.ends_with('}')));
}

#[test]
fn twenty_kills_at_random_moments_lose_nothing_beyond_the_last_checkpoint() {
    survives(20);
}

#[test]
#[ignore = "takes minutes: cargo test --release --test main a_hundred_kills -- --ignored"]
fn a_hundred_kills_lose_nothing_beyond_the_last_checkpoint() {
    survives(100);
}
