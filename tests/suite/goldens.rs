//! Recorded plans, times and losses. They change only with an intended change of the mathematics.
//! `DIP_GOLDENS=write cargo test --release --test main goldens` records them again; review the diff before you commit it.

use std::path::PathBuf;

use serde_json::Value;

use crate::support::{Folder, read};

/// The models whose plans are recorded. Their batches are files, so that the sampler may change.
const PLANNED: [&str; 5] = ["vlm-tiny", "t2v-tiny", "vlm-s", "t2v-s", "omni-s"];

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name)
}

/// Compares lines with the lines of a golden file by `is_equal`, or writes the file.
fn compare(name: &str, lines: &[String], is_equal: impl Fn(&str, &str) -> bool) {
    let path = golden(name);
    if std::env::var("DIP_GOLDENS").is_ok_and(|mode| mode == "write") {
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        return;
    }
    let text = read(&path);
    let expected: Vec<&str> = text.lines().collect();
    let pairs = || expected.iter().zip(lines);
    let differences: Vec<_> = pairs()
        .filter(|(old, new)| !is_equal(old, new))
        .map(|(old, new)| format!("- {old}\n+ {new}"))
        .collect();
    assert_eq!(expected.len(), lines.len(), "{name}: lines are missing or new");
    assert!(differences.is_empty(), "{name} differs:\n{}", differences.join("\n"));
}

fn schedules() -> Vec<String> {
    let text = Folder::new().dip(&["presets", "schedules"]).ok();
    let rows = text.lines().filter_map(|line| line.strip_prefix("  "));
    rows.filter_map(|row| row.split_whitespace().next()).map(str::to_owned).collect()
}

/// Plans a recorded batch and returns the text of the plan; `None` if the schedule does not apply to its graph.
fn plan(folder: &Folder, model: &str, schedule: &str, threads: &str) -> Option<String> {
    let batch = golden(&format!("batches/{model}.jsonl"));
    let input = ["plan", "--model", model, "--batch", batch.to_str().unwrap()];
    let search = ["--schedule", schedule, "--iterations-budget", "200", "--seed", "0"];
    let output = ["--threads", threads, "--out", "plan.json"];
    let run = folder.dip(&[&input[..], &search, &output].concat());
    if run.succeeds() {
        let text = read(&folder.path("plan.json"));
        // The step around a plan does not belong to the plan.
        let (plan, _) = text.rsplit_once(",\"step\":").expect("plans of models have a step");
        return Some(format!("{plan}}}"));
    }
    let error = run.fails(2);
    assert!(error.contains("does not apply"), "{model} {schedule}: {error}");
    None
}

#[test]
fn plans_match_the_goldens() {
    let folder = Folder::new();
    let mut lines = Vec::new();
    for model in PLANNED {
        for schedule in schedules() {
            // The proof of optimality takes long for more than a few dozen tasks.
            if schedule == "exact" && model != "vlm-tiny" {
                continue;
            }
            let Some(text) = plan(&folder, model, &schedule, "1") else {
                lines.push(format!("{model} {schedule}: does not apply"));
                continue;
            };
            let plan: Value = serde_json::from_str(&text).unwrap();
            lines.push(format!(
                "{model} {schedule}: makespan {:.9} s, bound {:.9} s, {} tasks, CRC-32 {:08x}",
                plan["predicted"]["makespan_s"].as_f64().unwrap(),
                plan["lower_bound_s"].as_f64().unwrap(),
                plan["tasks"].as_array().unwrap().len(),
                crc32fast::hash(text.as_bytes())
            ));
        }
    }
    compare("plans.txt", &lines, |old, new| old == new);
    assert_eq!(plan(&folder, "vlm-s", "dip", "1"), plan(&folder, "vlm-s", "dip", "2"));
}

#[test]
fn times_of_systems_match_the_goldens() {
    let folder = Folder::new();
    let systems = ["compare", "--models", "vlm-s,t2v-s", "--iterations", "2"];
    let all = ["--schedules", "megatron,nnscaler,optimus,fsdp,dip", "--iterations-budget", "40"];
    folder.dip(&[&systems[..], &all, &["--threads", "1", "--json=compare.json"]].concat()).ok();
    let comparison: Value = serde_json::from_str(&read(&folder.path("compare.json"))).unwrap();
    let mut lines = Vec::new();
    for model in comparison["models"].as_array().unwrap() {
        for system in model["systems"].as_array().unwrap() {
            let records = system["records"].as_array().unwrap();
            let seconds =
                records.iter().map(|r| format!("{:.9} s", r["pipeline_s"].as_f64().unwrap()));
            let seconds = seconds.collect::<Vec<_>>().join(", ");
            let name = |value: &Value| value.as_str().unwrap().to_owned();
            lines.push(format!("{} {}: {seconds}", name(&model["model"]), name(&system["system"])));
        }
    }
    compare("systems.txt", &lines, |old, new| old == new);
}

/// The measured profile decides which rank computes a layer, and the rank decides the order of sums: losses agree to rounding.
#[cfg(feature = "train")]
#[test]
fn losses_of_the_tiny_runs_match_the_goldens() {
    let mut lines = Vec::new();
    for name in ["vlm-tiny", "t2v-tiny"] {
        let run = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("examples/{name}.toml"));
        // Evaluations and the search for a placement do not change losses, and would take most of the time.
        let run = read(&run).replace("[pipeline]", "[pipeline]\ncut = \"rule\"");
        let run = run.split("[evaluation]").next().unwrap().to_owned();
        let none = "[evaluation]\npictures = 0\ncaptions = 0\nclips = 0\nsamples = 0\n";
        let folder = Folder::new();
        folder.write("run.toml", &(run + none));
        folder.dip(&["train", "run.toml", "--iterations", "20", "--output", "out"]).ok();
        for (iteration, loss) in folder.losses("out") {
            lines.push(format!("{name} {iteration} {:.6}", loss.parse::<f64>().unwrap()));
        }
    }
    compare("losses.txt", &lines, |old, new| {
        let ((iteration, a), (other, b)) =
            (old.rsplit_once(' ').unwrap(), new.rsplit_once(' ').unwrap());
        let (a, b): (f64, f64) = (a.parse().unwrap(), b.parse().unwrap());
        iteration == other && (a - b).abs() <= 1e-5 * a
    });
}
