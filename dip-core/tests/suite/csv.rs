use dip_core::{
    Bytes, CsvOrder, Dep, MicrobatchId, Plan, RankId, Seconds, SegmentId, Strategy,
    SubMicrobatchId, Task, TaskGraph, TaskId, TaskKind, Timeline, order_from_csv, order_to_csv,
};
use proptest::prelude::*;

use crate::GOLDEN;
use crate::random::{self, Random};

/// The order of the golden plan: stage 0 is the encoder, 1 and 2 are the chunks of the language model.
const CSV: &str = "0F0,1F0,1F1,1B0,1B1\n2F0,2I0,2F1,2I1,2W0,2W1\n";

fn golden() -> Plan {
    Plan::from_json(GOLDEN).unwrap()
}

/// The errors of a text, one per line.
fn errors(text: &str) -> Vec<String> {
    let errors = order_from_csv(&text.into(), &golden().graph).expect_err("the text has an error");
    errors.iter().map(ToString::to_string).collect()
}

/// A chain of two ranks with two microbatches; stages 1 and 2 of three are on rank 1, 2 splits its weight gradients.
fn chain() -> TaskGraph {
    let mut tasks: Vec<Task> = Vec::new();
    for microbatch in 0..2 {
        let mut last: Option<TaskId> = None;
        let mut add = |kind, stage: usize, more: Option<TaskId>| {
            let id = TaskId::from(tasks.len());
            let deps = last.into_iter().filter(|_| kind != TaskKind::Weight).chain(more);
            let deps = deps.map(|task| Dep { task, comm_s: Seconds::ZERO }).collect::<Vec<_>>();
            tasks.push(Task {
                id,
                rank: RankId::from(stage.min(1)),
                kind,
                module: "lm".into(),
                segment: SegmentId::from(stage),
                microbatch: MicrobatchId::from(microbatch),
                sub_microbatch: SubMicrobatchId(0),
                duration_s: Seconds(1.0),
                activation_bytes: Bytes(0),
                strategy: Strategy::keep(),
                deps,
                candidates: Vec::new(),
            });
            if kind != TaskKind::Weight {
                last = Some(id);
            }
            id
        };
        let forwards: Vec<_> = (0..3).map(|s| add(TaskKind::Forward, s, None)).collect();
        for stage in (0..3).rev() {
            // The last backward follows its own forward already.
            let own = (stage < 2).then_some(forwards[stage]);
            let backward = add(TaskKind::Backward, stage, own);
            if stage == 2 {
                add(TaskKind::Weight, stage, Some(backward));
            }
        }
    }
    TaskGraph {
        model: "chain".into(),
        cluster: "two".into(),
        ranks: 2,
        memory_limit_bytes: vec![Bytes::UNLIMITED; 2],
        static_bytes: vec![Bytes::ZERO; 2],
        tasks,
    }
}

/// Reads a text whose microbatches have the numbers of the graph.
fn read(text: &str, graph: &TaskGraph) -> Result<Vec<Vec<TaskId>>, Vec<String>> {
    let order = order_from_csv(&text.into(), graph);
    order.map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

#[test]
fn microbatches_are_numbered_by_the_forwards_of_the_last_stage() {
    let graph = chain();
    let swapped = "0F1,0F0,0B1,0B0\n1F1,2F1,1F0,2I1,1B1,2W1,2F0,2I0,1B0,2W0\n";
    let order = read(swapped, &graph).unwrap();
    let written = order_to_csv(&graph, &order).unwrap();
    // PyTorch stores losses in the order of execution and finds them by number.
    assert_eq!(written.text, "0F0,0F1,0B0,0B1\n1F0,2F0,1F1,2I0,1B0,2W0,2F1,2I1,1B1,2W1\n");
    assert_eq!(written.microbatches, [MicrobatchId(1), MicrobatchId(0)]);
    assert_eq!(order_from_csv(&written, &graph).unwrap(), order);
    let plain = order_to_csv(&graph, &read(&written.text, &graph).unwrap()).unwrap();
    assert_eq!(plain, CsvOrder { text: written.text, microbatches: Vec::new() });
}

#[test]
fn a_list_of_other_microbatches_is_refused() {
    for microbatches in [vec![0], vec![0, 0], vec![0, 2], vec![0, 1, 1]] {
        let microbatches = microbatches.into_iter().map(MicrobatchId).collect();
        let csv = CsvOrder { text: String::new(), microbatches };
        let errors = order_from_csv(&csv, &chain()).unwrap_err();
        assert!(errors[0].to_string().contains("each of the 2 microbatches"), "{errors:?}");
    }
}

#[test]
fn files_of_pytorch_have_merged_and_overlapped_cells_and_communication() {
    let graph = chain();
    let plain = "0F0,0F1,0B0,0B1\n1F0,2F0,2I0,2W0,1F1,1B0,2F1,2I1,2W1,1B1\n";
    let foreign = "0UNSHARD,0F0,0SEND_F0,0F1,0WAIT_SEND_F0,0B0,0B1,0REDUCE_GRAD,0WAIT_REDUCE_GRAD\n\
                   1RECV_F0,1F0,2F0,2B0,(1F1;1B0)OVERLAP_F_B,2F1,2B1,1B1,2REDUCE_GRAD,1REDUCE_GRAD\n";
    assert_eq!(read(foreign, &graph), read(plain, &graph));
    for (cell, problem) in [
        ("(1F1;1B0OVERLAP_F_B", "is not of the form `(1F1;0B0)OVERLAP_F_B`"),
        ("(1F1;1X0)OVERLAP_F_B", "is not of the form `0F1`"),
        ("(1F1;1F1)OVERLAP_F_B", "is already in row 2"),
    ] {
        let errors = read(&foreign.replace("(1F1;1B0)OVERLAP_F_B", cell), &graph).unwrap_err();
        assert!(errors[0].contains(problem), "{cell}: {errors:?}");
    }
}

#[test]
fn graphs_that_pytorch_cannot_run_are_not_written() {
    let refused = |graph: &TaskGraph, reason: &str| {
        let order = vec![Vec::new(); graph.ranks as usize];
        let error = order_to_csv(graph, &order).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    };
    refused(&golden().graph, "stage 0 (vit, segment 0) has no backward");
    let mut skipping = chain();
    skipping
        .tasks
        .retain(|task| task.microbatch == MicrobatchId(0) || task.segment != SegmentId(2));
    for (i, task) in skipping.tasks.iter_mut().enumerate() {
        task.id = TaskId::from(i);
        task.deps.retain(|dep| dep.task.index() < i);
    }
    refused(&skipping, "microbatch 1 does not use stage 2 (lm, segment 2)");
    let mut branch = chain();
    branch.tasks[2].deps[0].task = TaskId(0);
    refused(&branch, "does not take its input from the stage before it alone");
}

#[test]
fn empty_cells_are_bubbles_and_spaces_do_not_matter() {
    let text = "0F0, 1F0 ,1F1,,,,1B0,1B1\r\n,,,2F0,2I0,2F1,2I1,2W0,2W1\r\n\r\n";
    assert_eq!(order_from_csv(&text.into(), &golden().graph).unwrap(), golden().order);
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
        errors(&CSV.replace("1B0", "1I0")),
        [
            "row 1, column 4: `1I0` is not an action of stage 1 (lm, segment 0) for microbatch 0; it has `1F0`, `1B0`"
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
    assert_eq!(order_from_csv(&windows.as_str().into(), &golden().graph).unwrap(), golden().order);
    for mark in ["\u{feff}", "\0", "é"] {
        let found = errors(&format!("{mark}{CSV}"));
        assert!(found[0].starts_with("row 1, column 1: `"), "{mark:?}: {found:?}");
    }
    // An empty first line is an idle rank, so every row is off by one.
    assert!(errors(&format!("\n{CSV}")).iter().any(|e| e.contains("belongs to rank 0")));
}

proptest! {
    #[test]
    fn a_random_order_of_a_chain_survives_its_csv(seed: u64) {
        let graph = chain();
        let order = random::order(&mut Random(seed), &graph);
        let written = order_to_csv(&graph, &order).unwrap();
        prop_assert_eq!(order_from_csv(&written, &graph).unwrap(), order);
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
        match order_from_csv(&text.as_str().into(), &plan.graph) {
            Ok(order) => prop_assert!(Timeline::evaluate(&plan.graph, &order).is_ok()),
            Err(errors) => prop_assert!(!errors.is_empty()),
        }
    }
}
