//! The checker, one test per violation code.

mod figures;
mod form;
mod graph;
mod order;

use dip_core::check_plan_json;

use crate::GOLDEN;

/// The golden plan with passages replaced. Each passage occurs once.
fn broken(changes: &[(&str, &str)]) -> String {
    changes.iter().fold(GOLDEN.into(), |text: String, (from, to)| {
        assert_eq!(text.matches(from).count(), 1, "{from:?} must occur once in the golden plan");
        text.replace(from, to)
    })
}

/// The violations of a text, as `code path`.
fn found(text: &str) -> Vec<String> {
    let report = check_plan_json(text).expect("the document is JSON");
    report.violations.iter().map(|v| format!("{} {}", v.code, v.path)).collect()
}

#[track_caller]
fn expect(changes: &[(&str, &str)], expected: &[&str]) {
    assert_eq!(found(&broken(changes)), expected);
}

const ORDER_0: &str = "[0, 1, 6, 5, 10]";
const ORDER_1: &str = "[2, 3, 7, 8, 4, 9]";
const START: &str = "[0.0, 1.0, 3.5, 5.5, 11.5, 8.0, 3.0, 7.5, 9.5, 12.5, 12.0]";
const END: &str = "[1.0, 3.0, 5.5, 7.5, 12.5, 11.0, 5.0, 9.5, 11.5, 13.5, 15.0]";
/// Parts of tasks that occur once in the golden plan.
const TASK_0: &str = r#"{"id": 0, "rank": 0, "kind": "forward""#;
const TASK_2: &str = r#"{"id": 2, "rank": 1, "kind": "forward""#;
const TASK_3: &str = r#"{"id": 3, "rank": 1, "kind": "backward""#;
const TASK_4: &str = r#"{"id": 4, "rank": 1, "kind": "weight", "module": "lm", "segment": 0"#;
const DURATION_0: &str = r#""duration_s": 1.0, "activation_bytes": 5, "strategy": "keep""#;
const DEPS_3: &str =
    r#""duration_s": 2.0, "activation_bytes": 0, "strategy": "keep", "deps": [{"task": 2"#;
const DEP_2: &str = r#"{"task": 1, "comm_s": 0.5}"#;
