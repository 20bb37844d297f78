//! Timelines of plans and of training, and what they explain.

use crate::support::Folder;
use crate::support::inputs::{MODEL, RUN};

fn plan(folder: &Folder, schedule: &str, file: &str) {
    let arguments =
        ["plan", "--model", "vlm-s", "--schedule", schedule, "--iterations-budget", "2"];
    folder.dip(&[&arguments[..], &["--out", file]].concat()).ok();
}

#[test]
fn two_plans_are_drawn_on_one_time_axis() {
    let folder = Folder::new();
    plan(&folder, "interleaved", "a.json");
    plan(&folder, "1f1b", "b.json");
    let outputs = ["--html", "t.html", "--svg", "t.svg", "--trace", "t.json"];
    folder.dip(&[&["report", "a.json", "--against", "b.json"][..], &outputs].concat()).ok();
    let page = std::fs::read_to_string(folder.path("t.html")).unwrap();
    assert!(page.contains("interleaved (a)") && page.contains("1f1b (b)"));
    let figure = std::fs::read_to_string(folder.path("t.svg")).unwrap();
    assert!(figure.contains("vision forward") && figure.ends_with("</svg>\n"));
    let trace = std::fs::read_to_string(folder.path("t.json")).unwrap();
    assert!(trace.contains("1f1b (b): rank 3"));
    let error = folder.dip(&["report", "a.json"]).fails(2);
    assert!(error.contains("--html"), "{error}");
}

#[test]
fn a_plan_is_explained_with_what_would_make_it_shorter() {
    let folder = Folder::new();
    plan(&folder, "interleaved", "interleaved.json");
    let text = folder.dip(&["explain", "interleaved.json", "--iterations-budget", "2"]).ok();
    assert!(text.contains("the schedule dip"), "{text}");
    plan(&folder, "dip", "dip.json");
    let arguments = ["explain", "dip.json", "--model", "vlm-s", "--iterations-budget", "2"];
    let text = folder.dip(&arguments).ok();
    for part in [
        "vision forward",
        "bubbles",
        "critical path",
        "1 GB more on every rank",
        "5 ranks",
        "vision on a wave",
        "a sub-microbatch, not",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    // Searches under an iteration budget are reproducible.
    assert_eq!(text, folder.dip(&arguments).ok());
    let error = folder.dip(&["explain", "dip.json", "--model", "t2v-s"]).fails(2);
    assert!(error.contains("t2v-s") && error.contains("vlm-s"), "{error}");
}

#[test]
fn training_keeps_measured_timelines_beside_their_plans() {
    let folder = Folder::of_run(MODEL, RUN);
    folder
        .dip(&["train", "run.toml", "--iterations", "5", "--output", "out", "--trace", "2..4"])
        .ok();
    let traces = folder.path("out/traces");
    let mut names: Vec<_> =
        std::fs::read_dir(&traces).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["2.jsonl", "3.jsonl"]);
    folder.dip(&["report", "out/traces/3.jsonl", "--html", "t.html"]).ok();
    let page = std::fs::read_to_string(folder.path("t.html")).unwrap();
    assert!(page.contains("planned by dip") && page.contains("measured"));
    let text = folder.dip(&["explain", "out/traces/3.jsonl", "--iterations-budget", "1"]).ok();
    assert!(text.contains("runtime"), "{text}");
    let error = folder.dip(&["train", "run.toml", "--trace", "4..4"]).fails(2);
    assert!(error.contains("4..4"), "{error}");
}
