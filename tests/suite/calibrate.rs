//! Clusters fitted to this machine.

use crate::support::{Folder, read};

#[test]
fn plans_can_be_made_for_a_calibrated_cluster() {
    let folder = Folder::new();
    let fit = ["calibrate", "--device", "cpu", "--quick", "--workers", "2", "--out", "here.toml"];
    let out = folder.dip(&fit).ok();
    for kind in ["matmul", "attention", "norm", "activation", "residual", "message", "all"] {
        assert!(out.lines().any(|l| l.starts_with(kind)), "{kind}: {out}");
    }
    let toml = read(&folder.path("here.toml"));
    assert!(toml.contains("devices_per_node = 2") && toml.contains("leaving one out"), "{toml}");
    let sample = ["sample", "--model", "vlm-tiny", "--out", "batch.jsonl"];
    folder.dip(&sample).ok();
    let plan = ["plan", "--model", "vlm-tiny", "--cluster", "here.toml", "--batch", "batch.jsonl"];
    let rest = ["--schedule", "1f1b", "--out", "plan.json"];
    folder.dip(&[&plan[..], &rest].concat()).ok();
    folder.dip(&["check", "plan.json"]).ok();
}

#[test]
fn a_measurement_that_is_impossible_is_one_line_that_names_the_remedy() {
    let folder = Folder::new();
    let fails = |arguments: &[&str], parts: &[&str]| {
        let all = [&["calibrate", "--out", "here.toml"], arguments].concat();
        let error = folder.dip(&all).fails(2);
        assert!(parts.iter().all(|p| error.contains(p)), "{error}");
        assert!(!folder.path("here.toml").exists());
    };
    fails(&["--device", "cuda"], &["--sheet", "h100", "data sheet"]);
    fails(&["--device", "cuda", "--sheet", "h100"], &["device = \"cpu\""]);
    fails(&["--device", "cpu", "--sheet", "h1000"], &["h1000", "dip presets clusters"]);
    fails(&["--device", "cpu", "--workers", "0"], &["--workers", "1..=1024"]);
}
