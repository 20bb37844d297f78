use dip_core::{Plan, SubMicrobatchId, Timeline, order_from_csv, order_to_csv};
use proptest::prelude::*;

use crate::GOLDEN;
use crate::random::{self, Random, Size};

/// The order of the golden plan: stage 0 is the encoder, 1 and 2 are the chunks of the language model.
const CSV: &str = "0F0,1F0,1F1,1B0,1B1\n2F0,2I0,2F1,2I1,2W0,2W1\n";

fn golden() -> Plan {
    Plan::from_json(GOLDEN).unwrap()
}

/// The errors of a text, one per line.
fn errors(text: &str) -> Vec<String> {
    let errors = order_from_csv(text, &golden().graph).expect_err("the text has an error");
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn the_golden_order_is_written_in_pytorch_form() {
    let plan = golden();
    assert_eq!(order_to_csv(&plan.graph, &plan.order).unwrap(), CSV);
}

#[test]
fn empty_cells_are_bubbles_and_spaces_do_not_matter() {
    let text = "0F0, 1F0 ,1F1,,,,1B0,1B1\r\n,,,2F0,2I0,2F1,2I1,2W0,2W1\r\n\r\n";
    assert_eq!(order_from_csv(text, &golden().graph).unwrap(), golden().order);
}

#[test]
fn a_cell_that_is_not_an_action_is_named_with_row_and_column() {
    for cell in
        ["F0", "0F", "0X0", "0F0x", "0F-1", "0f0", "0F0 0F1", "+0F0", "\"0F0\"", "99999999999F0"]
    {
        let found = errors(&CSV.replacen("0F0", &format!(",{cell}"), 1));
        let start = format!("row 1, column 2: `{cell}` is not of the form");
        assert!(found[0].starts_with(&start), "{found:?}");
        assert_eq!(found.len(), 1, "{found:?}");
    }
    assert!(errors(&CSV.replace("1F1", "0SEND_F1"))[0].contains("is not a computation"));
    assert!(errors(&CSV.replace("1F1", "(1F1;1B0)OVERLAP_F_B"))[0].contains("two cells"));
}

#[test]
fn stages_and_microbatches_that_do_not_exist_are_named() {
    assert_eq!(
        errors(&CSV.replace("1F1", "3F1")),
        ["row 1, column 3: `3F1` names stage 3, but there are 3 stages"]
    );
    assert_eq!(
        errors(&CSV.replace("1F1", "0F1")),
        [
            "row 1, column 3: `0F1` names microbatch 1, which does not use stage 0 (vit, segment 0); remove it"
        ]
    );
}

#[test]
fn an_action_missing_from_its_pair_is_named_with_the_existing_actions() {
    assert_eq!(
        errors(&CSV.replace("2I0", "2B0")),
        [
            "row 2, column 2: `2B0` is not an action of stage 2 (lm, segment 0) for microbatch 0; it has `2F0`, `2I0`, `2W0`"
        ]
    );
}

#[test]
fn a_repeated_action_and_an_action_on_the_wrong_rank_are_named() {
    assert_eq!(
        errors("0F0,1F0,1F0,1B0,1B1,2W1\n2F0,2I0,2F1,2I1,2W0\n"),
        [
            "row 1, column 3: `1F0` is already in row 1, column 2; remove one",
            "row 1, column 6: `2W1` belongs to rank 1, which holds stage 2 (lm, segment 0); move it to row 2",
        ]
    );
}

#[test]
fn missing_actions_and_rows_are_named() {
    assert_eq!(
        errors("0F0,1F0,1F1\n2F0,2I0,2F1,2I1,2W0,2W1\n"),
        ["row 1: 2 missing actions: `1B0`, `1B1`; add them in their order"]
    );
    assert!(errors("0F0,1F0,1F1,1B0,1B1\n")[0].starts_with("row 2: the text ends here"));
    assert!(errors(&format!("{CSV}0F0\n"))[0].starts_with("row 3: there are only 2 ranks"));
    assert!(errors("")[0].starts_with("row 1: the text ends here"));
}

#[test]
fn a_backward_before_its_forward_is_named() {
    assert_eq!(
        errors("0F0,1B0,1F0,1F1,1B1\n2F0,2I0,2F1,2I1,2W0,2W1\n"),
        ["row 1, column 2: `1B0` is before `1F0` in column 3, whose result it needs; swap them"]
    );
}

#[test]
fn an_order_in_deadlock_names_the_cell_at_which_every_rank_waits() {
    assert_eq!(
        errors("0F0,1F0,1B0,1F1,1B1\n2F0,2F1,2I0,2I1,2W0,2W1\n"),
        [
            "row 1, column 3: `1B0` waits forever: it needs `2I0` in row 2, column 3, which also waits; reorder one of them",
            "row 2, column 2: `2F1` waits forever: it needs `1F1` in row 1, column 4, which also waits; reorder one of them",
        ]
    );
}

#[test]
fn a_graph_with_sub_microbatches_has_no_csv() {
    let mut plan = golden();
    plan.graph.tasks[0].sub_microbatch = SubMicrobatchId(1);
    let error = order_to_csv(&plan.graph, &plan.order).unwrap_err().to_string();
    assert!(error.contains("PyTorch has no sub-microbatches"), "{error}");
}

#[test]
fn numbers_out_of_range_are_named_and_never_wrap() {
    for cell in
        ["4294967296F0", "0F4294967296", "0F99999999999999999999999", "18446744073709551616F0"]
    {
        let found = errors(&CSV.replacen("0F0", cell, 1));
        assert!(found[0].contains("is not of the form"), "{cell}: {found:?}");
    }
    // The largest readable numbers name no stage and no microbatch.
    let stage = errors(&CSV.replacen("0F0", "4294967295F0", 1));
    assert!(stage[0].ends_with("names stage 4294967295, but there are 3 stages"), "{stage:?}");
    let microbatch = errors(&CSV.replacen("0F0", "0F4294967295", 1));
    assert!(microbatch[0].contains("names microbatch 4294967295, which does not use stage 0"));
}

#[test]
fn errors_of_a_large_file_are_bounded_and_their_cells_short() {
    let found = errors(&"0F0,".repeat(200_000));
    assert!(found.len() <= 10_000, "{}", found.len());
    assert!(found[0].contains("`0F0` is already in row 1, column 1"), "{}", found[0]);
    let found = errors(&"9".repeat(1 << 20));
    assert!(found[0].len() < 300, "{}", found[0].len());
    assert!(!errors(&"\n".repeat(1 << 20)).is_empty());
    assert!(!errors(&",".repeat(1 << 20)).is_empty());
}

#[test]
fn foreign_line_ends_are_read_and_control_characters_are_named() {
    let windows = CSV.replace('\n', "\r\n");
    assert_eq!(order_from_csv(&windows, &golden().graph).unwrap(), golden().order);
    for mark in ["\u{feff}", "\0", "é"] {
        let found = errors(&format!("{mark}{CSV}"));
        assert!(found[0].starts_with("row 1, column 1: `"), "{mark:?}: {found:?}");
    }
    // An empty first line is an idle rank, so every row is off by one.
    assert!(errors(&format!("\n{CSV}")).iter().any(|e| e.contains("belongs to rank 0")));
}

proptest! {
    #[test]
    fn a_random_order_survives_its_csv(seed: u64) {
        let plan = random::plan(seed, Size { slices: 1, cross: 0, ..Size::default() });
        let text = order_to_csv(&plan.graph, &plan.order).unwrap();
        prop_assert_eq!(order_from_csv(&text, &plan.graph).unwrap(), plan.order);
    }

    #[test]
    fn no_text_makes_the_reader_panic(seed: u64, edits in prop::collection::vec((0usize..60, "[0-9FBIW,\\nx]{0,2}"), 1..6)) {
        let plan = golden();
        let mut text = CSV.to_owned();
        for (at, edit) in edits {
            let at = at.min(text.len());
            let to = (at + Random(seed).below(4)).min(text.len());
            text.replace_range(at..to, &edit);
        }
        match order_from_csv(&text, &plan.graph) {
            Ok(order) => prop_assert!(Timeline::evaluate(&plan.graph, &order).is_ok()),
            Err(errors) => prop_assert!(!errors.is_empty()),
        }
    }
}
