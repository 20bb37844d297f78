use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use dip_burn::runtime::transport::{Receive, Transport, TransportGroup};
use dip_burn::runtime::{GroupError, ProcessGroup};

use super::{member, on_processes, part};

/// The outgoing network of a process: limits its speed and counts its bytes.
struct Network {
    transport: Arc<dyn Transport>,
    outgoing: Sender<Outgoing>,
    bytes: AtomicUsize,
}

type Outgoing = (usize, u32, Vec<u8>);

impl Network {
    fn new(transport: Arc<dyn Transport>, bytes_per_s: f64) -> Self {
        let (outgoing, queue) = channel::<Outgoing>();
        let to_all = transport.clone();
        std::thread::spawn(move || {
            for (to, channel, bytes) in queue {
                std::thread::sleep(Duration::from_secs_f64(bytes.len() as f64 / bytes_per_s));
                to_all.send(&[to], channel, bytes);
            }
        });
        Self { transport, outgoing, bytes: AtomicUsize::new(0) }
    }
}

impl Transport for Network {
    fn index(&self) -> usize {
        self.transport.index()
    }

    fn size(&self) -> usize {
        self.transport.size()
    }

    fn host(&self, process: usize) -> String {
        self.transport.host(process)
    }

    fn send(&self, to: &[usize], channel: u32, bytes: Vec<u8>) {
        for &to in to {
            self.bytes.fetch_add(bytes.len(), Ordering::SeqCst);
            self.outgoing.send((to, channel, bytes.clone())).unwrap();
        }
    }

    fn allow(&self, channel: u32, most_bytes: usize) {
        self.transport.allow(channel, most_bytes);
    }

    fn listen(&self, channel: u32, receiver: Receive) {
        self.transport.listen(channel, receiver);
    }

    fn reject(&self, process: usize, what: &str) {
        self.transport.reject(process, what);
    }

    fn failure(&self) -> Option<GroupError> {
        self.transport.failure()
    }

    fn leave(&self, error: Option<&str>) {
        self.transport.leave(error);
    }
}

/// Sums one bucket of tensors of these lengths over processes that send `bytes_per_s`. Returns the bytes that every process has sent, and
/// its seconds.
fn summed(processes: usize, lengths: &'static [usize], bytes_per_s: f64) -> Vec<(usize, f64)> {
    on_processes(processes, move |transport| {
        let network = Arc::new(Network::new(transport.clone(), bytes_per_s));
        let member = member(network.clone(), vec![lengths.to_vec()]);
        let group: &dyn ProcessGroup = &TransportGroup::new(transport.clone());
        let bucket: Vec<_> = lengths.iter().map(|&length| part(&vec![1.0; length])).collect();
        group.agree("the start", String::new).unwrap();
        let begin = Instant::now();
        member.contribute(0, bucket).unwrap();
        member.sum(0).unwrap();
        let seconds = begin.elapsed().as_secs_f64();
        group.agree("the end", String::new).unwrap();
        transport.leave(None);
        (network.bytes.load(Ordering::SeqCst), seconds)
    })
}

#[test]
fn processes_share_the_traffic_of_one_bucket() {
    let (processes, lengths) = (3, &[1000, 7, 90_000, 1]);
    let values: usize = lengths.iter().sum();
    // A process sends its part of every other process's slice, and the sum of its own slice to every other process.
    let fair = 2 * 4 * values * (processes - 1) / processes;
    for (sent, _) in summed(processes, lengths, f64::INFINITY) {
        assert!(sent.abs_diff(fair) < 1000, "{sent} of {fair} bytes");
    }
}

#[test]
#[ignore = "prints the times of sums over processes: run only this test, in a release build, with --nocapture"]
fn sums_of_one_bucket_are_timed() {
    for (processes, bytes_per_s) in [(2, 125e6), (4, 125e6), (2, 25e6), (4, 25e6)] {
        let found = summed(processes, &[4 << 20; 2], bytes_per_s);
        let mib = found.iter().map(|(bytes, _)| bytes >> 20).max().unwrap_or(0);
        let seconds = found.iter().map(|(_, seconds)| *seconds).fold(0.0, f64::max);
        println!(
            "32 MiB on {processes} processes of {} MB/s: {mib} MiB from one at most, {seconds:.2} s",
            bytes_per_s / 1e6
        );
    }
}
