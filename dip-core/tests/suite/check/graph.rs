//! Violations of the stages and their dependencies.

use dip_core::{Plan, Seconds, TaskGraph, ViolationCode, check_graph, check_plan_json};

use super::{DEP_2, DEPS_3, TASK_3, TASK_4, broken, expect, found};
use crate::GOLDEN;

#[test]
fn dependencies_in_a_cycle_are_named() {
    let report = check_plan_json(&broken(&[(DEP_2, r#"{"task": 4, "comm_s": 0.5}"#)])).unwrap();
    assert_eq!(report.violations.len(), 1, "{report}");
    let violation = &report.violations[0];
    assert_eq!(violation.code, ViolationCode::DependencyCycle);
    let named = ["2 -> 3 -> 4 -> 2", "3 -> 4 -> 2 -> 3", "4 -> 2 -> 3 -> 4"];
    assert!(named.iter().any(|c| violation.message.contains(c)), "{report}");
}

#[test]
fn a_task_that_depends_on_itself_is_a_cycle() {
    let report = check_plan_json(&broken(&[(DEP_2, r#"{"task": 2, "comm_s": 0.0}"#)])).unwrap();
    assert_eq!(report.violations.len(), 1, "{report}");
    assert_eq!(report.violations[0].code, ViolationCode::DependencyCycle);
    assert!(report.violations[0].message.contains("tasks 2 -> 2;"), "{report}");
}

#[test]
fn two_edges_between_the_same_tasks_are_named() {
    for twice in ["0.5", "0.25"] {
        let deps = format!("{DEP_2}, {{\"task\": 1, \"comm_s\": {twice}}}");
        let text = broken(&[(DEP_2, &deps)]);
        assert_eq!(found(&text), ["duplicate-dependency tasks[2].deps[1]"]);
        let error = Plan::from_json(&text).unwrap_err().to_string();
        assert!(error.contains("keep one edge"), "{error}");
    }
    let mut graph = Plan::from_json(GOLDEN).unwrap().graph;
    let again = graph.tasks[2].deps[0];
    graph.tasks[2].deps.push(again);
    let error = TaskGraph::from_json(&graph.to_json()).unwrap_err().to_string();
    assert!(error.contains("duplicate-dependency at tasks[2].deps[1]"), "{error}");
}

#[test]
fn a_long_cycle_is_shortened() {
    let mut graph = Plan::from_json(GOLDEN).unwrap().graph;
    let n = 40;
    for i in 0..n {
        let mut task = graph.tasks[0].clone();
        task.id = dip_core::TaskId(11 + i);
        task.microbatch = dip_core::MicrobatchId(10 + i);
        let before = dip_core::TaskId(11 + (i + n - 1) % n);
        task.deps = vec![dip_core::Dep { task: before, comm_s: Seconds::ZERO }];
        graph.tasks.push(task);
    }
    let violations = check_graph(&graph);
    assert_eq!(violations.len(), 1);
    assert!(violations[0].message.contains("... (40 tasks in all) -> "), "{}", violations[0]);
}

#[test]
fn a_graph_whose_forward_waits_for_its_own_backward_has_a_cycle() {
    let mut graph = Plan::from_json(GOLDEN).unwrap().graph;
    graph.tasks[3].deps.clear();
    graph.tasks[2].deps[0].task = dip_core::TaskId(3);
    let codes: Vec<_> = check_graph(&graph).iter().map(|v| v.code).collect();
    assert_eq!(codes, [ViolationCode::DependencyCycle]);
}

#[test]
fn a_duplicate_stage_is_named() {
    let text = broken(&[(
        r#"{"id": 9, "rank": 1, "kind": "weight", "module": "lm", "segment": 0, "microbatch": 1"#,
        r#"{"id": 9, "rank": 1, "kind": "weight", "module": "lm", "segment": 0, "microbatch": 0"#,
    )]);
    assert!(found(&text).contains(&"duplicate-stage tasks[9]".into()), "{:?}", found(&text));
}

#[test]
fn a_backward_without_its_forward_is_named() {
    let text = broken(&[(
        r#"{"id": 10, "rank": 0, "kind": "backward", "module": "lm", "segment": 0"#,
        r#"{"id": 10, "rank": 0, "kind": "backward", "module": "lm", "segment": 1"#,
    )]);
    let found = found(&text);
    assert_eq!(found, ["unpaired-stage tasks[6]", "unpaired-stage tasks[10]"]);
}

#[test]
fn a_weight_task_without_its_backward_is_named() {
    let other = TASK_4.replace("\"segment\": 0", "\"segment\": 3");
    assert!(found(&broken(&[(TASK_4, &other)])).contains(&"unpaired-stage tasks[4]".into()));
}

#[test]
fn a_forward_without_backward_is_named_only_if_its_module_runs_backwards() {
    let mut graph = Plan::from_json(GOLDEN).unwrap().graph;
    graph.tasks.truncate(5);
    let found: Vec<_> = check_graph(&graph).iter().map(|v| (v.code, v.path.clone())).collect();
    assert_eq!(found, [(ViolationCode::UnpairedStage, "tasks[1]".into())]);
    graph.tasks.truncate(3);
    assert_eq!(check_graph(&graph), [], "without backwards all modules are frozen");
}

#[test]
fn activation_bytes_on_a_backward_are_named() {
    let task =
        r#""duration_s": 1.0, "activation_bytes": 0, "strategy": "keep", "deps": [{"task": 8"#;
    let found = found(&broken(&[(task, &task.replace("bytes\": 0", "bytes\": 4"))]));
    assert_eq!(found, ["activation-on-non-forward tasks[9].activation_bytes"]);
}

#[test]
fn candidates_on_a_backward_are_named() {
    let with = format!(
        r#"{TASK_3}, "candidates": [{{"strategy": "keep", "forward_s": 2.0, "backward_s": 2.0, "activation_bytes": 40}}]"#
    );
    expect(&[(TASK_3, &with)], &["candidates-on-non-forward tasks[3].candidates"]);
}

#[test]
fn strategies_that_differ_within_a_pair_are_named() {
    expect(&[(DEPS_3, &DEPS_3.replace("keep", "full"))], &["strategy-mismatch tasks[3].strategy"]);
}

#[test]
fn a_choice_that_is_not_among_the_candidates_is_named() {
    expect(
        &[(
            r#"[{"strategy": "keep", "forward_s": 2.0"#,
            r#"[{"strategy": "keep", "forward_s": 2.1"#,
        )],
        &["not-a-candidate tasks[1]"],
    );
    expect(
        &[(
            r#""backward_s": 3.0, "activation_bytes": 30"#,
            r#""backward_s": 3.0, "activation_bytes": 31"#,
        )],
        &["not-a-candidate tasks[1]"],
    );
    expect(
        &[(r#"[{"strategy": "keep", "#, r#"[{"strategy": "none", "#)],
        &["not-a-candidate tasks[1]"],
    );
}

#[test]
fn a_candidate_may_state_the_whole_backward_of_a_split_pair() {
    let task =
        r#""activation_bytes": 40, "strategy": "keep", "deps": [{"task": 1, "comm_s": 0.5}]"#;
    let with = |backward: f64| {
        let offer = format!(
            r#"{{"strategy": "keep", "forward_s": 2.0, "backward_s": {backward}, "activation_bytes": 40}}"#
        );
        broken(&[(task, &format!("{task}, \"candidates\": [{offer}]"))])
    };
    assert_eq!(found(&with(2.0)), [""; 0]);
    assert_eq!(found(&with(3.0)), [""; 0]);
    assert_eq!(found(&with(2.5)), ["not-a-candidate tasks[2]"]);
}
