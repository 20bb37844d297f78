use dip_core::TaskGraph;
use dip_core::{MAX_VIOLATIONS, ViolationClass};
use dip_core::{Plan, Seconds, ViolationCode, check_graph, check_plan, check_plan_json};

use crate::GOLDEN;

/// The golden plan with passages replaced, each of which stands there once.
fn broken(changes: &[(&str, &str)]) -> String {
    changes.iter().fold(GOLDEN.into(), |text: String, (from, to)| {
        assert_eq!(text.matches(from).count(), 1, "{from:?} must stand once in the golden plan");
        text.replace(from, to)
    })
}

/// What the checker finds, as `code path`.
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
/// Parts of tasks that stand once in the golden plan.
const TASK_0: &str = r#"{"id": 0, "rank": 0, "kind": "forward""#;
const TASK_2: &str = r#"{"id": 2, "rank": 1, "kind": "forward""#;
const TASK_3: &str = r#"{"id": 3, "rank": 1, "kind": "backward""#;
const TASK_4: &str = r#"{"id": 4, "rank": 1, "kind": "weight", "module": "lm", "segment": 0"#;
const DURATION_0: &str = r#""duration_s": 1.0, "activation_bytes": 5, "strategy": "keep""#;
const DEPS_3: &str =
    r#""duration_s": 2.0, "activation_bytes": 0, "strategy": "keep", "deps": [{"task": 2"#;
const DEP_2: &str = r#"{"task": 1, "comm_s": 0.5}"#;

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

#[test]
fn a_plan_without_tasks_is_right() {
    let text = r#"{"schema":"dip.plan/v1","model":"","cluster":"","schedule":"","ranks":3,
        "memory_limit_bytes":[0,0,0],"static_bytes":[0,0,0],"tasks":[],"order":[[],[],[]],
        "predicted":{"makespan_s":0,"start_s":[],"end_s":[],"peak_bytes":[0,0,0],"bubble_ratio":0},
        "lower_bound_s":0}"#;
    assert_eq!(found(text), [""; 0]);
    assert_eq!(check_plan(&Plan::from_json(text).unwrap()), []);
}

#[test]
fn an_unknown_field_is_named() {
    expect(
        &[(r#""model": "golden""#, r#""modle": {}, "model": "golden""#)],
        &["unknown-field modle"],
    );
    expect(
        &[(r#"{"task": 0,"#, r#"{"task": 0, "comm": 1,"#)],
        &["unknown-field tasks[1].deps[0].comm"],
    );
}

#[test]
fn a_missing_field_is_named() {
    expect(&[(r#""schema": "dip.plan/v1", "#, "")], &["missing-field schema"]);
    expect(&[(r#""schedule": "by-hand", "#, "")], &["missing-field schedule"]);
    expect(&[(TASK_0, r#"{"id": 0, "rank": 0"#)], &["missing-field tasks[0].kind"]);
    expect(
        &[(r#"{"task": 0, "comm_s": 0.0}"#, r#"{"task": 0}"#)],
        &["missing-field tasks[1].deps[0].comm_s"],
    );
    expect(&[(r#", "bubble_ratio": 0.3"#, "")], &["missing-field predicted.bubble_ratio"]);
    expect(&[(&format!("\"order\": [{ORDER_0}, {ORDER_1}],"), "")], &["missing-field order"]);
    expect(&[(",\n \"lower_bound_s\": 11.0", "")], &["missing-field lower_bound_s"]);
}

#[test]
fn a_field_given_twice_is_named() {
    expect(&[(r#""ranks": 2,"#, r#""ranks": 2, "ranks": 3,"#)], &["duplicate-field ranks"]);
    expect(
        &[(TASK_0, r#"{"id": 0, "id": 0, "rank": 0, "kind": "forward""#)],
        &["duplicate-field tasks[0].id"],
    );
}

#[test]
fn a_value_of_the_wrong_type_is_named() {
    expect(&[(r#""cluster": "two-ranks""#, r#""cluster": 7"#)], &["wrong-type cluster"]);
    expect(&[(r#""ranks": 2,"#, r#""ranks": "2","#)], &["wrong-type ranks"]);
    expect(&[(ORDER_0, "7")], &["wrong-type order[0]"]);
    expect(&[("\"static_bytes\": [10, 20]", "\"static_bytes\": {}")], &["wrong-type static_bytes"]);
    expect(
        &[(DURATION_0, r#""duration_s": null, "activation_bytes": 5, "strategy": "keep""#)],
        &["wrong-type tasks[0].duration_s"],
    );
    assert_eq!(found("[]"), ["wrong-type the document"]);
}

#[test]
fn an_array_of_the_wrong_length_is_named() {
    expect(
        &[("\"memory_limit_bytes\": [100, 100]", "\"memory_limit_bytes\": [100]")],
        &["wrong-length memory_limit_bytes"],
    );
    expect(
        &[("\"static_bytes\": [10, 20]", "\"static_bytes\": [10, 20, 30]")],
        &["wrong-length static_bytes"],
    );
    expect(
        &[("\"peak_bytes\": [70, 100]", "\"peak_bytes\": []")],
        &["wrong-length predicted.peak_bytes"],
    );
    expect(&[(", 12.5, 12.0]", ", 12.5]")], &["wrong-length predicted.start_s"]);
    expect(&[(", 13.5, 15.0]", ", 13.5, 15.0, 15.0]")], &["wrong-length predicted.end_s"]);
    expect(&[(ORDER_1, &format!("{ORDER_1}, []"))], &["wrong-length order"]);
    expect(
        &[(&format!("[{ORDER_0}, {ORDER_1}]"), &format!("[{ORDER_0}]"))],
        &["wrong-length order"],
    );
}

#[test]
fn a_number_that_is_not_finite_is_named_once() {
    for number in ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"] {
        let duration =
            format!(r#""duration_s": {number}, "activation_bytes": 5, "strategy": "keep""#);
        expect(&[(DURATION_0, &duration)], &["not-finite tasks[0].duration_s"]);
        let comm = format!(r#"{{"task": 1, "comm_s": {number}}}"#);
        expect(&[(DEP_2, &comm)], &["not-finite tasks[2].deps[0].comm_s"]);
    }
    expect(
        &[("\"makespan_s\": 15.0", "\"makespan_s\": NaN")],
        &["not-finite predicted.makespan_s"],
    );
    expect(&[("[0.0, 1.0, 3.5", "[0.0, NaN, 3.5")], &["not-finite predicted.start_s[1]"]);
    expect(
        &[("\"bubble_ratio\": 0.3", "\"bubble_ratio\": NaN")],
        &["not-finite predicted.bubble_ratio"],
    );
    expect(
        &[("\"lower_bound_s\": 11.0", "\"lower_bound_s\": Infinity")],
        &["not-finite lower_bound_s"],
    );
    expect(&[("[100, 100]", "[100, NaN]")], &["not-finite memory_limit_bytes[1]"]);
}

#[test]
fn a_negative_number_is_named_once() {
    let duration = DURATION_0.replace("1.0", "-1.0");
    expect(&[(DURATION_0, &duration)], &["negative tasks[0].duration_s"]);
    expect(
        &[("\"static_bytes\": [10, 20]", "\"static_bytes\": [-10, 20]")],
        &["negative static_bytes[0]"],
    );
    expect(&[("\"lower_bound_s\": 11.0", "\"lower_bound_s\": -1e-3")], &["negative lower_bound_s"]);
    expect(&[(DEP_2, r#"{"task": -1, "comm_s": 0.5}"#)], &["negative tasks[2].deps[0].task"]);
}

#[test]
fn a_fraction_where_a_whole_number_is_due_is_named() {
    expect(
        &[(TASK_0, r#"{"id": 0, "rank": 0.5, "kind": "forward""#)],
        &["not-an-integer tasks[0].rank"],
    );
    expect(
        &[("\"peak_bytes\": [70, 100]", "\"peak_bytes\": [70.0, 100]")],
        &["not-an-integer predicted.peak_bytes[0]"],
    );
    expect(&[("\"ranks\": 2,", "\"ranks\": 2e0,")], &["not-an-integer ranks"]);
}

#[test]
fn a_number_out_of_range_is_named() {
    expect(&[("\"ranks\": 2,", "\"ranks\": 0,")], &["out-of-range ranks"]);
    expect(&[("\"ranks\": 2,", "\"ranks\": 99999999999,")], &["out-of-range ranks"]);
    expect(
        &[(TASK_0, r#"{"id": 0, "rank": 2, "kind": "forward""#)],
        &["out-of-range tasks[0].rank"],
    );
    expect(&[(DEP_2, r#"{"task": 11, "comm_s": 0.5}"#)], &["out-of-range tasks[2].deps[0].task"]);
    expect(&[(ORDER_0, "[0, 1, 6, 5, 11]")], &["out-of-range order[0][4]"]);
    expect(
        &[("[100, 100]", "[100, 18446744073709551616]")],
        &["out-of-range memory_limit_bytes[1]"],
    );
}

#[test]
fn durations_that_overflow_in_sum_are_named() {
    let huge = DURATION_0.replace("1.0", "1.7e308");
    let second = r#"{"task": 1, "comm_s": 1.7e308}"#;
    let report = found(&broken(&[(DURATION_0, &huge), (DEP_2, second)]));
    assert_eq!(report[0], "out-of-range tasks");
}

#[test]
fn an_unknown_kind_is_named() {
    expect(
        &[(TASK_0, r#"{"id": 0, "rank": 0, "kind": "Forward""#)],
        &["unknown-kind tasks[0].kind"],
    );
}

#[test]
fn an_id_that_is_not_the_position_is_named() {
    expect(&[(TASK_2, r#"{"id": 5, "rank": 1, "kind": "forward""#)], &["id-mismatch tasks[2].id"]);
}

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
fn a_stage_that_is_there_twice_is_named() {
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
fn a_forward_without_backward_is_named_only_where_its_module_runs_backwards() {
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

#[test]
fn a_start_before_a_dependency_has_arrived_is_named_with_the_dependency() {
    expect(&[("[0.0, 1.0, 3.5", "[0.0, 1.0, 3.25")], &["broken-dependency tasks[2].deps[0]"]);
}

#[test]
fn two_tasks_at_once_on_a_rank_are_named() {
    expect(&[(", 8.0, 3.0, 7.5", ", 8.0, 2.5, 7.5")], &["overlap predicted.start_s[6]"]);
}

#[test]
fn a_start_later_than_needed_is_named_where_the_delay_begins() {
    expect(&[(", 8.0, 3.0, 7.5", ", 8.0, 3.5, 7.5")], &["start-mismatch predicted.start_s[6]"]);
    let start = "[0.0, 1.0, 3.5, 5.5, 12.5, 8.0, 3.0, 8.5, 10.5, 13.5, 13.0]";
    let end = "[1.0, 3.0, 5.5, 7.5, 13.5, 11.0, 5.0, 10.5, 12.5, 14.5, 16.0]";
    let shifted = broken(&[(START, start), (END, end)]);
    assert_eq!(found(&shifted)[0], "start-mismatch predicted.start_s[7]");
    assert_eq!(found(&shifted)[1..], ["makespan-mismatch predicted.makespan_s"; 0]);
}

#[test]
fn an_end_that_is_not_start_plus_duration_is_named() {
    expect(&[("[1.0, 3.0, 5.5", "[1.0, 3.25, 5.5")], &["end-mismatch predicted.end_s[1]"]);
    expect(&[("[1.0, 3.0, 5.5", "[1.0, 2.75, 5.5")], &["end-mismatch predicted.end_s[1]"]);
}

#[test]
fn deviations_that_are_small_in_every_step_but_add_up_are_named() {
    let mut plan = Plan::from_json(GOLDEN).unwrap();
    let n = plan.graph.tasks.len();
    assert!(n > 5);
    for (i, (s, e)) in plan.predicted.start_s.iter_mut().zip(&mut plan.predicted.end_s).enumerate()
    {
        let drift = 1.0 + 0.45e-6 * [0, 1, 2, 3, 5, 4, 2, 4, 5, 6, 7][i] as f64;
        (s.0, e.0) = (s.0 * drift, e.0 * drift);
    }
    let codes: Vec<_> = check_plan(&plan).iter().map(|v| v.code).collect();
    assert_eq!(codes.len(), 1, "{codes:?}");
}

#[test]
fn predicted_totals_that_disagree_are_named() {
    expect(
        &[("\"makespan_s\": 15.0", "\"makespan_s\": 15.1")],
        &["makespan-mismatch predicted.makespan_s"],
    );
    expect(
        &[("\"peak_bytes\": [70, 100]", "\"peak_bytes\": [71, 100]")],
        &["peak-mismatch predicted.peak_bytes[0]"],
    );
    expect(
        &[("\"bubble_ratio\": 0.3", "\"bubble_ratio\": 0.31")],
        &["bubble-mismatch predicted.bubble_ratio"],
    );
}

#[test]
fn totals_that_follow_from_a_wrong_time_are_not_reported_again() {
    // Rank 0 idles for a second before its last task, and the totals say so.
    expect(
        &[
            (", 12.5, 12.0]", ", 12.5, 13.0]"),
            (", 13.5, 15.0]", ", 13.5, 16.0]"),
            ("\"makespan_s\": 15.0", "\"makespan_s\": 16.0"),
            ("\"bubble_ratio\": 0.3", "\"bubble_ratio\": 0.34375"),
        ],
        &["start-mismatch predicted.start_s[10]"],
    );
}

#[test]
fn a_stage_moved_to_another_rank_is_not_judged_by_its_times() {
    let moved = r#"{"id": 9, "rank": 0, "kind": "weight""#;
    expect(&[(r#"{"id": 9, "rank": 1, "kind": "weight""#, moved)], &["wrong-rank order[1][5]"]);
}

#[test]
fn figures_within_the_tolerance_are_right() {
    expect(&[("\"makespan_s\": 15.0", "\"makespan_s\": 15.000001")], &[]);
    expect(&[("\"bubble_ratio\": 0.3", "\"bubble_ratio\": 0.3000001")], &[]);
    expect(&[("\"lower_bound_s\": 11.0", "\"lower_bound_s\": 15.000001")], &[]);
}

#[test]
fn memory_over_the_limit_is_named_with_rank_and_task() {
    let text = broken(&[("[100, 100]", "[100, 99]")]);
    assert_eq!(found(&text), ["memory-over-limit order[1]"]);
    let message = check_plan_json(&text).unwrap().violations[0].message.clone();
    assert!(
        message.starts_with("rank 1 peaks at 100 bytes (100 B) at the start of task 7"),
        "{message}"
    );
}

#[test]
fn static_bytes_over_the_limit_are_named_once() {
    expect(&[("[100, 100]", "[100, 19]")], &["static-over-limit static_bytes[1]"]);
}

#[test]
fn a_bound_above_the_makespan_is_named() {
    expect(
        &[("\"lower_bound_s\": 11.0", "\"lower_bound_s\": 15.001")],
        &["bound-above-makespan lower_bound_s"],
    );
}

#[test]
fn a_bad_value_hides_nothing_that_does_not_hang_on_it() {
    let text = broken(&[
        (r#""cluster": "two-ranks""#, r#""cluster": 7"#),
        ("[100, 100]", "[100, 99]"),
        ("[0.0, 1.0, 3.5", "[0.0, NaN, 3.25"),
        ("\"lower_bound_s\": 11.0", "\"lower_bound_s\": 99"),
    ]);
    let expected = [
        "wrong-type cluster",
        "not-finite predicted.start_s[1]",
        "memory-over-limit order[1]",
        "broken-dependency tasks[2].deps[0]",
        "bound-above-makespan lower_bound_s",
    ];
    assert_eq!(found(&text), expected);
}

#[test]
fn a_plan_is_judged_even_where_its_number_of_ranks_cannot_be_read() {
    expect(
        &[("\"ranks\": 2,", "\"ranks\": \"two\","), ("[100, 100]", "[100, 99]")],
        &["wrong-type ranks", "memory-over-limit order[1]"],
    );
}

#[test]
fn predicted_times_are_judged_even_where_the_order_is_broken() {
    expect(
        &[(ORDER_0, "[0, 1, 6, 5]"), ("[0.0, 1.0, 3.5", "[0.5, 1.0, 3.25")],
        &["missing-task order[0]", "broken-dependency tasks[2].deps[0]"],
    );
}

#[test]
fn tasks_at_once_are_found_even_where_the_order_is_broken() {
    expect(
        &[(ORDER_0, "[0, 1, 6, 5]"), (START, &START.replace(" 3.0,", " 2.5,"))],
        &["missing-task order[0]", "overlap predicted.start_s[6]"],
    );
}

#[test]
fn a_start_against_the_order_names_the_task_that_comes_first() {
    let text = broken(&[(ORDER_1, "[2, 3, 7, 8, 9, 4]")]);
    let report = check_plan_json(&text).unwrap();
    assert_eq!(
        found(&text),
        ["start-mismatch predicted.start_s[4]", "start-mismatch predicted.start_s[9]"]
    );
    assert!(report.violations[0].message.contains("task 9 comes first in the order"), "{report}");
}

#[test]
fn a_typed_plan_with_bad_numbers_is_judged_like_its_text() {
    let mut plan = Plan::from_json(GOLDEN).unwrap();
    plan.graph.tasks[0].duration_s = Seconds(f64::NAN);
    plan.predicted.start_s[3] = Seconds(-1.0);
    plan.lower_bound_s = Seconds(f64::INFINITY);
    plan.graph.tasks[2].rank = dip_core::RankId(9);
    plan.order[0][0] = dip_core::TaskId(77);
    let found: Vec<_> =
        check_plan(&plan).iter().map(|v| format!("{} {}", v.code, v.path)).collect();
    let expected = [
        "not-finite tasks[0].duration_s",
        "negative predicted.start_s[3]",
        "not-finite lower_bound_s",
        "out-of-range tasks[2].rank",
        "out-of-range order[0][0]",
    ];
    assert_eq!(found, expected);
}

#[test]
fn every_code_has_its_own_name_in_kebab_case() {
    let mut names: Vec<_> = ViolationCode::ALL.iter().map(|c| c.as_str()).collect();
    assert!(names.iter().all(|n| n.chars().all(|c| c.is_ascii_lowercase() || c == '-')));
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), ViolationCode::ALL.len());
}

#[test]
fn a_loader_accepts_a_plan_whose_figures_alone_are_wrong() {
    let text =
        broken(&[("[100, 100]", "[100, 99]"), ("\"makespan_s\": 15.0", "\"makespan_s\": 1.0")]);
    let report = check_plan_json(&text).unwrap();
    assert!(report.violations.iter().all(|v| v.code.class() == ViolationClass::Figures));
    assert!(Plan::from_json(&text).is_ok());
}

#[test]
fn a_report_is_bounded_and_says_so() {
    let entries = vec!["-1"; MAX_VIOLATIONS + 50].join(",");
    let text = broken(&[(ORDER_0, &format!("[{entries}]"))]);
    let report = check_plan_json(&text).unwrap();
    assert_eq!(report.violations.len(), MAX_VIOLATIONS);
    assert!(report.truncated);
    assert!(report.to_string().ends_with("and more, which are not listed"));
}
