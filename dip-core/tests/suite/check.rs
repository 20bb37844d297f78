use dip_core::graph::TaskGraph;
use dip_core::{Bytes, Plan, Seconds, ViolationCode, check_graph, check_plan, check_plan_json};

use crate::GOLDEN;

/// The golden plan with one passage replaced.
fn broken(from: &str, to: &str) -> String {
    assert_eq!(GOLDEN.matches(from).count(), 1, "{from:?} must stand once in the golden plan");
    GOLDEN.replace(from, to)
}

/// What the checker finds, as `code path`.
fn found(text: &str) -> Vec<String> {
    let report = check_plan_json(text).expect("the document is JSON");
    report.violations.iter().map(|v| format!("{} {}", v.code, v.path)).collect()
}

#[test]
fn the_golden_plan_is_right() {
    let report = check_plan_json(GOLDEN).unwrap();
    assert!(report.is_ok(), "{report}");
    assert_eq!(
        report.to_string(),
        "OK: by-hand plan of golden on two-ranks: 11 tasks on 2 ranks, makespan 15.00 s (bound 11.00 s), \
         bubble 30.0 %, peak 100 B"
    );
    let plan = Plan::from_json(GOLDEN).unwrap();
    assert_eq!(check_plan(&plan), []);
    assert_eq!(check_graph(&plan.graph), []);
    assert_eq!(Plan::from_json(&plan.to_json()).unwrap(), plan);
    assert_eq!(TaskGraph::from_json(&plan.graph.to_json()).unwrap(), plan.graph);
}
