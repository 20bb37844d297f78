use dip_core::{Bytes, Environment, Plan, ScheduleError, TaskGraph, check_plan};
use dip_sched::schedule_by_name;

use crate::generate::two_chunks;
use crate::support::Chain;

fn plan(schedule: &str, chain: &Chain) -> Plan {
    plan_graph(schedule, &chain.graph())
}

fn plan_graph(schedule: &str, graph: &TaskGraph) -> Plan {
    let schedule = schedule_by_name(schedule).unwrap();
    let plan = schedule.plan(graph, &Environment::default()).unwrap();
    let report = check_plan(&plan);
    assert!(report.is_empty(), "{report:?}");
    plan
}

fn makespans(schedule: &str, chunks: u32, of: impl Fn(Chain) -> Chain) -> [f64; 3] {
    [(4, 8), (8, 16), (8, 64)].map(|(ranks, microbatches)| {
        let chain = of(Chain::uniform(ranks, microbatches, chunks));
        plan(schedule, &chain).predicted.makespan_s.0
    })
}

#[test]
fn one_f_one_b_and_gpipe_take_as_long() {
    assert_eq!(makespans("gpipe", 1, |c| c), [33000.0, 69000.0, 213_000.0]);
    assert_eq!(makespans("1f1b", 1, |c| c), [33000.0, 69000.0, 213_000.0]);
}

#[test]
fn one_f_one_b_holds_as_many_microbatches_as_ranks_follow() {
    let plan = plan("1f1b", &Chain::uniform(4, 8, 1));
    let peaks: Vec<u64> = plan.predicted.peak_bytes.iter().map(|b| b.0).collect();
    assert_eq!(peaks, [4, 3, 2, 1]);
}

#[test]
fn two_chunks_a_rank_halve_the_bubble() {
    assert_eq!(makespans("interleaved", 2, |c| c), [28500.0, 58500.0, 202_500.0]);
}

#[test]
fn zb_h1_fills_two_thirds_of_the_bubble() {
    assert_eq!(makespans("zero_bubble", 1, Chain::split), [27000.0, 55000.0, 199_000.0]);
}

#[test]
fn the_search_is_at_least_as_good_as_schedules_made_by_hand() {
    for chunks in [1, 2] {
        for split in [false, true] {
            let of = |c: Chain| if split { c.split() } else { c };
            let ours = makespans("dip", chunks, of);
            for name in ["gpipe", "1f1b", "interleaved", "zero_bubble"] {
                for (ours, theirs) in ours.iter().zip(makespans(name, chunks, of)) {
                    assert!(*ours <= theirs, "{name}, {chunks} chunks: {ours} > {theirs}");
                }
            }
        }
    }
}

/// A wave of equal tasks of 500 s, with unlimited memory. A microbatch takes 3,000 s of a rank.
fn wave(ranks: usize, microbatches: usize) -> TaskGraph {
    let mut graph = two_chunks(ranks, microbatches, true, true);
    graph.memory_limit_bytes.fill(Bytes::UNLIMITED);
    graph
}

/// The time by which a plan is longer than the load of a rank, in tasks, and the pairs that the fullest rank holds.
fn bubble_and_pairs(schedule: &str, ranks: usize, microbatches: usize) -> (f64, u64) {
    let plan = plan_graph(schedule, &wave(ranks, microbatches));
    let peak = plan.predicted.peak_bytes.iter().map(|b| b.0).max().unwrap();
    let pairs = peak - plan.graph.static_bytes[0].0;
    (plan.predicted.makespan_s.0 / 500.0 - 6.0 * microbatches as f64, pairs)
}

#[test]
fn zbv_waits_only_while_the_pipeline_fills() {
    for (ranks, microbatches) in [(2, 3), (4, 8), (8, 16), (8, 64), (16, 32)] {
        let (bubble, pairs) = bubble_and_pairs("zbv", ranks, microbatches);
        // The last rank starts after `ranks - 1` forwards.
        assert_eq!(bubble, ranks as f64 - 1.0, "{ranks}, {microbatches}");
        assert_eq!(pairs, 2 * ranks as u64, "{ranks}, {microbatches}");
    }
}

#[test]
fn v_half_holds_half_and_waits_half_as_long() {
    for (ranks, microbatches) in [(4, 8), (4, 32), (6, 12), (8, 16), (8, 64), (16, 32)] {
        let (bubble, pairs) = bubble_and_pairs("v_half", ranks, microbatches);
        let bubble_of_1f1b = 6.0 * (ranks as f64 - 1.0);
        assert_eq!(bubble, bubble_of_1f1b / 2.0 - 2.0, "{ranks}, {microbatches}");
        // (p + 2) / 2 microbatches of two chunks.
        assert_eq!(pairs, ranks as u64 + 2, "{ranks}, {microbatches}");
    }
}

#[test]
fn v_min_holds_a_third_and_waits_two_thirds_as_long() {
    for (ranks, microbatches) in [(4, 8), (6, 12), (6, 24), (8, 16), (8, 64), (16, 32)] {
        let (bubble, pairs) = bubble_and_pairs("v_min", ranks, microbatches);
        let bubble_of_1f1b = 6.0 * (ranks as f64 - 1.0);
        assert!(bubble <= 2.0 * bubble_of_1f1b / 3.0, "{ranks}, {microbatches}: {bubble}");
        // At most (p + 4) / 3 microbatches of two chunks.
        assert!(3 * pairs <= 2 * (ranks as u64 + 4), "{ranks}, {microbatches}: {pairs}");
    }
}

#[test]
fn dualpipe_v_has_its_published_bubble_and_memory() {
    for (ranks, microbatches) in [(2, 4), (4, 8), (4, 10), (8, 16), (8, 64)] {
        let (bubble, pairs) = bubble_and_pairs("dualpipe_v", ranks, microbatches);
        // (PP / 2 - 1) (F&B + B - 3 W) for PP = 2 p stages and B = 2. F&B counts as B: its forward runs before it, while the rank
        // that waits for its input gradient does the same.
        assert_eq!(bubble, ranks as f64 - 1.0, "{ranks}, {microbatches}");
        // PP + 1 activations of one stage.
        assert_eq!(pairs, 2 * ranks as u64 + 1, "{ranks}, {microbatches}");
    }
}

#[test]
fn wave_schedules_refuse_other_graphs() {
    for name in ["zbv", "v_half", "v_min", "dualpipe_v"] {
        let schedule = schedule_by_name(name).unwrap();
        let refused = schedule.plan(&two_chunks(4, 8, false, true), &Environment::default());
        let Err(ScheduleError::NotApplicable { reason, .. }) = refused else {
            panic!("{name} accepts a loop")
        };
        assert!(reason.contains("0, 1, 2, 3, 0, 1, 2, 3"), "{name}: {reason}");
    }
    let few = schedule_by_name("dualpipe_v").unwrap().plan(&wave(4, 7), &Environment::default());
    assert!(few.unwrap_err().to_string().contains("7 microbatches are fewer than two"));
}
