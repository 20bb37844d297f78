//! Training in several processes, which `mpirun` starts on this machine.

use std::fs::File;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::inputs::{MODEL, RUN, VIDEO_MODEL, VIDEO_RUN};
use crate::support::{Folder, Run, read, saved};

/// Longest time of a short run, also in a debug build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(600);

/// `mpirun` of `count` processes of the command.
fn mpirun(folder: &Folder, count: usize, arguments: &[&str]) -> Command {
    let mut command = Command::new("mpirun");
    command.args(["--allow-run-as-root", "--oversubscribe", "-np", &count.to_string()]);
    command.arg(env!("CARGO_BIN_EXE_dip")).args(arguments).current_dir(folder.path(""));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn start(folder: &Folder, count: usize, arguments: &[&str]) -> Child {
    mpirun(folder, count, arguments).spawn().expect("mpirun is installed")
}

/// Waits for the end; longer than `patience` is a hang.
fn end(mut child: Child, patience: Duration) -> Output {
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > patience {
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            panic!("it hangs: {}", String::from_utf8_lossy(&output.stderr));
        }
        sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

/// A run of `ranks` ranks and `replicas` replicas, with `more` settings of the pipeline.
fn run_of(run: &str, ranks: usize, replicas: usize, more: &str) -> String {
    // Without the costs of the network, one process makes the same plans.
    let pipeline = format!(
        "[pipeline]\nranks = {ranks}\nreplicas = {replicas}\nnetwork_costs = false\n{more}\n"
    );
    run.replace("[pipeline]", &pipeline).replace("iterations = 40", "iterations = 6")
}

/// The files of the newest checkpoint.
fn checkpoint(folder: &Folder, output: &str) -> Vec<(String, Vec<u8>)> {
    let path = folder.path(output).join("checkpoint-00000006");
    let mut files: Vec<_> = std::fs::read_dir(path)
        .unwrap()
        .map(|file| file.unwrap())
        .map(|file| (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap()))
        .collect();
    files.sort();
    files
}

/// Checks that `mpirun` of each number of processes trains to the bits of one process.
fn check(model: &str, run: &str, counts: &[usize]) {
    let folder = Folder::of_run(model, run);
    folder.dip(&["train", "run.toml", "--output", "alone"]).ok();
    let (losses, files) = (folder.losses("alone"), checkpoint(&folder, "alone"));
    for count in counts {
        let output = format!("out-{count}");
        folder.share_profile("alone", &output);
        let child = start(&folder, *count, &["train", "run.toml", "--output", &output]);
        Run::of(end(child, PATIENCE)).ok();
        assert_eq!(folder.losses(&output), losses, "{count} processes");
        assert!(checkpoint(&folder, &output) == files, "{count} processes: other weights");
    }
}

#[test]
fn four_ranks_train_to_the_same_bits_in_one_two_and_four_processes() {
    check(MODEL, &run_of(RUN, 4, 1, ""), &[2, 4]);
}

#[test]
fn two_replicas_train_to_the_same_bits_in_two_and_three_processes() {
    check(MODEL, &run_of(RUN, 2, 2, "weight_split = true\nprecision = \"f16\""), &[2]);
    check(MODEL, &run_of(RUN, 2, 2, "placement = \"replicas-first\""), &[2, 3]);
}

#[test]
fn clips_train_to_the_same_bits_in_two_processes() {
    check(VIDEO_MODEL, &run_of(VIDEO_RUN, 2, 1, ""), &[2]);
}

#[test]
fn a_run_resumes_in_other_processes() {
    let folder = Folder::of_run(MODEL, &run_of(RUN, 2, 1, ""));
    folder.dip(&["train", "run.toml", "--iterations", "4"]).ok();
    let child = start(&folder, 2, &["train", "run.toml", "--iterations", "6", "--resume"]);
    let text = Run::of(end(child, PATIENCE)).ok();
    assert!(text.contains("resuming after iteration 4"), "{text}");
    assert_eq!(folder.losses("out").len(), 6);
}

#[test]
fn more_processes_than_ranks_are_refused() {
    let folder = Folder::of_run(MODEL, &run_of(RUN, 2, 1, ""));
    let output = end(start(&folder, 3, &["train", "run.toml"]), Duration::from_secs(60));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{error}");
    assert!(error.contains("the number of processes is 3, but"), "{error}");
}

/// The processes of the command that train in a folder.
fn trainers(folder: &Folder) -> Vec<u32> {
    let own = std::fs::canonicalize(folder.path("")).unwrap();
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(id) = process.file_name().to_string_lossy().parse::<u32>() else { continue };
        let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        let cwd = std::fs::read_link(process.path().join("cwd")).unwrap_or_default();
        if name.trim() == "dip" && cwd == own {
            found.push(id);
        }
    }
    found.sort_unstable();
    found
}

/// Starts two processes that train without end, sends `signal` to the second after their first checkpoint, and returns the error
/// and the seconds until all have ended.
fn after_signal(signal: &str) -> (String, f64) {
    let run = run_of(RUN, 2, 1, "").replace("iterations = 6", "iterations = 1000000");
    let folder = Folder::of_run(MODEL, &run);
    let child = start(&folder, 2, &["train", "run.toml"]);
    let begin = Instant::now();
    while !folder.path("out/checkpoint-00000010").exists() {
        assert!(begin.elapsed() < PATIENCE, "no checkpoint");
        sleep(Duration::from_millis(10));
    }
    let processes = trainers(&folder);
    assert_eq!(processes.len(), 2);
    let status = Command::new("kill").args([signal, &processes[1].to_string()]).status();
    assert!(status.unwrap().success());
    let stopped = Instant::now();
    let output = end(child, Duration::from_secs(30));
    let seconds = stopped.elapsed().as_secs_f64();
    assert!(!output.status.success());
    assert_eq!(trainers(&folder), [] as [u32; 0], "a process is left");
    (String::from_utf8_lossy(&output.stderr).into_owned(), seconds)
}

#[test]
fn a_process_that_is_killed_or_stopped_ends_the_others_within_ten_seconds() {
    let (error, seconds) = after_signal("-KILL");
    assert!(seconds < 10.0, "{seconds}: {error}");
    assert!(error.contains("rank 1") || error.contains("process 1"), "{error}");
    let (error, seconds) = after_signal("-STOP");
    assert!(seconds < 11.0, "{seconds}: {error}");
    assert!(error.contains("process 1 (") && error.contains("silent"), "{error}");
}

fn send(signal: &str, process: u32) {
    // It may have ended by itself.
    let _ =
        Command::new("kill").args([signal, &process.to_string()]).stderr(Stdio::null()).status();
}

/// Signals a random process of two at random moments, `count` times. Each time the run goes on from its last checkpoint.
fn survives(count: usize) {
    let run = RUN.replace("every = 10", "every = 2").replace("every = 20", "every = 0");
    let run = run_of(&run, 2, 1, "").replace("iterations = 6", "iterations = 40");
    let folder = Folder::of_run(MODEL, &run);
    folder.dip(&["train", "run.toml", "--output", "whole"]).ok();
    folder.share_profile("whole", "cut");
    let mut random = StdRng::seed_from_u64(11);
    let mut saved_before = 0;
    for number in 0..count {
        let text = folder.path("text");
        let mut command = mpirun(&folder, 2, &["train", "run.toml", "--resume", "--output", "cut"]);
        let mut child = command.stdout(File::create(&text).unwrap()).spawn().unwrap();
        // Before, MPI itself waits for a process that is stopped.
        while !read(&text).contains("reading data") && child.try_wait().unwrap().is_none() {
            sleep(Duration::from_millis(5));
        }
        sleep(Duration::from_millis(random.random_range(0..1500)));
        let (signal, chosen) = (["-KILL", "-STOP", "-TERM"][number % 3], random.random_range(0..2));
        let process = trainers(&folder).get(chosen).copied();
        process.into_iter().for_each(|process| send(signal, process));
        let begin = Instant::now();
        let output = end(child, Duration::from_secs(60));
        let (seconds, error) = (begin.elapsed(), String::from_utf8_lossy(&output.stderr));
        // A signal that asks for the end waits for an iteration and a checkpoint.
        assert!(seconds.as_secs() < 14, "{signal} {number}: {seconds:?} {error}");
        assert_eq!(trainers(&folder), [] as [u32; 0], "{signal} {number}: a process is left");
        let newest = dip::train::checkpoint::list(&folder.path("cut")).unwrap().pop();
        let iteration = newest.map_or(0, |path| saved(&path).1["iteration"].as_u64().unwrap());
        assert!(iteration >= saved_before, "{signal} {number}: {saved_before} was lost");
        saved_before = if iteration == 40 { 0 } else { iteration };
        if iteration == 40 {
            // The next ones signal a new run.
            std::fs::remove_dir_all(folder.path("cut")).unwrap();
            folder.share_profile("whole", "cut");
        }
    }
    let child = start(&folder, 2, &["train", "run.toml", "--resume", "--output", "cut"]);
    Run::of(end(child, PATIENCE)).ok();
    assert_eq!(folder.losses("cut"), folder.losses("whole"));
    let last = |output: &str| saved(&folder.path(output).join("checkpoint-00000040"));
    assert!(last("cut") == last("whole"), "the checkpoints differ");
}

#[test]
fn six_signals_at_random_moments_lose_nothing_beyond_the_last_checkpoint() {
    survives(6);
}

#[test]
#[ignore = "takes minutes: cargo test --release --features mpi --test main mpi::a_hundred_signals -- --ignored"]
fn a_hundred_signals_at_random_moments_lose_nothing_beyond_the_last_checkpoint() {
    survives(100);
}
