//! Inputs that never end, are huge, or have extreme numbers: refused at once, without much memory.

use std::fs::File;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::inputs::BATCH;
use crate::support::{Folder, Run};

/// Longest processor time of a command, in seconds. Without optimisation everything takes longer.
const PROCESSOR_S: u64 = if cfg!(debug_assertions) { 60 } else { 5 };
/// Longest time of a command, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(600);
/// Address space of a command, in KiB: 2 GB.
const MEMORY_KIB: u64 = 2_000_000;

/// The end of a command within the limits of memory and time; `None` if it waits for ever.
fn bounded(folder: &Folder, arguments: &[&str]) -> Option<Run> {
    let script = format!("ulimit -v {MEMORY_KIB}; ulimit -t {PROCESSOR_S}; exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_dip")]).args(arguments);
    command.current_dir(folder.path("")).stdin(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        sleep(Duration::from_millis(5));
    }
    Some(Run::of(child.wait_with_output().unwrap()))
}

/// Standard error of a command that must be refused.
fn refused(folder: &Folder, arguments: &[&str]) -> String {
    match bounded(folder, arguments) {
        Some(run) => run.fails(2),
        None => panic!("{arguments:?} takes longer than {PATIENCE:?}"),
    }
}

#[test]
fn files_that_never_end_are_refused_at_once_by_every_reader() {
    let folder = Folder::new();
    let status = Command::new("mkfifo").arg(folder.path("pipe.toml")).status();
    assert!(status.unwrap().success());
    File::create(folder.path("sparse.toml")).unwrap().set_len(3 << 30).unwrap();
    folder.write("batch.jsonl", BATCH);
    let readers: [&[&str]; 6] = [
        &["check"],
        &["emulate"],
        &["plan", "--graph"],
        &["plan", "--model"],
        &["plan", "--model", "vlm-s", "--cluster"],
        &["plan", "--model", "vlm-s", "--batch"],
    ];
    let bad = [
        ("pipe.toml", "is a pipe, but must be a regular file"),
        ("/dev/zero", "is a device, but must be a regular file"),
        ("sparse.toml", "has 3221225472 bytes, but"),
    ];
    for reader in readers {
        for (file, reason) in bad {
            let error = refused(&folder, &[reader, &[file]].concat());
            let name = file.trim_start_matches("/dev/");
            // A cluster or model is only a file if it exists or ends like one.
            assert!(error.contains(reason) && error.contains(name), "{reader:?}: {error}");
        }
    }
    let folder_as_file = refused(&folder, &["check", "."]);
    assert!(folder_as_file.contains("is a folder, but must be a regular file"), "{folder_as_file}");
}

#[test]
fn a_plan_is_read_from_standard_input() {
    let folder = Folder::new();
    folder.write("batch.jsonl", BATCH);
    let plan = ["plan", "--model", "vlm-s", "--batch", "batch.jsonl", "--iterations-budget", "1"];
    folder.dip(&[&plan[..], &["--out", "plan.json"]].concat()).ok();
    let mut command = folder.command(&["check", "-"]);
    command.stdin(File::open(folder.path("plan.json")).unwrap());
    assert!(Run::of(command.output().unwrap()).ok().contains("OK"));
    // Standard input that never ends is read to the limit.
    let mut endless = folder.command(&["plan", "--model", "vlm-s", "--cluster", "h800", "--batch"]);
    endless.arg("-").stdin(File::open("/dev/zero").unwrap());
    let error = Run::of(endless.output().unwrap()).fails(2);
    assert!(error.contains("a batch file has at most"), "{error}");
}

/// The TOML of a preset.
fn preset(folder: &Folder, name: &str) -> String {
    folder.dip(&["presets", "--show", name]).ok()
}

#[test]
fn numbers_that_make_too_much_are_refused_and_the_product_is_named() {
    let folder = Folder::new();
    let model = |name: &str, field: &str, value: &str| {
        let text = preset(&folder, name);
        let line = text.lines().find(|line| line.starts_with(&format!("{field} ="))).unwrap();
        folder.write("model.toml", &text.replacen(line, &format!("{field} = {value}"), 1));
        refused(&folder, &["plan", "--model", "model.toml"])
    };
    let error = model("vlm-s", "sequence_tokens", "2147483648");
    assert!(
        error.contains("sequence_tokens is 2147483648") && error.contains("16777216"),
        "{error}"
    );
    let error = model("t2v-s", "max_clips", "4294967295");
    assert!(error.contains("max_clips is 4294967295") && error.contains("65536"), "{error}");
    let error = model("vlm-s", "microbatches", "1048576");
    let product = "1048576, with 8192 tokens each 8589934592 tokens in a batch";
    assert!(error.contains(product) && error.contains("at most 1073741824"), "{error}");
    let error = refused(&folder, &["plan", "--model", "vlm-s", "--microbatches", "1048576"]);
    assert!(error.contains(product), "{error}");
    let many = "{\"images\":1048576}\n".repeat(17);
    folder.write("batch.jsonl", &many);
    let error = refused(&folder, &["plan", "--model", "vlm-s", "--batch", "batch.jsonl"]);
    assert!(error.contains("17 microbatches with 17825792 images"), "{error}");
    let many = "{\"images\":40,\"text_tokens\":100}\n".repeat(60_000);
    folder.write("batch.jsonl", &many);
    let error = refused(&folder, &["plan", "--model", "vlm-s", "--batch", "batch.jsonl"]);
    assert!(error.contains("60000 microbatches") && error.contains("tasks together"), "{error}");
}

/// Every copy of a text with one of its numbers replaced.
fn mutants<'a>(text: &'a str, values: &'a [&'a str]) -> impl Iterator<Item = String> + 'a {
    let part_of_word = |c: char| c.is_alphanumeric() || "_.-+".contains(c);
    let mut starts = Vec::new();
    let mut at = 0;
    for word in text.split_inclusive(|c| !part_of_word(c)) {
        let number = word.trim_end_matches(|c| !part_of_word(c));
        if !number.is_empty() && number.replace('_', "").parse::<f64>().is_ok() {
            starts.push((at, number.len()));
        }
        at += word.len();
    }
    starts.into_iter().flat_map(move |(at, length)| {
        values.iter().map(move |value| format!("{}{value}{}", &text[..at], &text[at + length..]))
    })
}

/// Extreme numbers.
const VALUES: [&str; 7] = ["0", "1", "2147483648", "4294967295", "9007199254740993", "1e300", "-1"];

/// Runs commands over mutants of their files. Of the mutants, every `step`th is taken.
fn survives_mutation(step: usize) {
    let folder = Folder::new();
    folder.write("batch.jsonl", BATCH);
    let plan = ["plan", "--iterations-budget", "1", "--threads", "1"];
    let with = |more: &[&'static str]| [&plan[..], more].concat();
    let small = with(&["--model", "vlm-s", "--batch", "batch.jsonl"]);
    folder.dip(&[&small[..], &["--out", "plan.json", "--graph-out", "graph.json"]].concat()).ok();
    let read = |name: &str| crate::support::read(&folder.path(name));
    let without_comments = |text: String| -> String {
        text.lines().filter(|l| !l.starts_with('#')).map(|l| format!("{l}\n")).collect()
    };
    let clips = "{\"clips\":[{\"seconds\":4.0,\"caption_tokens\":60,\"tokens_per_frame\":100}]}\n";
    let sizes = "{\"images\":[{\"patches\":1024,\"tokens\":256}],\"text_tokens\":8023}\n";
    let files = [
        ("model.toml", preset(&folder, "vlm-s"), with(&["--model", "model.toml"])),
        ("model.toml", preset(&folder, "t2v-s"), with(&["--model", "model.toml"])),
        (
            "cluster.toml",
            preset(&folder, "h800"),
            with(&["--model", "vlm-s", "--cluster", "cluster.toml"]),
        ),
        (
            "other.jsonl",
            format!("{BATCH}{sizes}"),
            with(&["--model", "vlm-s", "--batch", "other.jsonl"]),
        ),
        ("other.jsonl", clips.into(), with(&["--model", "t2v-s", "--batch", "other.jsonl"])),
        ("other.json", read("graph.json"), with(&["--graph", "other.json"])),
        ("other.json", read("plan.json"), vec!["check", "other.json"]),
        ("other.json", read("plan.json"), vec!["emulate", "other.json"]),
    ];
    for (i, (name, text, command)) in files.into_iter().enumerate() {
        let text = if name == "other.json" { text } else { without_comments(text) };
        let numbers = mutants(&text, &VALUES[..1]).count();
        // Of the many tasks of a plan, some stand for all.
        let step = if name == "other.json" { step * (numbers / 40).max(1) } else { step };
        for (j, mutant) in mutants(&text, &VALUES).enumerate().skip(i % step).step_by(step) {
            folder.write(name, &mutant);
            let Some(run) = bounded(&folder, &command) else {
                let kept = std::env::temp_dir().join(format!("dip-slow-{i}-{j}"));
                std::fs::write(&kept, &mutant).unwrap();
                panic!("{command:?} takes longer than {PATIENCE:?} on {}", kept.display());
            };
            let code = run.code();
            let error = run.error();
            assert!(
                matches!(code, Some(0..=2)) && !error.contains("panicked"),
                "{command:?} ends with {code:?}: {error}\n{}",
                kept(&mutant)
            );
        }
    }
}

/// Keeps a file for a look at it.
fn kept(text: &str) -> String {
    let path = std::env::temp_dir().join("dip-mutant");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn extreme_numbers_neither_hang_nor_abort() {
    survives_mutation(29);
}

#[test]
#[ignore = "takes minutes: cargo test --release --test main all_extreme_numbers -- --ignored"]
fn all_extreme_numbers_neither_hang_nor_abort() {
    survives_mutation(1);
}

#[cfg(feature = "train")]
mod training {
    use super::*;
    use crate::support::inputs::{MODEL, RUN};

    #[test]
    fn a_run_refuses_files_that_never_end() {
        let folder = Folder::of_run(MODEL, RUN);
        assert!(Command::new("mkfifo").arg(folder.path("pipe")).status().unwrap().success());
        let fails = |more: &str, parts: &[&str]| {
            folder.write("run.toml", &format!("{RUN}{more}"));
            let error = refused(&folder, &["train", "run.toml"]);
            assert!(parts.iter().all(|part| error.contains(part)), "{more}: {error}");
        };
        fails("[data]\nshards = ['pipe']\n", &["pipe", "is a pipe"]);
        fails("[data]\nshards = ['/dev/zero']\n", &["/dev/zero", "is a device"]);
        fails("[data]\ntokenizer = 'pipe'\n", &["pipe", "is a pipe"]);
        assert!(refused(&folder, &["train", "pipe"]).contains("pipe: is a pipe"));
    }

    #[test]
    fn paths_in_a_run_are_relative_to_its_file() {
        let folder = Folder::new();
        std::fs::create_dir_all(folder.path("runs/models")).unwrap();
        let run = RUN.replace("small.toml", "models/small.toml").replace("\"out\"", "\"../out\"");
        folder.write("runs/models/small.toml", MODEL);
        folder.write("runs/run.toml", &run);
        let text = folder.dip(&["train", "runs/run.toml", "--iterations", "1"]).ok();
        assert!(text.contains("output in out"), "{text}");
        assert!(folder.path("out/metrics.jsonl").exists());
        // A path of the current folder is refused, and both places are named.
        folder.write("runs/run.toml", &run.replace("models/small.toml", "runs/models/small.toml"));
        let error = folder.dip(&["train", "runs/run.toml"]).fails(2);
        for part in
            ["model", "runs/runs/models/small.toml does not exist", "the current folder does"]
        {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn extreme_numbers_in_a_run_are_refused_or_can_be_stopped() {
        let folder = Folder::of_run(MODEL, RUN);
        let run = "seed = 1\n[sequence]\ntokens = 96\nimages = 4\n[pipeline]\nranks = 2\nreplicas = 1\nwindow = 1\n\
                   threads_per_rank = 1\nmemory_limit_bytes = 1000000000\nsearch_iterations = 2\n\
                   [checkpoint]\nevery = 10\nkeep = 2\n[optimizer]\nlearning_rate = 1e-3\nwarmup_iterations = 5\n\
                   ema_decay = 0.5\n[data]\nshuffle_buffer = 8\nmicrobatches = 3\n[evaluation]\nevery = 0\npictures = 2\n\
                   captions = 0\npatience = 1\n[lora]\nrank = 2\nalpha = 4.0\n";
        let head = "name = \"small\"\nmodel = \"small.toml\"\noutput = \"out\"\niterations = 1\n";
        let all = mutants(run, &VALUES[2..]).enumerate();
        for (i, mutant) in all.step_by(3) {
            folder.write("run.toml", &format!("{head}{mutant}"));
            let arguments = ["train", "run.toml", "--restart"];
            let end = bounded(&folder, &arguments).expect("it does not wait");
            let error = end.error();
            // A run that trains may use all its time.
            let fine = end.is_out_of_time() || matches!(end.code(), Some(0 | 2));
            let fine = fine && !error.contains("panicked");
            assert!(fine, "{i} ends with {:?}: {error}\n{mutant}", end.code());
        }
    }
}

/// Mutants are of the numbers of a text and of nothing else.
#[test]
fn numbers_are_found_in_toml_and_json() {
    let found = |text: &str| mutants(text, &["#"]).collect::<Vec<_>>();
    assert_eq!(found("a = 1_0\nb2 = 'x3'\n"), ["a = #\nb2 = 'x3'\n"]);
    assert_eq!(
        found("{\"a\":1.5e3,\"b\":[2]}"),
        ["{\"a\":#,\"b\":[2]}", "{\"a\":1.5e3,\"b\":[#]}"]
    );
}
