//! Two nodes on ports of this machine train like two replicas of one process, and end together.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use burn::tensor::Tensor;
use burn_communication::websocket::{WsClient, WsClientChannel, WsServer, WsServerChannel};
use burn_communication::{CommunicationChannel, Message, ProtocolClient, ProtocolServer};
use dip_burn::model::Start;
use dip_burn::runtime::nodes::{
    Delivery, NodeError, NodeGroup, NodeTransport, NodesConfig, WebSocketTransport,
};
use dip_burn::runtime::{Bucket, Collective, Pipeline, PipelineInit, ThreadCollective};
use dip_burn::train::{RunConfig, TrainError, Trainer};

use crate::support::*;
use crate::training::{even_partition, run_config, scenes_model, trainer_on, trainer_on_nodes};

/// Free ports of this machine, for a node each.
fn addresses(count: usize) -> Vec<String> {
    let open = |_| TcpListener::bind("127.0.0.1:0").unwrap();
    let listeners: Vec<_> = (0..count).map(open).collect();
    listeners.iter().map(|l| format!("127.0.0.1:{}", l.local_addr().unwrap().port())).collect()
}

/// Runs `node` for every node on a thread of its own.
fn on_nodes<T: Send + 'static>(
    count: usize,
    node: impl Fn(Arc<dyn NodeTransport>) -> T + Clone + Send + 'static,
) -> Vec<T> {
    let addresses = addresses(count);
    let start = |number| {
        let mut config = NodesConfig::new(addresses.clone(), number);
        (config.patience, config.silence) = (Duration::from_secs(60), Duration::from_secs(10));
        let node = node.clone();
        std::thread::spawn(move || node(Arc::new(WebSocketTransport::connect(&config).unwrap())))
    };
    let threads: Vec<JoinHandle<T>> = (0..count).map(start).collect();
    threads.into_iter().map(|t| t.join().unwrap()).collect()
}

fn values(bucket: Bucket<B>) -> Vec<Option<Vec<f32>>> {
    bucket.into_iter().map(|x| x.map(|x| x.into_data().to_vec().unwrap())).collect()
}

fn part(values: &[f32]) -> Option<Tensor<B, 1>> {
    Some(Tensor::from_floats(values, &Default::default()))
}

#[test]
fn sums_over_three_nodes_have_the_bits_of_one_process_for_every_owner() {
    // In single precision 1 + 1e8 - 1e8 is 0 or 1, as the order has it. More than one frame is needed for the second tensor.
    let parts = [1.0f32, 1e8, -1e8];
    let long = |x: f32| vec![x; 3 << 20];
    let found = on_nodes(3, move |transport| {
        let number = transport.number();
        let nodes = NodeGroup::new(transport.clone());
        let layout = vec![vec![2, 1, 3 << 20]; 6];
        let own = transport.clone();
        let group = ThreadCollective::<B>::group_on_nodes(&[Default::default()], 0, layout, own);
        let member = group.unwrap().pop().unwrap();
        let sums: Vec<_> = (0..6)
            .map(|bucket| {
                let own = parts[number];
                let lone = if number == 1 { part(&[5.0]) } else { None };
                let second = if bucket == 2 { part(&long(own)) } else { None };
                member.contribute(bucket, vec![part(&[own, 0.1]), lone, second]).unwrap();
                values(member.sum(bucket).unwrap())
            })
            .collect();
        // Nobody leaves before all have their sums.
        nodes.agree("the end", "").unwrap();
        transport.leave(None);
        sums
    });
    let expected = Some(vec![1.0f32 + 1e8 - 1e8, 0.1f32 + 0.1 + 0.1]);
    for sums in &found {
        for (bucket, sum) in sums.iter().enumerate() {
            assert_eq!(sum[..2], [expected.clone(), Some(vec![5.0])], "{bucket}");
            assert_eq!(sum[2], (bucket == 2).then(|| long(1.0f32 + 1e8 - 1e8)));
        }
    }
}

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
fn a_node_that_does_not_come_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut nodes = addresses(2);
    // This port takes connections and never answers.
    nodes[1] = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
    let mut config = NodesConfig::new(nodes, 0);
    config.patience = Duration::from_secs(1);
    let start = Instant::now();
    let error = WebSocketTransport::connect(&config).err().unwrap().to_string();
    assert!(error.contains("node 1") && error.contains("has not come within 1 s"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10));
}

/// What a node of life 7 says when it opens a connection, and when it takes one.
fn hello(nodes: &[String], node: usize) -> String {
    let protocol = "dip.nodes/v2";
    serde_json::json!({ "protocol": protocol, "node": node, "addresses": nodes, "life": 7 })
        .to_string()
}

const WELCOME: &str = r#"{"welcome":{"life":7}}"#;

#[test]
fn a_node_that_falls_silent_is_given_up() {
    let nodes = addresses(2);
    // The second node opens its connections as one does, and hangs.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let hang = async |mut channel: WsServerChannel| {
        channel.recv().await.unwrap();
        channel.send(Message::new(WELCOME.into())).await.unwrap();
        while let Ok(Some(_)) = channel.recv().await {}
    };
    runtime.spawn(
        WsServer::new(port_of(&nodes[1])).route("nodes", hang).serve(std::future::pending()),
    );
    let hello = hello(&nodes, 1);
    let first = nodes[0].clone();
    runtime.spawn(async move {
        let _channel = greet(&first, hello).await;
        std::future::pending::<()>().await;
    });
    let mut config = NodesConfig::new(nodes.clone(), 0);
    (config.patience, config.silence) = (Duration::from_secs(20), Duration::from_secs(1));
    let group = NodeGroup::new(Arc::new(WebSocketTransport::connect(&config).unwrap()));
    let start = Instant::now();
    let error = group.all_gather(vec![1]).unwrap_err().to_string();
    assert!(error.contains("node 1") && error.contains("silent for 1 s"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    runtime.shutdown_background();
}

/// Connects to a node, says hello, and gives its answer, as long as there is none again and again.
async fn greet(address: &str, hello: String) -> (WsClientChannel, String) {
    loop {
        let address = format!("ws://{address}").parse().unwrap();
        if let Some(mut channel) = WsClient::connect(address, "nodes").await {
            channel.send(Message::new(hello.clone().into())).await.unwrap();
            let answer = channel.recv().await.unwrap().unwrap();
            return (channel, String::from_utf8(answer.data.to_vec()).unwrap());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn port_of(address: &str) -> u16 {
    address.rsplit_once(':').unwrap().1.parse().unwrap()
}

#[test]
fn a_node_that_is_started_again_waits_for_one_that_lingers_from_the_run_before() {
    let nodes = addresses(2);
    // The process of the run before answers that node 0 has come already, or hangs up, and ends in a while.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let linger = async move |mut channel: WsServerChannel| {
        channel.recv().await.unwrap();
        if counted.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
            let later = r#"{"later":"another process is node 0 already"}"#;
            let _ = channel.send(Message::new(later.into())).await;
        }
    };
    let server = WsServer::new(port_of(&nodes[1])).route("nodes", linger);
    let lingering = runtime.spawn(server.serve(std::future::pending()));
    let start = |number: usize| {
        let mut config = NodesConfig::new(nodes.clone(), number);
        (config.patience, config.silence) = (Duration::from_secs(60), Duration::from_secs(5));
        std::thread::spawn(move || {
            let transport = Arc::new(WebSocketTransport::connect(&config).unwrap());
            let group = NodeGroup::new(transport.clone());
            let all = group.all_gather(vec![number as u8]).unwrap();
            group.agree("the end", "").unwrap();
            transport.leave(None);
            all
        })
    };
    let first = start(0);
    let begin = Instant::now();
    while calls.load(Ordering::SeqCst) < 4 {
        assert!(begin.elapsed() < Duration::from_secs(20), "node 0 has not tried again");
        std::thread::sleep(Duration::from_millis(10));
    }
    lingering.abort();
    assert!(runtime.block_on(lingering).unwrap_err().is_cancelled());
    let second = start(1);
    for node in [first, second] {
        assert_eq!(node.join().unwrap(), [[0], [1]]);
    }
    runtime.shutdown_background();
}

#[test]
fn a_node_that_comes_twice_at_the_start_is_waited_for_until_it_is_reached() {
    let nodes = addresses(2);
    let mut config = NodesConfig::new(nodes.clone(), 0);
    (config.patience, config.silence) = (Duration::from_secs(60), Duration::from_secs(5));
    let first = std::thread::spawn(move || {
        let transport = WebSocketTransport::connect(&config).unwrap();
        let number = transport.number();
        transport.leave(None);
        number
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // A first process of node 1 comes and ends; while it is there, another is asked to wait.
    runtime.block_on(async {
        let (come, answer) = greet(&nodes[0], hello(&nodes, 1)).await;
        assert!(answer.contains("welcome"), "{answer}");
        let (_, answer) = greet(&nodes[0], hello(&nodes, 1)).await;
        assert!(answer.contains("another process is node 1 already"), "{answer}");
        let (_, answer) = greet(&nodes[0], hello(&nodes, 0)).await;
        assert!(answer.contains("never") && answer.contains("it is node 0, too"), "{answer}");
        let (_, answer) = greet(&nodes[0], "[".repeat(10_000)).await;
        assert!(answer.contains("a hello has 10000 bytes"), "{answer}");
        drop(come);
    });
    let mut config = NodesConfig::new(nodes, 1);
    config.patience = Duration::from_secs(60);
    let second = WebSocketTransport::connect(&config).unwrap();
    assert_eq!(first.join().unwrap(), 0);
    drop(second);
    runtime.shutdown_background();
}

#[test]
fn sums_that_fit_no_bucket_or_come_out_of_turn_end_the_run_with_their_node() {
    // Node 0 owns the first two buckets, node 1 the others. Kind, bucket, one tensor, which is there, its values.
    let message = |kind: u8, bucket: u64, values: &[f32]| {
        let mut bytes = vec![kind];
        bytes.extend([bucket.to_le_bytes(), 1u64.to_le_bytes()].concat());
        bytes.push(1);
        bytes.extend((values.len() as u64).to_le_bytes());
        bytes.extend(values.iter().flat_map(|x| x.to_le_bytes()));
        bytes
    };
    let (part, sum, two) = (0, 1, [1.0, 2.0]);
    let cases: Vec<(Vec<Vec<u8>>, &str)> = vec![
        (vec![message(part, 0, &[1.0])], "1 values of tensor 0 of bucket 0, which has 2"),
        (vec![message(sum, 2, &[1.0; 3])], "3 values of tensor 0 of bucket 2, which has 2"),
        (vec![message(part, 9, &two)], "bucket 9, but there are 4"),
        (vec![message(sum, 9, &two)], "bucket 9, but there are 4"),
        (vec![message(part, 0, &two); 2], "its part of bucket 0 twice"),
        (vec![message(sum, 2, &two)], "the sum of bucket 2 before all parts"),
        (vec![message(part, 2, &two)], "the owner of bucket 2, which is node 1"),
        (vec![message(sum, 0, &two)], "the owner of bucket 0, which is node 0"),
        (vec![vec![0; 17 << 20]], "more than 16777216 bytes"),
        (vec![vec![7; 3]], "cut short"),
    ];
    for (messages, expected) in cases {
        let errors = on_nodes(2, move |transport| {
            if transport.number() == 1 {
                messages.iter().for_each(|bytes| transport.send(&[0], 1, bytes.clone()));
                // Waits to be told of the failure of node 0.
                let group = NodeGroup::new(transport);
                return group.all_gather(Vec::new()).unwrap_err().to_string();
            }
            let layout = vec![vec![2]; 4];
            let device = Default::default();
            let own = transport.clone();
            let group = ThreadCollective::<B>::group_on_nodes(&[device], 0, layout, own).unwrap();
            assert!(group[0].sum(0).is_err());
            let error = transport.failure().unwrap().to_string();
            transport.leave(Some(&error));
            error
        });
        let [first, second] = &errors[..] else { panic!("two nodes") };
        assert!(first.starts_with("node 1 (") && first.contains(expected), "{first}");
        assert!(second.contains("has ended") && second.contains(expected), "{second}");
    }
}

#[test]
fn a_node_that_stops_in_the_middle_without_an_error_is_named() {
    for says_goodbye in [true, false] {
        let ends = on_nodes(2, move |transport| {
            if transport.number() == 1 {
                if says_goodbye {
                    transport.leave(None);
                }
                return String::new();
            }
            let layout = vec![vec![1]; 4];
            let device = Default::default();
            let own = transport.clone();
            let group = ThreadCollective::<B>::group_on_nodes(&[device], 0, layout, own).unwrap();
            // Bucket 2 is summed by the node that stops.
            let _ = group[0].contribute(2, vec![part(&[1.0])]);
            assert!(group[0].sum(2).is_err());
            transport.failure().unwrap().to_string()
        });
        let stopped = "stopped before the end of its run";
        assert!(ends[0].starts_with("node 1 (") && ends[0].contains(stopped), "{}", ends[0]);
    }
}

#[test]
fn a_sum_that_panics_is_told_with_its_node() {
    let ends = on_nodes(2, |transport| {
        let device = Default::default();
        let own = transport.clone();
        let layout = vec![vec![2]; 2];
        let mut group = ThreadCollective::<B>::group_on_nodes(&[device], 0, layout, own).unwrap();
        let member = group.pop().unwrap();
        // Parts that no rank has: a node looks through what others send, and trusts its own.
        let own = part(&[1.0, 2.0, 3.0][..3 - transport.number()]);
        let _ = member.contribute(0, vec![own]);
        assert!(member.sum(0).is_err());
        let error = transport.failure().unwrap().to_string();
        transport.leave(Some(&error));
        error
    });
    assert!(ends[0].starts_with("node 0 (") && ends[0].contains("failed to sum"), "{}", ends[0]);
    assert!(ends[1].contains("node 0 (") && ends[1].contains("failed to sum"), "{}", ends[1]);
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

#[test]
fn arguments_that_fit_no_nodes_are_named() {
    let fails = |addresses: &[&str], number, part: &str| {
        let addresses = addresses.iter().map(|a| (*a).to_owned()).collect();
        let config = NodesConfig::new(addresses, number);
        let error = WebSocketTransport::connect(&config).err().unwrap().to_string();
        assert!(error.contains(part), "{error}");
    };
    fails(&["a:1"], 0, "must name 2 to 1024 nodes");
    fails(&["a:1", "b"], 0, "--nodes is b, but must be host:port");
    fails(&["a:1", "b:0"], 0, "--nodes is b:0");
    for address in ["[::1]:1", "::1:1", "ws://b:1", "b c:1", "b/x:1", "u@b:1"] {
        fails(&["a:1", address], 0, "with a name or an IPv4 address");
    }
    fails(&["a:1", "a:1"], 0, "names this node twice");
    fails(&["a:1", "b:1"], 2, "--node is 2, but must be 0 to 1");
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let opened = [&format!("127.0.0.1:{port}"), "127.0.0.1:1"];
    fails(&opened, 0, "cannot be opened: Address already in use");
    let mut config = NodesConfig::new(vec!["a:1".into(), "b:1".into()], 0);
    config.silence = Duration::ZERO;
    let error = WebSocketTransport::connect(&config).err().unwrap().to_string();
    assert!(error.contains("silence is 0 s"), "{error}");
}

#[test]
fn nodes_of_different_lists_refuse_each_other() {
    let nodes = addresses(3);
    let lists = [vec![nodes[0].clone(), nodes[1].clone()], nodes];
    let threads: Vec<_> = lists
        .into_iter()
        .enumerate()
        .map(|(number, list)| {
            let mut config = NodesConfig::new(list, number);
            config.patience = Duration::from_secs(10);
            std::thread::spawn(move || WebSocketTransport::connect(&config).err().unwrap())
        })
        .collect();
    let errors: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    // Whoever looks at the other's list first knows itself; the other one is told.
    for (error, other) in errors.iter().zip([1, 0]) {
        let differs = matches!(error, NodeError::Differs { node, .. } if *node == other);
        let refused = matches!(error, NodeError::Refused { node, .. } if *node == other);
        assert!((differs || refused) && error.to_string().contains("--nodes"), "{error}");
    }
}

#[test]
fn messages_wait_for_their_listener_and_a_finished_node_is_told_of() {
    let ends = on_nodes(2, |transport| {
        if transport.number() == 1 {
            transport.send(&[0], 7, vec![1, 2, 3]);
            transport.leave(None);
            return Vec::new();
        }
        let start = Instant::now();
        while !left(&transport) {
            assert!(start.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(5));
        }
        let (sender, found) = std::sync::mpsc::channel();
        transport.listen(7, Box::new(move |delivery| sender.send(delivery).unwrap()));
        assert_eq!(transport.failure(), None);
        found.try_iter().collect()
    });
    let message = Delivery::Message { from: 1, bytes: vec![1, 2, 3] };
    assert_eq!(ends[0], [message, Delivery::Left { from: 1 }]);
}

/// Whether the other node has left.
fn left(transport: &Arc<dyn NodeTransport>) -> bool {
    let (sender, found) = std::sync::mpsc::channel();
    transport.listen(99, Box::new(move |delivery| drop(sender.send(delivery))));
    found.try_iter().any(|delivery| delivery == Delivery::Left { from: 1 })
}
