//! What messages between processes cost: start-up, decisions of all, a plan sent to all, sums of gradients, and a ping-pong.
//!
//! `mpirun -np 4 target/release/examples/processes`, built with `cargo build --release -p dip-burn --features mpi --example processes`. The first
//! process prints a line of JSON. `scripts/processes/measure.py` runs it with growing numbers of processes.

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::Tensor;
use dip_burn::backend::{Cpu, cpu_devices};
use dip_burn::runtime::transport::{MpiTransport, Transport, TransportGroup};
use dip_burn::runtime::{
    CollectiveFactory, GroupError, ProcessGrid, ProcessGroup, ProcessPlacement, RankReplicas,
    ThreadCollectives,
};
use dip_core::RankId;
use serde_json::{Value, json};

/// Repetitions; the median counts.
const REPETITIONS: usize = 9;
/// Bytes of a plan of some thousand tasks.
const PLAN_BYTES: usize = 1 << 20;
/// Gradients that are summed: 4 buckets of 2^20 values.
const BUCKETS: usize = 4;
const VALUES: usize = 1 << 20;
/// Sizes of the messages of the ping-pong.
const SIZES: [usize; 5] = [1, 4 << 10, 256 << 10, 4 << 20, 64 << 20];

fn main() -> Result<(), Box<dyn Error>> {
    let begin = Instant::now();
    let transport: Arc<dyn Transport> = Arc::new(MpiTransport::connect()?);
    let group: &dyn ProcessGroup = &TransportGroup::new(transport.clone());
    group.accept_bytes(2 * SIZES[SIZES.len() - 1]);
    group.agree("the start", String::new)?;
    let start_s = begin.elapsed().as_secs_f64();
    let found = json!({
        "processes": group.size(),
        "start_s": start_s,
        "agree_s": median(group, || group.agree("a decision", String::new))?,
        "plan_s": median(group, || group.broadcast(vec![1; PLAN_BYTES]).map(drop))?,
        "sums_s": sums(&transport, group)?,
        "ping_pong": if group.size() == 2 { ping_pong(group)? } else { Value::Null },
    });
    if group.is_first() {
        println!("{found}");
    }
    transport.leave(None);
    Ok(())
}

/// The median time of something that all processes do.
fn median(
    group: &dyn ProcessGroup,
    mut all: impl FnMut() -> Result<(), GroupError>,
) -> Result<f64, GroupError> {
    let mut seconds = Vec::new();
    for _ in 0..REPETITIONS {
        group.agree("the next", String::new)?;
        let begin = Instant::now();
        all()?;
        // The last of them counts.
        group.agree("the end", String::new)?;
        seconds.push(begin.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[REPETITIONS / 2])
}

/// Seconds of the sums of a replica's gradients over all processes.
fn sums(transport: &Arc<dyn Transport>, group: &dyn ProcessGroup) -> Result<f64, Box<dyn Error>> {
    if group.size() == 1 {
        return Ok(0.0);
    }
    let grid = ProcessGrid::new(1, group.size(), group.size(), ProcessPlacement::RanksFirst)?;
    let devices = cpu_devices(1);
    let buckets = REPETITIONS * BUCKETS;
    let layout = vec![vec![VALUES]; buckets];
    let replicas = RankReplicas::<Cpu>::new(RankId(0), &devices, layout);
    let mut members = ThreadCollectives::over(transport.clone(), grid).connect(replicas)?;
    let member = members.remove(0);
    let mut next = 0..buckets;
    let all = || {
        let buckets: Vec<usize> = next.by_ref().take(BUCKETS).collect();
        let gone = |_| transport.failure().expect("a replica that is gone has failed");
        for &bucket in &buckets {
            let part = Tensor::ones([VALUES], &devices[0]);
            member.contribute(bucket, vec![Some(part)]).map_err(gone)?;
        }
        buckets.iter().try_for_each(|&bucket| member.sum(bucket).map(drop)).map_err(gone)
    };
    Ok(median(group, all)?)
}

/// For each size: seconds of a message and the answer of one byte, the least of all repetitions.
fn ping_pong(group: &dyn ProcessGroup) -> Result<Value, GroupError> {
    let mut rows = Vec::new();
    for bytes in SIZES {
        let mut least = f64::INFINITY;
        for _ in 0..REPETITIONS {
            if group.is_first() {
                let message = vec![1; bytes];
                let begin = Instant::now();
                group.send(1, message);
                group.receive(1)?;
                least = least.min(begin.elapsed().as_secs_f64());
            } else {
                group.receive(0)?;
                group.send(0, vec![1]);
            }
        }
        rows.push(json!({ "bytes": bytes, "seconds": least }));
    }
    Ok(Value::Array(rows))
}
