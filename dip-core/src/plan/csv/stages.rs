//! Numbers the stages of a graph and assigns a cell to each task.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::fmt;
use std::sync::Arc;

use super::CsvError;
use crate::plan::graph::{Task, TaskGraph, TaskKind};
use crate::spec::{MicrobatchId, RankId, SegmentId, TaskId};

/// The content of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Cell {
    pub(super) stage: u32,
    pub(super) action: CellAction,
    pub(super) microbatch: u32,
}

/// The action of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum CellAction {
    Forward,
    FullBackward,
    InputBackward,
    Weight,
}

impl CellAction {
    pub(super) const ALL: [Self; 4] =
        [Self::Forward, Self::FullBackward, Self::InputBackward, Self::Weight];

    pub(super) const fn letter(self) -> char {
        match self {
            Self::Forward => 'F',
            Self::FullBackward => 'B',
            Self::InputBackward => 'I',
            Self::Weight => 'W',
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.stage, self.action.letter(), self.microbatch)
    }
}

/// The key of a chunk: rank, module and segment.
type ChunkKey = (RankId, Arc<str>, SegmentId);

/// The stages of a graph, numbered in the order of the data flow.
pub(super) struct StageTable {
    /// Rank and readable name of each stage.
    pub(super) list: Vec<(RankId, String)>,
    /// The cell of each task.
    pub(super) cells: Vec<Cell>,
    /// The task of each cell.
    pub(super) tasks: HashMap<Cell, TaskId>,
}

impl StageTable {
    /// Numbers the stages of a graph.
    ///
    /// # Errors
    /// [`CsvError::Graph`] if a microbatch has sub-microbatches, or if chunks form a cycle.
    pub(super) fn of(graph: &TaskGraph) -> Result<Self, CsvError> {
        if let Some(task) = graph.tasks.iter().find(|t| t.sub_microbatch.0 != 0) {
            let reason = format!(
                "task {} is of sub-microbatch {}, but PyTorch has no sub-microbatches; plan with whole microbatches",
                task.id, task.sub_microbatch
            );
            return Err(CsvError::Graph { reason });
        }
        let mut index: HashMap<ChunkKey, usize> = HashMap::new();
        let mut chunks: Vec<ChunkKey> = Vec::new();
        let chunk_of: Vec<usize> = graph
            .tasks
            .iter()
            .map(|task| {
                *index.entry(chunk(task)).or_insert_with(|| {
                    chunks.push(chunk(task));
                    chunks.len() - 1
                })
            })
            .collect();
        let number = number(graph, &chunk_of, &chunks)?;
        let mut list = vec![(RankId(0), String::new()); chunks.len()];
        for (c, (rank, module, segment)) in chunks.iter().enumerate() {
            list[number[c] as usize] = (*rank, format!("{module}, segment {segment}"));
        }
        let mut split = vec![false; graph.tasks.len()];
        for pair in graph.pairs() {
            if let (Some(backward), Some(_)) = (pair.backward, pair.weight) {
                split[backward.index()] = true;
            }
        }
        let cell = |(i, task): (usize, &Task)| Cell {
            stage: number[chunk_of[i]],
            action: match task.kind {
                TaskKind::Forward => CellAction::Forward,
                TaskKind::Backward if split[i] => CellAction::InputBackward,
                TaskKind::Backward => CellAction::FullBackward,
                TaskKind::Weight => CellAction::Weight,
            },
            microbatch: task.microbatch.0,
        };
        let cells: Vec<Cell> = graph.tasks.iter().enumerate().map(cell).collect();
        let tasks = cells.iter().zip(&graph.tasks).map(|(&cell, task)| (cell, task.id)).collect();
        Ok(Self { list, cells, tasks })
    }

    /// Numbers the microbatches by their places in `microbatches`.
    ///
    /// # Errors
    /// [`CsvError::Graph`] unless `microbatches` lists every microbatch of the graph once.
    pub(super) fn renumber(mut self, microbatches: &[MicrobatchId]) -> Result<Self, CsvError> {
        let places: HashMap<u32, u32> = microbatches.iter().map(|m| m.0).zip(0..).collect();
        let own: BTreeSet<u32> = self.cells.iter().map(|cell| cell.microbatch).collect();
        let listed = own.iter().all(|microbatch| places.contains_key(microbatch));
        if !listed || own.len() != microbatches.len() {
            let reason = format!(
                "the list of microbatches has {} entries, but must have each of the {} microbatches of the graph once; \
                 give the list that was written with the order",
                microbatches.len(),
                own.len()
            );
            return Err(CsvError::Graph { reason });
        }
        for cell in &mut self.cells {
            cell.microbatch = places[&cell.microbatch];
        }
        self.tasks = self.cells.iter().enumerate().map(|(i, &c)| (c, TaskId::from(i))).collect();
        Ok(self)
    }

    /// The cell of a task as text.
    pub(super) fn text(&self, task: TaskId) -> String {
        self.cells[task.index()].to_string()
    }
}

fn chunk(task: &Task) -> ChunkKey {
    (task.rank, task.module.clone(), task.segment)
}

/// Numbers the chunks in topological order. Among the chunks that are ready, the one whose task comes first in the graph is
/// next.
fn number(
    graph: &TaskGraph,
    chunk_of: &[usize],
    chunks: &[ChunkKey],
) -> Result<Vec<u32>, CsvError> {
    let mut edges = BTreeSet::new();
    for task in graph.tasks.iter().filter(|t| t.kind == TaskKind::Forward) {
        let to = chunk_of[task.id.index()];
        let producers = task.deps.iter().map(|d| graph.task(d.task));
        let producers = producers.filter(|p| p.kind == TaskKind::Forward);
        edges.extend(
            producers.map(|p| (chunk_of[p.id.index()], to)).filter(|(from, to)| from != to),
        );
    }
    let mut waiting = vec![0usize; chunks.len()];
    for &(_, to) in &edges {
        waiting[to] += 1;
    }
    let mut number = vec![u32::MAX; chunks.len()];
    let mut free: BinaryHeap<_> =
        (0..chunks.len()).filter(|&c| waiting[c] == 0).map(Reverse).collect();
    let mut next = 0;
    while let Some(Reverse(c)) = free.pop() {
        number[c] = next;
        next += 1;
        for &(_, to) in edges.range((c, 0)..=(c, usize::MAX)) {
            waiting[to] -= 1;
            if waiting[to] == 0 {
                free.push(Reverse(to));
            }
        }
    }
    match number.iter().position(|&n| n == u32::MAX) {
        None => Ok(number),
        Some(c) => {
            let (rank, module, segment) = &chunks[c];
            let reason = format!(
                "module {module}, segment {segment} on rank {rank} is part of a cycle of chunks, so that stages have no order; \
                 remove dependencies between microbatches"
            );
            Err(CsvError::Graph { reason })
        }
    }
}
