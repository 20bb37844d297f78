//! What `dip doctor` finds.

use serde_json::Value;

use crate::support::Folder;
#[cfg(feature = "train")]
use crate::support::inputs::{MODEL, RUN};

fn checks(text: &str) -> Vec<Value> {
    let document: Value = serde_json::from_str(text).unwrap();
    assert_eq!(document["schema"], "dip.doctor/v1");
    document["checks"].as_array().unwrap().clone()
}

fn find<'a>(checks: &'a [Value], name: &str) -> &'a Value {
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn a_machine_is_described_with_a_remedy_for_all_that_is_absent() {
    let folder = Folder::new();
    // Nothing is installed in an empty path.
    let output = folder.command(&["doctor", "--json"]).env("PATH", "").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let checks = checks(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(find(&checks, "dip")["state"], "ok");
    assert!(find(&checks, "processor")["found"].as_str().unwrap().contains("cores"));
    let ffmpeg = find(&checks, "ffmpeg");
    assert!(ffmpeg["state"] == "absent" && ffmpeg["found"] == "no ffmpeg in the PATH", "{ffmpeg}");
    for check in checks.iter().filter(|check| check["state"] != "ok") {
        assert!(check["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{check}");
    }
    let text = folder.dip(&["doctor"]).ok();
    assert_eq!(text.lines().count(), checks.len(), "{text}");
}

#[cfg(feature = "train")]
#[test]
fn a_run_that_needs_what_is_missing_ends_with_code_1() {
    let folder = Folder::of_run(MODEL, RUN);
    let text = folder.dip(&["doctor", "--for", "run.toml", "--json"]).ok();
    let found = checks(&text);
    for name in ["cpu", "precision", "data", "output", "weights"] {
        assert_eq!(find(&found, name)["state"], "ok", "{text}");
    }
    let run = |more: &str| {
        folder.write("run.toml", &RUN.replace("[pipeline]", &format!("[pipeline]\n{more}")));
        checks(&folder.dip(&["doctor", "--for", "run.toml", "--json"]).says(1))
    };
    let rocm = run("device = \"rocm\"");
    assert_eq!(find(&rocm, "rocm")["state"], "missing");
    assert!(find(&rocm, "rocm")["remedy"].as_str().unwrap().contains("--features rocm"));
    let huge = run("memory_limit_bytes = 1_000_000_000_000_000");
    assert_eq!(find(&huge, "memory limit")["state"], "missing");
    folder.write("run.toml", &format!("{RUN}[data]\nshards = [\"nowhere.tar\"]\n"));
    let data = folder.dip(&["doctor", "--for", "run.toml", "--json"]).says(1);
    assert!(data.contains("nowhere.tar"), "{data}");
    folder.dip(&["doctor", "--for", "none.toml"]).fails(2);
}
