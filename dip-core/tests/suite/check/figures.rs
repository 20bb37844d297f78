//! Violations of times, memory and bounds, and reports as a whole.

use dip_core::{
    Bytes, MAX_VIOLATIONS, Plan, Seconds, ViolationClass, ViolationCode, check_plan,
    check_plan_json,
};

use super::{END, ORDER_0, ORDER_1, START, broken, expect, found};
use crate::GOLDEN;

#[test]
fn a_start_before_a_dependency_has_arrived_is_named_with_the_dependency() {
    expect(&[("[0.0, 1.0, 3.5", "[0.0, 1.0, 3.25")], &["broken-dependency tasks[2].deps[0]"]);
}

#[test]
fn two_overlapping_tasks_on_a_rank_are_named() {
    expect(&[(", 8.0, 3.0, 7.5", ", 8.0, 2.5, 7.5")], &["overlap predicted.start_s[6]"]);
}

#[test]
fn a_late_start_is_named_at_the_first_delay() {
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
fn small_deviations_that_add_up_are_named() {
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
    // Rank 0 idles for a second before its last task, and the totals include it.
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
fn the_times_of_a_stage_moved_to_another_rank_are_not_checked() {
    let moved = r#"{"id": 9, "rank": 0, "kind": "weight""#;
    expect(&[(r#"{"id": 9, "rank": 1, "kind": "weight""#, moved)], &["wrong-rank order[1][5]"]);
}

#[test]
fn figures_within_the_tolerance_are_accepted() {
    expect(&[("\"makespan_s\": 15.0", "\"makespan_s\": 15.000001")], &[]);
    expect(&[("\"bubble_ratio\": 0.3", "\"bubble_ratio\": 0.3000001")], &[]);
    expect(&[("\"lower_bound_s\": 11.0", "\"lower_bound_s\": 15.00000001")], &[]);
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
fn more_bytes_than_a_number_holds_are_over_every_limit() {
    let plan = Plan::from_json(GOLDEN).unwrap();
    let mut large = plan.clone();
    large.graph.memory_limit_bytes = vec![Bytes::UNLIMITED; 2];
    for task in large.graph.tasks.iter_mut().filter(|t| t.activation_bytes > Bytes::ZERO) {
        task.activation_bytes = Bytes(u64::MAX / 2 + 1);
    }
    let violations = check_plan(&large);
    let over = violations.iter().find(|v| v.code == ViolationCode::MemoryOverLimit).unwrap();
    assert!(over.message.contains("above 2^64 - 1"), "{}", over.message);
}

#[test]
fn static_bytes_over_the_limit_are_named_once() {
    expect(&[("[100, 100]", "[100, 19]")], &["static-over-limit static_bytes[1]"]);
}

#[test]
fn a_bound_above_the_makespan_is_named() {
    for bound in ["15.001", "15.000001"] {
        expect(
            &[("\"lower_bound_s\": 11.0", &format!("\"lower_bound_s\": {bound}"))],
            &["bound-above-makespan lower_bound_s"],
        );
    }
}

#[test]
fn a_bad_value_hides_only_what_depends_on_it() {
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
fn a_plan_with_an_unreadable_number_of_ranks_is_still_checked() {
    expect(
        &[("\"ranks\": 2,", "\"ranks\": \"two\","), ("[100, 100]", "[100, 99]")],
        &["wrong-type ranks", "memory-over-limit order[1]"],
    );
}

#[test]
fn predicted_times_are_checked_even_if_the_order_is_broken() {
    expect(
        &[(ORDER_0, "[0, 1, 6, 5]"), ("[0.0, 1.0, 3.5", "[0.5, 1.0, 3.25")],
        &["missing-task order[0]", "broken-dependency tasks[2].deps[0]"],
    );
}

#[test]
fn overlapping_tasks_are_found_even_if_the_order_is_broken() {
    expect(
        &[(ORDER_0, "[0, 1, 6, 5]"), (START, &START.replace(" 3.0,", " 2.5,"))],
        &["missing-task order[0]", "overlap predicted.start_s[6]"],
    );
}

#[test]
fn a_start_that_breaks_the_order_names_the_earlier_task() {
    let text = broken(&[(ORDER_1, "[2, 3, 7, 8, 9, 4]")]);
    let report = check_plan_json(&text).unwrap();
    assert_eq!(
        found(&text),
        ["start-mismatch predicted.start_s[4]", "start-mismatch predicted.start_s[9]"]
    );
    assert!(report.violations[0].message.contains("task 9 comes first in the order"), "{report}");
}

#[test]
fn a_plan_in_memory_is_checked_like_its_text() {
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
fn a_truncated_report_says_so() {
    let entries = vec!["-1"; MAX_VIOLATIONS + 50].join(",");
    let text = broken(&[(ORDER_0, &format!("[{entries}]"))]);
    let report = check_plan_json(&text).unwrap();
    assert_eq!(report.violations.len(), MAX_VIOLATIONS);
    assert!(report.truncated);
    assert!(report.to_string().ends_with("and more, which are not listed"));
}
