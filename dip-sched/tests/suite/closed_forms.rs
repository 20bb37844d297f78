use dip_core::{Environment, Plan, check_plan};
use dip_sched::schedule_by_name;

use crate::support::Chain;

fn plan(schedule: &str, chain: &Chain) -> Plan {
    let schedule = schedule_by_name(schedule).unwrap();
    let plan = schedule.plan(&chain.graph(), &Environment::default()).unwrap();
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
