//! The transport of MPI. Each test starts `mpirun` with the processes of its case, which are this test binary again.

use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dip_burn::runtime::ProcessGroup;
use dip_burn::runtime::transport::{MpiTransport, Transport, TransportGroup};

/// Names the case of a process.
const CASE: &str = "DIP_TEST_MPI";

/// Runs a case in `count` processes. Longer than two minutes is a hang.
fn run(case: &str, count: usize) -> Output {
    let mut command = Command::new("mpirun");
    command.args(["--allow-run-as-root", "--oversubscribe", "-np", &count.to_string()]);
    command.arg(std::env::current_exe().unwrap()).env(CASE, case);
    command.args(["--exact", "mpi::a_process", "--ignored", "--nocapture"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("mpirun is installed");
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > Duration::from_secs(120) {
            child.kill().unwrap();
            panic!("{case} hangs: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

#[test]
#[ignore = "one process of the other tests"]
fn a_process() {
    let transport: Arc<dyn Transport> = Arc::new(MpiTransport::connect().unwrap());
    let group: &dyn ProcessGroup = &TransportGroup::new(transport.clone());
    match std::env::var(CASE).unwrap().as_str() {
        "dropped" if group.index() == 1 => {}
        "dropped" => {
            let error = group.receive(1).unwrap_err().to_string();
            println!("found: {error}");
            group.leave(Some(&error));
        }
        "floods" => {
            floods(group);
            group.leave(None);
        }
        other => panic!("no case {other}"),
    }
}

/// Lengths of messages around those of pieces, and some that fill more than a round of sends.
const LENGTHS: [usize; 8] =
    [0, 1, 2048, 2049, 512 << 10, (512 << 10) + 1, (40 << 20) + 7, 41 << 20];

fn message(from: usize, to: usize, k: usize) -> Vec<u8> {
    let mut bytes = vec![(from * 16 + to) as u8; LENGTHS[k]];
    bytes.iter_mut().step_by(4096).enumerate().for_each(|(i, byte)| *byte = (i + k) as u8);
    bytes
}

/// All processes send much to all others before they look at what has come.
fn floods(group: &dyn ProcessGroup) {
    group.accept_bytes(64 << 20);
    group.agree("the start", String::new).unwrap();
    let own = group.index();
    let others = || (0..group.size()).filter(|&process| process != own);
    for k in 0..LENGTHS.len() {
        others().for_each(|to| group.send(to, message(own, to, k)));
    }
    for from in others() {
        for k in 0..LENGTHS.len() {
            let found = group.receive(from).unwrap();
            assert!(found == message(from, own, k), "message {k} from {from}: {}", found.len());
        }
    }
    println!("all have come");
    group.agree("the end", String::new).unwrap();
}

#[test]
fn processes_that_send_more_than_a_round_to_each_other_at_once_get_all_of_it_in_order() {
    let output = run("floods", 3);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text.matches("all have come").count(), 3, "{text}");
}

#[test]
fn a_process_that_drops_its_transport_without_leaving_ends_the_others() {
    let output = run("dropped", 2);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("found: process 1 (") && text.contains("without saying why"), "{text}");
}
