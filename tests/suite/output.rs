//! What commands print: help, JSON documents, colours, and exit codes.

use std::process::Command;

use serde_json::Value;

use crate::support::{Folder, Run, inputs};

/// All subcommands.
fn subcommands() -> Vec<String> {
    let help = Folder::new().dip(&["--help"]).ok();
    let from = help.split("Commands:\n").nth(1).unwrap();
    let lines = from.lines().take_while(|line| !line.is_empty());
    let first = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    first.filter(|word| !word.is_empty() && *word != "help").map(String::from).collect()
}

fn help(command: &str, columns: &str) -> String {
    let folder = Folder::new();
    let mut dip = folder.command(&[command, "--help"]);
    Run::of(dip.env("COLUMNS", columns).output().unwrap()).ok()
}

#[test]
fn every_help_has_an_example_and_keeps_words_whole_at_60_columns() {
    let all = subcommands();
    assert!(all.len() >= 9 && all.contains(&"plan".to_owned()), "{all:?}");
    for command in all.iter().map(String::as_str).chain(["--help"]) {
        let (wide, narrow) = (help(command, "1000"), help(command, "60"));
        assert!(narrow.contains("Example"), "{command}: {narrow}");
        // The same words, whatever the width.
        let words = |text: &str| text.split_whitespace().map(String::from).collect::<Vec<_>>();
        assert_eq!(words(&wide), words(&narrow), "{command}");
        let long = |line: &&str| line.chars().count() > 60 && line.trim().contains("  ");
        assert_eq!(narrow.lines().find(long), None, "{command}");
    }
}

#[test]
fn documents_name_their_schema_and_hold_the_figures_of_the_text() {
    let folder = Folder::new();
    folder.write("batch.jsonl", inputs::BATCH);
    let json = |arguments: &[&str], schema: &str| -> Value {
        let text = folder.dip(&[arguments, &["--json"]].concat()).ok();
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["schema"], schema, "{text}");
        document
    };
    let plan = ["plan", "--model", "vlm-s", "--batch", "batch.jsonl", "--iterations-budget", "2"];
    let plan = [&plan[..], &["--out", "plan.json"]].concat();
    let document = json(&plan, "dip.plan-figures/v1");
    let text = folder.dip(&plan).ok();
    let makespan = document["makespan_s"].as_f64().unwrap();
    assert!(text.contains(&format!("makespan {makespan:.2} s")), "{text}");
    let tokens = document["step"]["tokens_per_s"].as_f64().unwrap();
    assert!(text.contains(&format!("{tokens:.0} tokens/s")), "{text}");
    assert_eq!(document["peak_bytes"].as_array().unwrap().len(), 4);

    let emulation = json(&["emulate", "plan.json", "--noise", "0.1"], "dip.emulation/v1");
    assert_eq!(emulation["makespan_s"].as_f64().unwrap(), makespan);
    assert_eq!(emulation["ranks"].as_array().unwrap().len(), 4);
    assert!(emulation["noise"]["mean_s"].as_f64().unwrap() > makespan);
    let busy = |rank: &Value| rank["busy_s"].as_f64().unwrap();
    let waits: f64 =
        emulation["ranks"].as_array().unwrap().iter().map(|r| makespan - busy(r)).sum();
    let bubbles = emulation["bubble_ratio"].as_f64().unwrap();
    assert!((waits / (4.0 * makespan) - bubbles).abs() < 1e-9);

    let checked = json(&["check", "plan.json"], "dip.check/v1");
    assert!(checked["ok"] == true && checked["plan"]["tasks"] == document["tasks"], "{checked}");
    let explained =
        json(&["explain", "plan.json", "--iterations-budget", "1"], "dip.explanation/v1");
    let sum = |list: &Value, fields: &[&str]| -> f64 {
        let all = list.as_array().unwrap().iter();
        all.flat_map(|entry| fields.iter().map(|field| entry[*field].as_f64().unwrap())).sum()
    };
    let busy = sum(&explained["busy"], &["forward_s", "backward_s", "weight_s"]);
    let waiting = sum(&explained["bubbles"], &["seconds"]);
    assert!(((busy + waiting) / (4.0 * makespan) - 1.0).abs() < 1e-6, "{explained}");
    assert!(explained["changes"][0]["makespan_s"].is_f64());

    let presets = json(&["presets", "schedules"], "dip.presets/v1");
    assert!(presets["schedules"][0]["name"] == "dip" && presets["models"].is_null());
    let sample = ["sample", "--model", "vlm-s", "--iterations", "2", "--out", "sample.jsonl"];
    assert_eq!(json(&sample, "dip.sample/v1")["microbatches"], 32);
    let error = folder.dip(&["sample", "--model", "vlm-s", "--json"]).fails(2);
    assert!(error.contains("--out"), "{error}");

    let beside = folder.dip(&["check", "plan.json", "--json=check.json"]).ok();
    assert!(beside.starts_with("OK: "), "{beside}");
    let written = std::fs::read_to_string(folder.path("check.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), checked);
}

#[test]
fn violations_are_listed_in_a_document_and_end_with_code_1() {
    let folder = Folder::new();
    let plan = ["plan", "--model", "vlm-s", "--schedule", "1f1b", "--out", "plan.json"];
    folder.dip(&plan).ok();
    let text = std::fs::read_to_string(folder.path("plan.json")).unwrap();
    let mut plan: Value = serde_json::from_str(&text).unwrap();
    plan["order"][0].as_array_mut().unwrap().reverse();
    folder.write("reversed.json", &plan.to_string());
    let text = folder.dip(&["check", "reversed.json", "--json"]).says(1);
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["ok"], false);
    let codes: Vec<&Value> =
        document["violations"].as_array().unwrap().iter().map(|v| &v["code"]).collect();
    assert!(codes.iter().any(|code| **code == "order-deadlock"), "{codes:?}");
}

#[test]
fn a_mistyped_name_is_answered_with_the_right_one() {
    let folder = Folder::new();
    let fails = |arguments: &[&str], meant: &str| {
        let error = folder.dip(arguments).fails(2);
        assert!(error.contains(&format!("did you mean {meant}?")), "{error}");
    };
    fails(&["plan", "--model", "vlm_s"], "\"vlm-s\"");
    fails(&["plan", "--model", "vlm-s", "--cluster", "H80"], "\"h800\"");
    fails(&["plan", "--model", "vlm-s", "--schedule", "interleave"], "\"interleaved\"");
    fails(&["compare", "--schedules", "megatorn"], "\"megatron\"");
    fails(&["presets", "--show", "t2v_tiny"], "\"t2v-tiny\"");
    folder.write("bad.toml", "name = \"x\"\nmicrobatch = 3\n");
    fails(&["plan", "--model", "bad.toml"], "`microbatches`");
    let error = folder.dip(&["plna"]).fails(2);
    assert!(error.contains("'plan'"), "{error}");
}

#[test]
fn a_quiet_command_prints_results_and_a_verbose_one_its_steps() {
    let folder = Folder::new();
    let plan = ["plan", "--model", "vlm-s", "--schedule", "1f1b"];
    let run = |more: &[&str]| folder.command(&[&plan[..], more].concat()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (quiet, verbose) = (run(&["--quiet"]), run(&["-v"]));
    assert_eq!(text(&quiet.stderr), "");
    assert!(text(&quiet.stdout).contains("makespan "));
    assert!(text(&verbose.stderr).contains("building the task graph: "));
    folder.dip(&["plan", "-q", "-v", "--model", "vlm-s"]).fails(2);
    let tune =
        ["tune", "--model", "t2v-s", "--devices", "8", "--microbatches", "16", "--keep", "1"];
    let tune = [&tune[..], &["--iterations-budget", "1", "--quiet"]].concat();
    let output = folder.command(&tune).output().unwrap();
    assert_eq!(text(&output.stderr), "");
    assert!(text(&output.stdout).contains("limited by"));
}

#[test]
fn colours_are_for_terminals_alone() {
    let folder = Folder::new();
    let error = |set: &dyn Fn(&mut Command)| {
        let mut command = folder.command(&["check", "none.json"]);
        command.env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE");
        set(&mut command);
        Run::of(command.output().unwrap()).fails(2)
    };
    assert!(error(&|_| ()).starts_with("error: none.json"));
    let forced = error(&|command| {
        command.env("CLICOLOR_FORCE", "1");
    });
    assert!(forced.contains("\u{1b}[") && forced.contains("error:"), "{forced:?}");
    let refused = error(&|command| {
        command.env("CLICOLOR_FORCE", "0").env("NO_COLOR", "1");
    });
    assert!(!refused.contains('\u{1b}'), "{refused:?}");
}

#[test]
fn completions_know_every_subcommand_and_bash_runs_them() {
    let folder = Folder::new();
    let all = subcommands();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = folder.dip(&["completions", shell]).ok();
        assert!(all.iter().all(|name| text.contains(name.as_str())), "{shell}");
    }
    folder.write("dip.bash", &folder.dip(&["completions", "bash"]).ok());
    let script = "source dip.bash; COMP_WORDS=(dip plan --sched); COMP_CWORD=2; _dip dip --sched plan; echo ${COMPREPLY[@]}";
    let mut bash = Command::new("bash");
    let output = bash.args(["-c", script]).current_dir(folder.path("")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "--schedule");
    folder.dip(&["completions", "tcsh"]).fails(2);
}

#[test]
fn every_subcommand_has_a_man_page() {
    let folder = Folder::new();
    folder.dip(&["man", "pages/man1"]).ok();
    for name in subcommands() {
        let page = std::fs::read_to_string(folder.path(&format!("pages/man1/dip-{name}.1")));
        let page = page.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(
            page.starts_with(".ie")
                && page.contains(&format!(".TH dip-{name} 1"))
                && page.contains("Example"),
            "{name}: {page}"
        );
    }
    assert!(folder.path("pages/man1/dip.1").exists());
}
