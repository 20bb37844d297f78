//! The timeline semantics on graphs of a few tasks.

use super::*;
use crate::cost::Strategy;
use crate::plan::graph::{Dep, Task};
use crate::spec::{MicrobatchId, SegmentId, SubMicrobatchId};

/// A task: rank, kind, microbatch, duration, bytes, dependencies with communication time.
type Row<'a> = (u32, TaskKind, u32, f64, u64, &'a [(u32, f64)]);

fn graph(ranks: u32, rows: &[Row<'_>]) -> TaskGraph {
    let task = |(i, row): (usize, &Row<'_>)| Task {
        id: TaskId::from(i),
        rank: RankId(row.0),
        kind: row.1,
        module: "m".into(),
        segment: SegmentId(0),
        microbatch: MicrobatchId(row.2),
        sub_microbatch: SubMicrobatchId(0),
        duration_s: Seconds(row.3),
        activation_bytes: Bytes(row.4),
        strategy: Strategy::keep(),
        deps: row.5.iter().map(|&(t, c)| Dep { task: TaskId(t), comm_s: Seconds(c) }).collect(),
        candidates: Vec::new(),
    };
    TaskGraph {
        model: "m".into(),
        cluster: "c".into(),
        ranks,
        memory_limit_bytes: vec![Bytes::UNLIMITED; ranks as usize],
        static_bytes: vec![Bytes(7); ranks as usize],
        tasks: rows.iter().enumerate().map(task).collect(),
    }
}

fn ids(lists: &[&[u32]]) -> Vec<Vec<TaskId>> {
    lists.iter().map(|list| list.iter().copied().map(TaskId).collect()).collect()
}

use TaskKind::{Backward as B, Forward as F, Weight as W};

#[test]
fn communication_overlaps_with_computation() {
    // Rank 1 waits until 1 + 0.5, while rank 0 goes on computing.
    let g =
        graph(2, &[(0, F, 0, 1.0, 0, &[]), (0, F, 1, 1.0, 0, &[]), (1, F, 0, 2.0, 0, &[(0, 0.5)])]);
    let t = Timeline::evaluate(&g, &ids(&[&[0, 1], &[2]])).unwrap();
    assert_eq!(t.start, [0.0, 1.0, 1.5].map(Seconds));
    assert_eq!(t.end, [1.0, 2.0, 3.5].map(Seconds));
    assert_eq!(t.makespan, Seconds(3.5));
    assert!((t.bubble_ratio(&g) - (1.0 - 4.0 / 7.0)).abs() < 1e-12);
}

#[test]
fn a_task_starts_when_the_last_of_its_inputs_has_arrived() {
    let rows: &[Row<'_>] = &[
        (0, F, 0, 1.0, 0, &[]),
        (1, F, 0, 3.0, 0, &[]),
        (2, F, 0, 1.0, 0, &[(0, 2.5), (1, 0.25)]),
    ];
    let t = Timeline::evaluate(&graph(3, rows), &ids(&[&[0], &[1], &[2]])).unwrap();
    assert_eq!(t.start[2], Seconds(3.5));
}

#[test]
fn bytes_are_held_until_the_backward_ends() {
    let rows: &[Row<'_>] = &[
        (0, F, 0, 1.0, 10, &[]),
        (0, F, 1, 1.0, 20, &[]),
        (0, B, 0, 1.0, 0, &[(0, 0.0)]),
        (0, B, 1, 1.0, 0, &[(1, 0.0)]),
    ];
    let g = graph(1, rows);
    let peak = |order: &[u32]| Timeline::evaluate(&g, &ids(&[order])).unwrap().peak[0];
    assert_eq!(peak(&[0, 1, 2, 3]), Bytes(7 + 30));
    assert_eq!(peak(&[0, 2, 1, 3]), Bytes(7 + 20));
}

#[test]
fn bytes_are_held_until_the_weight_task_ends_where_there_is_one() {
    let rows: &[Row<'_>] = &[
        (0, F, 0, 1.0, 10, &[]),
        (0, B, 0, 1.0, 0, &[(0, 0.0)]),
        (0, W, 0, 1.0, 0, &[(1, 0.0)]),
        (0, F, 1, 1.0, 20, &[]),
        (0, B, 1, 1.0, 0, &[(3, 0.0)]),
    ];
    let g = graph(1, rows);
    let peak = |order: &[u32]| Timeline::evaluate(&g, &ids(&[order])).unwrap().peak[0];
    assert_eq!(peak(&[0, 1, 3, 2, 4]), Bytes(7 + 30));
    assert_eq!(peak(&[0, 1, 2, 3, 4]), Bytes(7 + 20));
}

#[test]
fn frozen_forwards_free_their_bytes_at_their_own_end() {
    let g = graph(1, &[(0, F, 0, 1.0, 10, &[]), (0, F, 1, 0.0, 30, &[])]);
    let t = Timeline::evaluate(&g, &ids(&[&[0, 1]])).unwrap();
    assert_eq!(t.peak, [Bytes(37)]);
    assert_eq!(t.bubble_ratio(&g), 0.0);
}

#[test]
fn an_empty_graph_takes_no_time() {
    let g = graph(2, &[]);
    let t = Timeline::evaluate(&g, &ids(&[&[], &[]])).unwrap();
    assert_eq!((t.makespan, t.bubble_ratio(&g)), (Seconds::ZERO, 0.0));
    assert_eq!(t.peak, [Bytes(7); 2]);
}

#[test]
fn an_order_in_deadlock_names_where_every_rank_waits() {
    let rows: &[Row<'_>] = &[
        (0, F, 0, 1.0, 0, &[]),
        (1, F, 0, 1.0, 0, &[(0, 0.0)]),
        (1, B, 0, 1.0, 0, &[(1, 0.0)]),
        (0, B, 0, 1.0, 0, &[(2, 0.0)]),
    ];
    let error = Timeline::evaluate(&graph(2, rows), &ids(&[&[3, 0], &[1, 2]])).unwrap_err();
    let stuck = vec![(RankId(0), TaskId(3)), (RankId(1), TaskId(1))];
    assert_eq!(error, TimelineError::Deadlock { stuck });
    assert!(error.to_string().contains("rank 0 waits at task 3, rank 1 waits at task 1"));
}

#[test]
fn an_order_that_does_not_cover_the_graph_is_refused() {
    let g = graph(2, &[(0, F, 0, 1.0, 0, &[]), (1, F, 0, 1.0, 0, &[])]);
    let coverage = |lists: &[&[u32]]| match Timeline::evaluate(&g, &ids(lists)) {
        Err(TimelineError::Coverage { task, rank, times, expected }) => {
            (task.0, rank.0, times, expected.0)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(coverage(&[&[0], &[]]), (1, 1, 0, 1));
    assert_eq!(coverage(&[&[0, 0], &[1]]), (0, 0, 2, 0));
    assert_eq!(coverage(&[&[0, 1], &[]]), (1, 0, 1, 1));
    let unknown = Timeline::evaluate(&g, &ids(&[&[0], &[1, 9]])).unwrap_err();
    let (task, rank) = (TaskId(9), RankId(1));
    assert_eq!(unknown, TimelineError::UnknownTask { task, rank, tasks: 2 });
    let lists = Timeline::evaluate(&g, &ids(&[&[0], &[1], &[]])).unwrap_err();
    assert_eq!(lists, TimelineError::Lists { lists: 3, ranks: 2 });
}
