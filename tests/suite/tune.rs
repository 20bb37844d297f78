//! The size of a run.

use serde_json::Value;

use crate::support::{Folder, inputs, read};

/// The JSON report of a reproducible run.
fn tune(folder: &Folder, more: &[&str]) -> Value {
    let fixed = ["tune", "--iterations-budget", "3", "--json=tune.json"];
    folder.dip(&[&fixed[..], more].concat()).ok();
    serde_json::from_str(&read(&folder.path("tune.json"))).unwrap()
}

const SMALL: [&str; 6] = ["--model", "t2v-s", "--devices", "8", "--microbatches", "16"];

#[test]
fn setups_use_all_devices_fit_and_are_sorted() {
    let report = tune(&Folder::new(), &SMALL);
    let setups = report["setups"].as_array().unwrap();
    assert!(setups.len() >= 3, "{report}");
    let seconds = |s: &Value| s["seconds"].as_f64().unwrap();
    assert!(setups.windows(2).all(|w| seconds(&w[0]) <= seconds(&w[1])));
    let limit = 80_000_000_000 - report["reserve"].as_u64().unwrap();
    for setup in setups {
        let degree = |name: &str| setup["parallel"][name].as_u64().unwrap();
        assert_eq!(degree("data") * degree("tensor") * degree("pipeline"), 8);
        assert!(setup["peak_bytes"].as_u64().unwrap() <= limit, "{setup}");
        let parts = ["reduction_s", "update_s", "gather_s"].map(|p| setup["step"][p].as_f64());
        let sum: f64 = parts.iter().flatten().sum();
        let total = setup["pipeline_s"].as_f64().unwrap() + sum;
        assert!((seconds(setup) / total - 1.0).abs() < 1e-9, "{setup}");
        assert_eq!(degree("data") > 1, setup["step"]["gather_s"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn bounds_leave_out_only_what_is_slower() {
    let folder = Folder::new();
    let all = tune(&folder, &[&SMALL[..], &["--keep", "100"]].concat());
    assert_eq!(all["bounded"].as_array().unwrap().len(), 0);
    let few = tune(&folder, &[&SMALL[..], &["--keep", "2"]].concat());
    assert!(!few["bounded"].as_array().unwrap().is_empty(), "{few}");
    let worst = few["setups"][1]["seconds"].as_f64().unwrap();
    for parallel in few["bounded"].as_array().unwrap() {
        let setups = all["setups"].as_array().unwrap();
        let own = setups.iter().find(|s| s["parallel"] == *parallel).unwrap();
        assert!(own["seconds"].as_f64().unwrap() >= worst, "{own} {worst}");
    }
}

#[test]
fn equal_seeds_and_iterations_give_equal_reports_with_any_number_of_threads() {
    let folder = Folder::new();
    let run = |threads| tune(&folder, &[&SMALL[..], &["--threads", threads]].concat());
    assert_eq!(run("1"), run("2"));
}

#[test]
fn the_table_names_limits_and_the_command_to_go_on() {
    let folder = Folder::new();
    let tune = [&["tune", "--iterations-budget", "2", "--keep", "2"], &SMALL[..]].concat();
    let out = folder.dip(&tune).ok();
    assert!(out.contains("limited by") && out.contains("of each device kept free"), "{out}");
    let line = out.lines().find(|l| l.trim_start().starts_with("dip plan")).unwrap();
    let mut words: Vec<&str> = line.split_whitespace().skip(1).collect();
    words.extend(["--iterations-budget", "2"]);
    let planned = folder.dip(&words).ok();
    assert!(planned.contains("uses 8 of 64 devices"), "{planned}");
}

#[test]
fn a_text_model_of_hugging_face_is_tuned() {
    let folder = Folder::new();
    let config = serde_json::json!({
        "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_size": 5120,
        "intermediate_size": 27648, "num_hidden_layers": 64, "num_attention_heads": 40,
        "num_key_value_heads": 8, "vocab_size": 152064, "rms_norm_eps": 1e-6,
        "rope_theta": 1e6, "max_position_embeddings": 4096, "tie_word_embeddings": false,
        "hidden_act": "silu"
    });
    std::fs::create_dir(folder.path("text")).unwrap();
    folder.write("text/config.json", &config.to_string());
    let which = ["--model", "text", "--devices", "16", "--microbatches", "32", "--keep", "3"];
    let report = tune(&folder, &which);
    let best = &report["setups"][0];
    // At tensor 1 and pipeline 16 or less, 32 billion weights with their optimiser state fit only if memory is spread.
    assert!(best["mfu"].as_f64().unwrap() > 0.2, "{best}");
    assert!(!report["do_not_fit"].as_array().unwrap().is_empty(), "{report}");
    let shown = folder.dip(&["presets", "--show", "text"]).ok();
    assert!(shown.starts_with("# 32763 million weights: language 32763"), "{shown}");
    folder.write("shown.toml", &shown);
    let plan = |model| {
        let sized = ["--data", "2", "--tensor", "4", "--pipeline", "2", "--microbatches", "4"];
        let plan = ["plan", "--model", model, "--schedule", "1f1b"];
        folder.dip(&[&plan[..], &sized].concat()).ok()
    };
    let figures = |out: String| out.lines().skip(1).map(String::from).collect::<Vec<_>>();
    assert_eq!(figures(plan("text")), figures(plan("shown.toml")));
}

#[test]
fn bad_input_names_field_and_remedy() {
    let folder = Folder::new();
    let fails = |arguments: &[&str], parts: &[&str]| {
        let error = folder.dip(&[&["tune", "--model", "vlm-s"], arguments].concat()).fails(2);
        assert!(parts.iter().all(|p| error.contains(p)), "{error}");
    };
    fails(&["--devices", "128"], &["--devices is 128", "64 of cluster \"h800\"", "nodes"]);
    fails(&["--reserve", "1.5"], &["--reserve is 1.5", "below 1"]);
    folder.write("small.toml", inputs::CLUSTER);
    let small = ["--cluster", "small.toml", "--devices", "1", "--iterations-budget", "1"];
    fails(&small, &["none of", "device.memory_bytes"]);
}
