use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use burn_communication::websocket::{WsClient, WsClientChannel, WsServer, WsServerChannel};
use burn_communication::{CommunicationChannel, Message, ProtocolClient, ProtocolServer};
use dip_burn::runtime::nodes::{
    Delivery, NodeGroup, NodeTransport, NodesConfig, WebSocketTransport,
};
use dip_burn::runtime::{GroupError, ProcessGroup};

use super::{addresses, on_nodes};

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

/// The hello of a node of life 7; [`WELCOME`] is its answer to an admitted node.
fn hello(nodes: &[String], node: usize) -> String {
    let protocol = "dip.nodes/v1";
    serde_json::json!({ "protocol": protocol, "node": node, "addresses": nodes, "life": 7 })
        .to_string()
}

const WELCOME: &str = r#"{"welcome":{"life":7}}"#;

/// The heartbeat that a node sends as soon as it is welcome, and then at intervals.
const HEARTBEAT: &[u8] = &[0];

#[test]
fn a_silent_node_ends_the_others() {
    let nodes = addresses(2);
    // The second node opens its connections properly, and then hangs.
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
        let (mut channel, _) = greet(&first, hello).await;
        channel.send(Message::new(HEARTBEAT.to_vec().into())).await.unwrap();
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

/// Connects to a node, says hello, and returns its answer; retries until there is one.
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
fn a_restarted_node_waits_for_a_node_that_lingers_from_the_previous_run() {
    let nodes = addresses(2);
    // The process of the previous run answers that node 0 is connected already, or hangs up; it ends after some calls.
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
            let group: &dyn ProcessGroup = &NodeGroup::new(transport.clone());
            let all = group.all_gather(vec![number as u8]).unwrap();
            group.agree("the end", String::new).unwrap();
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
fn a_node_that_connects_twice_at_the_start_is_awaited_until_it_is_reached() {
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
    // A first process of node 1 connects and ends; while it is connected, a second process is asked to wait.
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
fn strangers_who_connect_and_say_nothing_do_not_keep_nodes_apart() {
    let nodes = addresses(2);
    let start = |number: usize| {
        let mut config = NodesConfig::new(nodes.clone(), number);
        config.patience = Duration::from_secs(60);
        std::thread::spawn(move || {
            let transport = WebSocketTransport::connect(&config).unwrap();
            transport.leave(None);
        })
    };
    let first = start(0);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // More connections than the hellos that a node waits for at once.
    let silent = runtime.block_on(async {
        let mut silent = Vec::new();
        while silent.len() < 12 {
            let address = format!("ws://{}", nodes[0]).parse().unwrap();
            silent.extend(WsClient::connect(address, "nodes").await);
        }
        silent
    });
    start(1).join().unwrap();
    first.join().unwrap();
    drop(silent);
    runtime.shutdown_background();
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
    // The node that reads the other's list first sees the difference itself; it tells the other node.
    for (error, other) in errors.iter().zip([1, 0]) {
        let differs = matches!(error, GroupError::Differs { node, .. } if *node == other);
        let refused = matches!(error, GroupError::Refused { node, .. } if *node == other);
        assert!((differs || refused) && error.to_string().contains("--nodes"), "{error}");
    }
}

#[test]
fn messages_wait_for_their_listener_and_the_end_of_a_node_is_delivered() {
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
        let error = NodeGroup::new(transport).all_gather(Vec::new()).unwrap_err().to_string();
        assert!(error.starts_with("node 1 (127.0.0.1:") && error.contains("stopped"), "{error}");
        found.try_iter().collect()
    });
    let message = Delivery::Message { from: 1, bytes: vec![1, 2, 3] };
    assert_eq!(ends[0], [message, Delivery::Left { from: 1 }]);
}

/// True if the other node has left.
fn left(transport: &Arc<dyn NodeTransport>) -> bool {
    let (sender, found) = std::sync::mpsc::channel();
    transport.listen(99, Box::new(move |delivery| drop(sender.send(delivery))));
    found.try_iter().any(|delivery| delivery == Delivery::Left { from: 1 })
}
