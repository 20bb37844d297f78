use dip_core::{Bytes, Plan, check_graph, check_plan, check_plan_json};
use proptest::prelude::*;

use crate::random::{self, Random, Size};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn the_timeline_agrees_with_the_checker_on_random_plans(seed: u64) {
        let plan = random::plan(seed, Size::default());
        prop_assert_eq!(check_plan(&plan), []);
        prop_assert_eq!(check_graph(&plan.graph), []);
    }

    #[test]
    fn a_random_plan_survives_its_text_form(seed: u64) {
        let plan = random::plan(seed, Size { microbatches: 2, ..Size::default() });
        let text = plan.to_json();
        prop_assert!(check_plan_json(&text).unwrap().is_ok());
        prop_assert_eq!(&Plan::from_json(&text).unwrap(), &plan);
        let graph = plan.graph.to_json();
        prop_assert_eq!(dip_core::TaskGraph::from_json(&graph).unwrap(), plan.graph);
    }

    #[test]
    fn a_limit_of_one_byte_below_the_peak_is_found(seed: u64) {
        let mut plan = random::plan(seed, Size::default());
        let rank = Random(seed).below(plan.graph.ranks as usize);
        let peak = plan.predicted.peak_bytes[rank];
        plan.graph.memory_limit_bytes[rank] = peak;
        prop_assert_eq!(check_plan(&plan), []);
        if peak > Bytes::ZERO {
            plan.graph.memory_limit_bytes[rank] = Bytes(peak.0 - 1);
            prop_assert_eq!(check_plan(&plan).len(), 1);
        }
    }

    #[test]
    fn a_changed_figure_gives_exactly_one_violation(seed: u64, up: bool) {
        let mut plan = random::plan(seed, Size::default());
        let n = plan.graph.tasks.len();
        let p = &mut plan.predicted;
        if n > 0 && p.makespan_s.0 > 0.0 {
            let start = &mut p.start_s[Random(seed).below(n)].0;
            let (step, before) = (0.01 * p.makespan_s.0, *start);
            *start = if up { before + step } else { (before - step).max(0.0) };
            if (*start - before).abs() > 0.1 * step {
                let violations = check_plan(&plan);
                prop_assert_eq!(violations.len(), 1, "{:?}", violations);
            }
        }
    }

    #[test]
    fn swapping_two_neighbours_is_found_or_harmless(seed: u64) {
        let plan = random::plan(seed, Size::default());
        let mut swapped = plan.clone();
        let mut random = Random(seed);
        let rank = random.below(swapped.order.len());
        let list = &mut swapped.order[rank];
        if list.len() >= 2 {
            let i = random.below(list.len() - 1);
            list.swap(i, i + 1);
            let again = Plan::new(swapped.graph.clone(), "random", swapped.order.clone(), plan.lower_bound_s);
            match again {
                Err(_) => prop_assert!(!check_plan(&swapped).is_empty()),
                Ok(again) => {
                    prop_assert_eq!(check_plan(&again), []);
                    let same = again.predicted == plan.predicted;
                    prop_assert!(same || close(&again, &plan) || !check_plan(&swapped).is_empty());
                }
            }
        }
    }
}

/// True if the figures of two plans are equal within the tolerance of the checker.
fn close(a: &Plan, b: &Plan) -> bool {
    let near = |x: f64, y: f64| {
        (x - y).abs() <= 2e-6 * x.abs().max(y.abs()).max(a.predicted.makespan_s.0 * 1e-3)
    };
    let times = |x: &[dip_core::Seconds], y: &[dip_core::Seconds]| {
        x.iter().zip(y).all(|(x, y)| near(x.0, y.0))
    };
    times(&a.predicted.start_s, &b.predicted.start_s)
        && times(&a.predicted.end_s, &b.predicted.end_s)
        && a.predicted.peak_bytes == b.predicted.peak_bytes
}
