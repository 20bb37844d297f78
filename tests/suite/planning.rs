//! Presets, sampling, planning, checking and emulation.

use std::process::Stdio;

use dip::plan::Plan;

use crate::support::{Folder, inputs, read};

#[test]
fn presets_are_listed() {
    let all = Folder::new().dip(&["presets"]).ok();
    for name in ["vlm-s", "t2v-xl", "vlm-tiny", "h800", "cpu", "1f1b", "interleaved", "dip"] {
        assert!(all.lines().any(|l| l.trim_start().starts_with(name)), "{name} is missing");
    }
    assert!(!Folder::new().dip(&["presets", "clusters"]).ok().contains("vlm-s"));
}

#[test]
fn a_preset_is_shown_as_a_file_that_can_be_changed_and_used() {
    let folder = Folder::new();
    let model = folder.dip(&["presets", "--show", "vlm-s"]).ok();
    folder.write("mine.toml", &model.replace("name = \"vlm-s\"", "name = \"mine\""));
    folder.write("here.toml", &folder.dip(&["presets", "--show", "h20"]).ok());
    let mine =
        ["plan", "--model", "mine.toml", "--cluster", "here.toml", "--iterations-budget", "1"];
    assert!(folder.dip(&mine).ok().contains("mine"));
    let error = folder.dip(&["presets", "--show", "vlm"]).fails(2);
    assert!(error.contains("\"vlm\"") && error.contains("dip presets"), "{error}");
}

#[test]
fn equal_seeds_sample_equal_batches_and_others_do_not() {
    let folder = Folder::new();
    let sample = |seed: &str| {
        folder.dip(&["sample", "--model", "vlm-s", "--iterations", "3", "--seed", seed]).ok()
    };
    assert_eq!(sample("1"), sample("1"));
    assert_ne!(sample("1"), sample("2"));
    assert_eq!(sample("1").lines().count(), 3 * 16);
}

#[test]
fn a_batch_is_planned_checked_and_emulated() {
    let folder = Folder::new();
    folder.write("batch.jsonl", inputs::BATCH);
    for schedule in ["gpipe", "1f1b", "interleaved", "dip"] {
        let planned = folder.dip(&[
            "plan",
            "--model",
            "vlm-s",
            "--cluster",
            "h800",
            "--batch",
            "batch.jsonl",
            "--schedule",
            schedule,
            "--iterations-budget",
            "50",
            "--out",
            "plan.json",
        ]);
        assert!(planned.ok().contains("gap"));
        let checked = folder.dip(&["check", "plan.json"]).ok();
        assert_eq!(checked.lines().count(), 1, "{checked}");
        folder.dip(&["emulate", "plan.json", "--html", "t.html", "--trace", "t.json"]).ok();
        assert!(read(&folder.path("t.html")).contains("<canvas"));
        let trace: serde_json::Value = serde_json::from_str(&read(&folder.path("t.json"))).unwrap();
        assert!(!trace["traceEvents"].as_array().unwrap().is_empty());
    }
}

#[test]
fn plans_are_byte_equal_under_an_iteration_budget_with_any_number_of_threads() {
    let folder = Folder::new();
    folder.write("batch.jsonl", inputs::BATCH);
    let plan = |threads: &str, out: &str| {
        folder
            .dip(&[
                "plan",
                "--model",
                "vlm-s",
                "--batch",
                "batch.jsonl",
                "--iterations-budget",
                "300",
                "--threads",
                threads,
                "--seed",
                "7",
                "--out",
                out,
            ])
            .ok();
        read(&folder.path(out))
    };
    assert_eq!(plan("1", "a.json"), plan("2", "b.json"));
}

#[test]
fn the_plan_of_a_graph_has_the_graph_and_survives_csv() {
    let folder = Folder::new();
    // In PyTorch every microbatch passes every stage, so all of them have images.
    folder.write("batch.jsonl", &"{\"images\":10,\"text_tokens\":6502}\n".repeat(4));
    let from_model = ["plan", "--model", "vlm-s", "--batch", "batch.jsonl", "--schedule", "1f1b"];
    folder.dip(&[&from_model[..], &["--out", "plan.json", "--csv", "order.csv"]].concat()).ok();
    let plan: serde_json::Value = serde_json::from_str(&read(&folder.path("plan.json"))).unwrap();
    let mut graph = plan.clone();
    let fields = graph.as_object_mut().unwrap();
    for field in ["schedule", "order", "predicted", "lower_bound_s"] {
        fields.remove(field);
    }
    fields.insert("schema".into(), "dip.graph/v1".into());
    folder.write("graph.json", &graph.to_string());
    let again = ["plan", "--graph", "graph.json", "--order", "order.csv", "--out", "again.json"];
    folder.dip(&again).ok();
    let (a, b) = (read(&folder.path("plan.json")), read(&folder.path("again.json")));
    assert_eq!(Plan::from_json(&a).unwrap().order, Plan::from_json(&b).unwrap().order);
}

#[test]
fn a_wave_closes_the_gap_of_a_video_model_and_is_found() {
    let folder = Folder::new();
    let plan = |route: &[&str]| {
        let plan = ["plan", "--model", "t2v-s", "--iterations-budget", "5", "--out", "plan.json"];
        folder.dip(&[&plan[..], route].concat()).ok();
        Plan::from_json(&read(&folder.path("plan.json"))).unwrap()
    };
    let [looped, wave, best] = [&["--route", "loop"][..], &["--route", "wave"], &[]].map(plan);
    assert!(looped.gap() > 0.004 && wave.gap() < 0.002, "{} {}", looped.gap(), wave.gap());
    assert_eq!(best.predicted, wave.predicted);
}

#[test]
fn a_broken_plan_and_a_broken_file_have_different_exit_codes() {
    let folder = Folder::new();
    folder.write("batch.jsonl", inputs::BATCH);
    folder
        .dip(&[
            "plan",
            "--model",
            "vlm-s",
            "--batch",
            "batch.jsonl",
            "--schedule",
            "1f1b",
            "--out",
            "plan.json",
        ])
        .ok();
    let mut plan: serde_json::Value =
        serde_json::from_str(&read(&folder.path("plan.json"))).unwrap();
    plan["order"][0].as_array_mut().unwrap().reverse();
    folder.write("reversed.json", &plan.to_string());
    assert!(folder.dip(&["check", "reversed.json"]).says(1).contains("deadlock"));
    folder.write("text.json", "no plan");
    assert!(folder.dip(&["check", "text.json"]).fails(2).contains("text.json"));
}

#[test]
fn bad_input_names_file_field_and_remedy() {
    let folder = Folder::new();
    let fails = |arguments: &[&str], parts: &[&str]| {
        let error = folder.dip(arguments).fails(2);
        assert!(parts.iter().all(|p| error.contains(p)), "{error}");
        assert!(!error.contains("panicked"), "{error}");
    };
    fails(&["plan", "--model", "vlm-huge"], &["vlm-huge", "vlm-s", "dip presets models"]);
    fails(&["plan", "--model", "vlm-s", "--schedule", "2f2b"], &["2f2b", "1f1b"]);
    fails(&["plan", "--model", "vlm-s", "--batch", "none.jsonl"], &["none.jsonl"]);
    folder.write("bad.jsonl", "{\"images\":-1}\n");
    fails(&["plan", "--model", "vlm-s", "--batch", "bad.jsonl"], &["bad.jsonl", "line 1"]);
    folder.write("bad.toml", "name = \"x\"\nlayerz = 3\n");
    fails(&["plan", "--model", "bad.toml"], &["bad.toml", "layerz"]);
    folder.write("graph.json", "{\"schema\":\"dip.graph/v9\"}");
    fails(&["plan", "--graph", "graph.json"], &["graph.json", "dip.graph/v9"]);
    fails(&["emulate", "none.json"], &["none.json"]);
}

#[test]
fn a_closed_pipe_ends_the_command_silently() {
    let folder = Folder::new();
    let arguments = ["sample", "--model", "vlm-s", "--iterations", "500"];
    let mut command = folder.command(&arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
