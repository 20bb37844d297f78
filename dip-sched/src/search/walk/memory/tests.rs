//! Loose walks pay for exactly the memory they exceed.

use dip_core::{
    Bytes, Dep, MicrobatchId, RankId, Seconds, SegmentId, Strategy, SubMicrobatchId, Task,
    TaskGraph, TaskId, TaskKind,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::problem::{Problem, Solution};
use crate::search::walk::moves::allowed;

/// Forwards and backwards of eight microbatches on one rank with room for two of them.
fn graph() -> TaskGraph {
    let task = |id: usize| Task {
        id: TaskId::from(id),
        rank: RankId::from(0),
        kind: if id.is_multiple_of(2) { TaskKind::Forward } else { TaskKind::Backward },
        module: "m".into(),
        segment: SegmentId(0),
        microbatch: MicrobatchId::from(id / 2),
        sub_microbatch: SubMicrobatchId(0),
        duration_s: Seconds(1.0 + (id % 3) as f64),
        activation_bytes: Bytes(if id.is_multiple_of(2) { 5 + id as u64 % 3 } else { 0 }),
        strategy: Strategy::keep(),
        deps: (0..id % 2)
            .map(|_| Dep { task: TaskId::from(id - 1), comm_s: Seconds(0.0) })
            .collect(),
        candidates: Vec::new(),
    };
    TaskGraph {
        model: "chain".into(),
        cluster: "none".into(),
        ranks: 1,
        memory_limit_bytes: vec![Bytes(12)],
        static_bytes: vec![Bytes(0)],
        tasks: (0..16).map(task).collect(),
    }
}

#[test]
fn the_toll_of_a_move_is_the_price_of_the_excess_after_it() {
    let problem = Problem::new(&graph(), "test").unwrap();
    let first = Solution {
        order: vec![(0..16).collect()],
        choice: problem.fastest(),
        makespan: f64::INFINITY,
    };
    let mut graph = DisjunctiveGraph::new(&problem, &first).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let draw = |rng: &mut ChaCha8Rng| {
        let (from, to) = (rng.random_range(0..16), rng.random_range(0..16));
        Shift { rank: 0, from, to }
    };
    for _ in 0..100 {
        // Every move must fit, so the order stays within memory.
        if let Some(shift) = allowed(&graph, draw(&mut rng)) {
            graph.shift(shift);
        }
        assert_eq!((graph.overfull(0).count(), graph.fits()), (0, true));
    }
    graph.loosen();
    let mut exceeded = 0;
    for _ in 0..300 {
        let Some(shift) = allowed(&graph, draw(&mut rng)) else { continue };
        let toll = graph.toll(shift);
        assert!(graph.shift(shift));
        let overflow = graph.overflow.as_ref().unwrap();
        assert!((toll - overflow.price_of(overflow.total())).abs() < 1e-9 * (1.0 + toll));
        assert_eq!(graph.fits(), graph.overfull(0).count() == 0);
        exceeded += u32::from(!graph.fits());
    }
    assert!(exceeded > 100, "{exceeded}");
    assert!(graph.load(&first) && graph.overflow.is_none());
}
