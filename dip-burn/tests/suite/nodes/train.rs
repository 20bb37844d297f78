use std::sync::Arc;
use std::time::{Duration, Instant};

use dip_burn::model::Start;
use dip_burn::runtime::nodes::{NodeGroup, NodeTransport};
use dip_burn::runtime::{Pipeline, PipelineInit};
use dip_burn::train::{RunConfig, TrainError, Trainer};

use super::on_nodes;
use crate::support::*;
use crate::training::{even_partition, run_config, scenes_model, trainer_on, trainer_on_nodes};

/// A trainer of one replica of two ranks on each node.
fn on_node(
    folder: &tempfile::TempDir,
    transport: Arc<dyn NodeTransport>,
    more: &str,
) -> Trainer<B> {
    let number = transport.number();
    let config = config(folder, &format!("node-{number}"), more);
    let nodes = Arc::new(NodeGroup::new(transport));
    trainer_on_nodes(&config, even_partition(2, [2, 2]), 1, 5, Some(nodes))
}

fn config(folder: &tempfile::TempDir, output: &str, more: &str) -> RunConfig {
    run_config(&folder.path().join(output), 12, more)
}

fn saved(folder: &tempfile::TempDir, output: &str) -> [Vec<u8>; 3] {
    let path = folder.path().join(output).join("checkpoint-00000012");
    ["model.safetensors", "optimizer.safetensors", "state.json"]
        .map(|file| std::fs::read(path.join(file)).unwrap())
}

#[test]
fn two_nodes_train_to_the_bits_of_two_replicas_and_resume_to_them() {
    for optimizer in ["", "[optimizer]\nshard = true\nema_decay = 0.9\n"] {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let config = config(&folder, "alone", optimizer);
        let mut alone = trainer_on(&config, even_partition(2, [2, 2]), 2, 5);
        alone.run(&mut ()).unwrap();
        let shared = folder.clone();
        on_nodes(2, move |transport| on_node(&shared, transport, optimizer).run(&mut ()).unwrap());
        assert!(saved(&folder, "alone") == saved(&folder, "node-0"), "{optimizer}");
        assert!(!folder.path().join("node-1").exists(), "the second node has written something");
        assert_eq!(losses(&folder, "alone"), losses(&folder, "node-0"));

        // The second node has no checkpoint of its own to go on from.
        std::fs::remove_dir_all(folder.path().join("node-0/checkpoint-00000012")).unwrap();
        let shared = folder.clone();
        on_nodes(2, move |transport| {
            let mut trainer = on_node(&shared, transport, optimizer);
            assert!(trainer.resume().unwrap());
            assert_eq!(trainer.iteration(), 10);
            trainer.run(&mut ()).unwrap();
        });
        assert!(saved(&folder, "alone") == saved(&folder, "node-0"), "{optimizer}, resumed");
    }
}

/// Losses of training and of evaluations, as written.
fn losses(folder: &tempfile::TempDir, output: &str) -> Vec<(bool, u64, f64)> {
    let text = std::fs::read_to_string(folder.path().join(output).join("metrics.jsonl")).unwrap();
    let of_line = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let is_train = line.get("train").is_some();
        let report = &line[if is_train { "train" } else { "evaluation" }];
        (is_train, report["iteration"].as_u64().unwrap(), report["loss"].as_f64().unwrap())
    };
    text.lines().map(of_line).collect()
}

#[test]
fn a_node_with_other_data_or_weights_is_found_before_it_trains() {
    for (seeds, named) in
        [("seed", "the weights behind iteration 0"), ("data", "the data of batch 0")]
    {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let errors = on_nodes(2, move |transport| {
            let mut config = config(&folder, &format!("node-{}", transport.number()), "");
            match seeds {
                "seed" => config.seed = transport.number() as u64,
                _ => config.data.microbatches = Some(4 + transport.number() as u32),
            }
            let nodes = Arc::new(NodeGroup::new(transport));
            let partition = even_partition(2, [2, 2]);
            let mut trainer = trainer_on_nodes(&config, partition, 1, 5, Some(nodes));
            trainer.run(&mut ()).unwrap_err()
        });
        for (number, error) in errors.iter().enumerate() {
            let other = format!("node {} ", 1 - number);
            let text = error.to_string();
            assert!(matches!(error, TrainError::Node(_)), "{text}");
            assert!(text.starts_with(&other) && text.contains(named), "{text}");
        }
    }
}

#[test]
fn a_node_that_ends_in_the_middle_ends_the_others_with_its_reason() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let ends = on_nodes(2, move |transport| {
        let number = transport.number();
        let mut trainer = on_node(&folder, transport.clone(), "");
        trainer.step().unwrap();
        if number == 1 {
            transport.leave(Some("the test has stopped it"));
            return None;
        }
        let start = Instant::now();
        let error = loop {
            if let Err(error) = trainer.step() {
                break error.to_string();
            }
        };
        Some((error, start.elapsed()))
    });
    let (error, took) = ends[0].clone().unwrap();
    assert!(error.contains("node 1") && error.contains("the test has stopped it"), "{error}");
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn nodes_that_cut_the_model_in_another_way_are_told_before_they_train() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let errors = on_nodes(2, move |transport| {
        let number = transport.number();
        let config = config(&folder, &format!("node-{number}"), "");
        let nodes = Arc::new(NodeGroup::new(transport.clone()));
        let model = scenes_model();
        let init = PipelineInit {
            model: &model,
            partition: &even_partition(2, [[2, 2], [4, 2]][number]),
            devices: vec![Default::default(); 2],
            threads_per_rank: 1,
            precision: config.pipeline.precision,
            start: Start { seed: 0, weights: None },
            optimizer: &config.optimizer,
        };
        let error = Pipeline::<B>::on_nodes(&init, Some(nodes)).err().unwrap().to_string();
        transport.leave(Some(&error));
        error
    });
    for (number, error) in errors.iter().enumerate() {
        let other = format!("node {} differs from this node in the partition", 1 - number);
        assert!(error.starts_with(&other), "{error}");
    }
}
