//! Training on two nodes, each a process of this machine.

use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::support::inputs::{MODEL, RUN};
use crate::support::{Folder, Run, read, saved};

/// Addresses with free ports of this machine.
fn addresses() -> String {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let address = |l: &TcpListener| format!("127.0.0.1:{}", l.local_addr().unwrap().port());
    listeners.iter().map(address).collect::<Vec<_>>().join(",")
}

/// Starts a process for each of two nodes, with `more` arguments, into one output folder.
fn start(folder: &Folder, runs: [&str; 2], output: &str, more: &[&str]) -> [Child; 2] {
    let addresses = addresses();
    [0, 1].map(|node| {
        let number = node.to_string();
        let mut arguments = vec!["train", runs[node], "--output", output];
        arguments.extend(["--nodes", &addresses, "--node", &number]);
        arguments.extend(more);
        let mut command = folder.command(&arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    })
}

/// Waits for both to end.
fn ends(nodes: [Child; 2]) -> [Run; 2] {
    nodes.map(|node| Run::of(node.wait_with_output().unwrap()))
}

/// Gives a run the profile of another run, which was measured with another number of ranks.
fn share_profile(folder: &Folder, from: &str, to: &str, ranks: [u32; 2]) {
    std::fs::create_dir(folder.path(to)).unwrap();
    let profile = read(&folder.path(from).join("profile.json"));
    // The key of a profile is JSON in a JSON string.
    let [from, other] = ranks.map(|ranks| format!(r#"\"ranks\":{ranks},"#));
    assert!(profile.contains(&from), "{profile}");
    let path = folder.path(to).join("profile.json");
    std::fs::write(path, profile.replace(&from, &other)).unwrap();
}

#[test]
fn two_processes_train_to_the_losses_and_weights_of_two_replicas_in_one() {
    // A schedule without a search, because the planners of the nodes have different seeds.
    let run = RUN.replace("[pipeline]", "[pipeline]\nschedule = \"1f1b\"");
    let folder = Folder::of_run(MODEL, &run);
    folder.write("two.toml", &run.replace("[pipeline]", "[pipeline]\nreplicas = 2"));
    folder.dip(&["train", "two.toml", "--iterations", "20", "--output", "alone"]).ok();
    share_profile(&folder, "alone", "nodes", [4, 2]);
    let nodes = start(&folder, ["run.toml"; 2], "nodes", &["--iterations", "20"]);
    let [first, second] = ends(nodes).map(Run::ok);
    assert!(first.contains("on 2 replicas of 2 ranks"), "{first}");
    assert!(second.contains("trained to iteration 20"), "{second}");
    assert_eq!(folder.losses("alone"), folder.losses("nodes"));
    let end = |output: &str| saved(&folder.path(output).join("checkpoint-00000020"));
    assert!(end("alone") == end("nodes"));

    // Both resume from the checkpoint of the first.
    let newest = folder.path("nodes").join("checkpoint-00000020");
    std::fs::remove_dir_all(newest).unwrap();
    let nodes = start(&folder, ["run.toml"; 2], "nodes", &["--iterations", "20", "--resume"]);
    for text in ends(nodes).map(Run::ok) {
        assert!(text.contains("resuming after iteration 10"), "{text}");
    }
    assert_eq!(folder.losses("alone"), folder.losses("nodes"));
}

#[test]
fn a_node_with_another_run_is_refused_by_both_sides() {
    let folder = Folder::of_run(MODEL, RUN);
    folder.write("other.toml", &RUN.replace("output =", "seed = 7\noutput ="));
    let nodes = start(&folder, ["run.toml", "other.toml"], "out", &[]);
    let [first, second] = ends(nodes).map(|end| end.fails(2));
    for part in ["node 1 differs from this node in the run", "\"seed\": 7", "\"seed\": 0"] {
        assert!(first.contains(part), "{first}");
    }
    assert!(second.contains("node 0 differs"), "{second}");
    assert!(!folder.path("out-0/metrics.jsonl").exists());
}

#[test]
fn a_node_that_is_killed_ends_the_other_with_its_name() {
    let folder = Folder::of_run(MODEL, &RUN.replace("iterations = 40", "iterations = 1000000"));
    let [first, mut second] = start(&folder, ["run.toml"; 2], "out", &[]);
    let begin = Instant::now();
    while !folder.path("out-0/checkpoint-00000010").exists() {
        assert!(begin.elapsed() < Duration::from_secs(120), "no checkpoint");
        std::thread::sleep(Duration::from_millis(5));
    }
    second.kill().unwrap();
    second.wait().unwrap();
    let killed = Instant::now();
    let error = Run::of(first.wait_with_output().unwrap()).fails(2);
    assert!(error.contains("node 1 (127.0.0.1:") && error.contains("--resume"), "{error}");
    assert!(killed.elapsed() < Duration::from_secs(30), "{:?}", killed.elapsed());
}

#[test]
fn arguments_of_nodes_come_together() {
    let folder = Folder::of_run(MODEL, RUN);
    let fails = |more: &[&str], part: &str| {
        let error = folder.dip(&[&["train", "run.toml"], more].concat()).fails(2);
        assert!(error.contains(part), "{error}");
    };
    fails(&["--node", "0"], "--nodes");
    fails(&["--nodes", "a:1,b:1"], "--node");
    fails(&["--nodes", "a:1", "--node", "0"], "--nodes is a:1, but must name 2 to 1024 nodes");
    fails(&["--nodes", "a:1,b:1", "--node", "2"], "--node is 2, but must be 0 to 1");
}
