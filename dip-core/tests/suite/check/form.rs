//! Violations of the form of a document.

use dip_core::{Plan, TaskGraph, check_graph, check_plan, check_plan_json};

use super::{DEP_2, DURATION_0, ORDER_0, ORDER_1, TASK_0, TASK_2, broken, expect, found};
use crate::GOLDEN;

#[test]
fn the_golden_plan_is_valid() {
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
fn a_plan_without_tasks_is_valid() {
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
fn a_fraction_in_place_of_an_integer_is_named() {
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
fn durations_whose_sum_overflows_are_named() {
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
