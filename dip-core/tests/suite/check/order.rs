//! Violations of the order of execution.

use dip_core::{Plan, Seconds, ViolationCode, check_plan, check_plan_json};

use super::{ORDER_0, ORDER_1, broken, expect, found};
use crate::GOLDEN;

#[test]
fn a_task_missing_in_the_order_is_named() {
    expect(&[(ORDER_0, "[0, 1, 6, 5]")], &["missing-task order[0]"]);
}

#[test]
fn a_rank_without_an_order_is_named_once() {
    expect(&[(ORDER_1, "[]")], &["rank-not-covered order[1]"]);
}

#[test]
fn a_task_listed_twice_is_named() {
    expect(&[(ORDER_0, "[0, 1, 6, 5, 10, 6]")], &["duplicate-task order[0][5]"]);
}

#[test]
fn a_task_on_the_wrong_rank_is_named() {
    expect(
        &[(ORDER_0, "[0, 1, 6, 5]"), (ORDER_1, "[2, 3, 7, 8, 4, 9, 10]")],
        &["wrong-rank order[1][6]"],
    );
    expect(&[(ORDER_0, "[2, 0, 1, 6, 5, 10]")], &["wrong-rank order[0][0]"]);
    expect(&[(ORDER_1, "[2, 3, 7, 8, 4, 9, 0]")], &["wrong-rank order[1][6]"]);
}

#[test]
fn an_order_in_deadlock_names_the_tasks_that_wait() {
    let text = broken(&[(ORDER_0, "[0, 5, 1, 6, 10]")]);
    assert_eq!(found(&text), ["order-deadlock order"]);
    let message = check_plan_json(&text).unwrap().violations[0].message.clone();
    assert!(message.contains("1 -> 5 -> 1") || message.contains("5 -> 1 -> 5"), "{message}");
}

#[test]
fn a_deadlock_across_ranks_is_found() {
    assert_eq!(
        found(&broken(&[(ORDER_0, "[0, 1, 5, 6, 10]"), (ORDER_1, "[2, 7, 3, 8, 4, 9]")])),
        ["order-deadlock order"]
    );
}

#[test]
fn a_weight_task_before_its_backward_is_named() {
    let mut plan = Plan::from_json(GOLDEN).unwrap();
    plan.graph.tasks[4].deps.clear();
    plan.order[1] = [2, 4, 3, 7, 8, 9].map(dip_core::TaskId).to_vec();
    let plan = Plan::new(plan.graph, "by-hand", plan.order, Seconds(11.0)).unwrap();
    let found: Vec<_> = check_plan(&plan).iter().map(|v| (v.code, v.path.clone())).collect();
    assert_eq!(found, [(ViolationCode::StageOrder, "order[1][1]".into())]);
}
