//! Comparisons of training systems.

use serde_json::Value;

use crate::support::{Folder, inputs, read};

fn compare(folder: &Folder, more: &[&str]) -> String {
    let fixed = ["compare", "--iterations", "2", "--iterations-budget", "40"];
    folder.dip(&[&fixed[..], more].concat()).ok()
}

#[test]
fn dip_is_faster_than_every_pipeline_on_the_same_batches() {
    let folder = Folder::new();
    let systems = "megatron,nnscaler,optimus,fsdp,dip";
    let out = compare(
        &folder,
        &["--models", "vlm-s,t2v-s", "--schedules", systems, "--json=compare.json"],
    );
    assert!(out.contains("dip is faster by"), "{out}");
    let json: Value = serde_json::from_str(&read(&folder.path("compare.json"))).unwrap();
    assert_eq!(json["schema"], "dip.compare/v1");
    for model in json["models"].as_array().unwrap() {
        let mean = |system: &Value| -> f64 {
            let records = system["records"].as_array().unwrap();
            assert_eq!(records.len(), 2, "{system}");
            records.iter().map(|r| r["seconds"].as_f64().unwrap()).sum::<f64>() / 2.0
        };
        let systems = model["systems"].as_array().unwrap();
        let ours = mean(&systems[4]);
        assert!(systems[..3].iter().all(|s| mean(s) > ours), "{out}");
        // The model of FSDP is ideal: it hides its collectives and chooses its own tensor degree.
        assert!(mean(&systems[3]) > 0.7 * ours, "{out}");
    }
}

#[test]
fn equal_seeds_compare_equally() {
    let folder = Folder::new();
    let run = |seed: &str, file: &str| {
        let which = ["--models", "vlm-tiny", "--schedules", "nnscaler,dip"];
        compare(&folder, &[&which[..], &["--seed", seed, &format!("--json={file}")]].concat());
        let json: Value = serde_json::from_str(&read(&folder.path(file))).unwrap();
        let systems = json["models"][0]["systems"].as_array().unwrap().clone();
        let seconds = |s: &Value| {
            s["records"]
                .as_array()
                .unwrap()
                .iter()
                .map(|r| r["seconds"].clone())
                .collect::<Vec<_>>()
        };
        systems.iter().map(seconds).collect::<Vec<_>>()
    };
    assert_eq!(run("3", "a.json"), run("3", "b.json"));
    assert_ne!(run("3", "a.json"), run("4", "c.json"));
}

#[test]
fn figures_are_charts_on_one_self_contained_page() {
    let folder = Folder::new();
    let which =
        ["--models", "t2v-s", "--schedules", "nnscaler,dip", "--figures", "average,dynamic"];
    compare(&folder, &[&which[..], &["--html", "page.html", "--json=page.json"]].concat());
    let page = read(&folder.path("page.html"));
    assert_eq!(page.matches("<svg").count(), 2);
    assert!(!page.contains("http") && !page.contains("NaN"), "{page}");
    let json: Value = serde_json::from_str(&read(&folder.path("page.json"))).unwrap();
    assert_eq!(json["figures"]["dynamic"]["load"].as_array().unwrap().len(), 40);
}

#[test]
fn a_model_that_does_not_fit_is_reported_and_the_others_are_compared() {
    let folder = Folder::new();
    folder.write("small.toml", inputs::CLUSTER);
    let which =
        ["--models", "vlm-l,t2v-s", "--schedules", "nnscaler,dip", "--cluster", "small.toml"];
    let out = compare(&folder, &which);
    assert!(out.contains("finds no choice that fits 20.49 GiB"), "{out}");
    assert!(out.contains("t2v-s: data 1") && out.contains("dip is faster by"), "{out}");
}

#[test]
fn bad_input_names_field_and_remedy() {
    let folder = Folder::new();
    let fails = |arguments: &[&str], parts: &[&str]| {
        let error = folder.dip(&[&["compare"], arguments].concat()).fails(2);
        assert!(parts.iter().all(|p| error.contains(p)), "{error}");
    };
    fails(&["--models", "vlm-huge"], &["vlm-huge", "vlm-s", "dip presets models"]);
    fails(&["--schedules", "megatrom"], &["--schedules", "megatrom", "megatron", "fsdp"]);
    fails(&["--schedules", "dip,dip"], &["--schedules", "dip", "once"]);
    fails(&["--figures", "all", "--models", "t2v-s"], &["--html"]);
    fails(&["--figures", "averages", "--html", "p.html"], &["--figures", "averages", "average"]);
    fails(&["--iterations", "0"], &["--iterations", "1..=10000"]);
    fails(&["--budget", "2m"], &["--budget", "2s"]);
}
