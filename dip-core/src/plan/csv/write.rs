//! Writes an order as CSV.

use super::stages::{Cell, CellAction, StageTable};
use super::{CsvError, CsvOrder};
use crate::plan::graph::{Task, TaskGraph, TaskKind};
use crate::spec::{MicrobatchId, TaskId};

/// Writes an order, one row per rank, without bubbles.
///
/// # Errors
/// [`CsvError::Graph`] if PyTorch cannot run the graph: it has sub-microbatches, its stages are not one chain that every
/// microbatch passes forwards and backwards, or its chunks form a cycle. [`CsvError::Row`] if the order names a task that the graph
/// does not have.
pub fn order_to_csv(graph: &TaskGraph, order: &[Vec<TaskId>]) -> Result<CsvOrder, CsvError> {
    let stages = StageTable::of(graph)?;
    check_chain(graph, &stages)?;
    for (rank, list) in order.iter().enumerate() {
        if let Some(id) = list.iter().find(|id| id.index() >= graph.tasks.len()) {
            let n = graph.tasks.len();
            let problem = format!("task {id} is not one of {n} tasks; correct the order");
            return Err(CsvError::Row { row: rank + 1, problem });
        }
    }
    let microbatches = by_last_stage(&stages, order);
    let stages = stages.renumber(&microbatches)?;
    let rows = order.iter().map(|list| {
        let cells: Vec<_> = list.iter().map(|&id| stages.text(id)).collect();
        cells.join(",") + "\n"
    });
    let text = rows.collect();
    let unchanged = microbatches.iter().zip(0..).all(|(microbatch, number)| microbatch.0 == number);
    Ok(CsvOrder { text, microbatches: if unchanged { Vec::new() } else { microbatches } })
}

/// The microbatches in the order of their forwards on the last stage.
fn by_last_stage(stages: &StageTable, order: &[Vec<TaskId>]) -> Vec<MicrobatchId> {
    let last = stages.list.len().saturating_sub(1) as u32;
    let cells = order.iter().flatten().map(|id| stages.cells[id.index()]);
    cells
        .filter(|cell| cell.stage == last && cell.action == CellAction::Forward)
        .map(|cell| MicrobatchId(cell.microbatch))
        .collect()
}

/// Checks that every microbatch passes all stages, from each to the next, forwards and backwards.
fn check_chain(graph: &TaskGraph, stages: &StageTable) -> Result<(), CsvError> {
    let refused = |reason: String| Err(CsvError::Graph { reason });
    for pair in graph.pairs() {
        let Cell { stage, microbatch, .. } = stages.cells[pair.forward.index()];
        let name = &stages.list[stage as usize].1;
        if pair.backward.is_none() {
            return refused(format!(
                "stage {stage} ({name}) has no backward, but PyTorch runs one for every stage; train the module"
            ));
        }
        let missing = (0..stages.list.len() as u32).find(|&stage| {
            !stages.tasks.contains_key(&Cell { stage, action: CellAction::Forward, microbatch })
        });
        if let Some(missing) = missing {
            return refused(format!(
                "microbatch {microbatch} does not use stage {missing} ({}), but in PyTorch every microbatch passes all \
                 stages; leave out such microbatches",
                stages.list[missing as usize].1
            ));
        }
        let forward = graph.task(pair.forward);
        let expected = stage.checked_sub(1).map(|stage| Cell {
            stage,
            action: CellAction::Forward,
            microbatch,
        });
        if !inputs(graph, stages, forward).eq(expected) {
            return refused(format!(
                "stage {stage} ({name}) does not take its input from the stage before it alone, but PyTorch's stages are \
                 a chain; write dip.plan/v1 instead"
            ));
        }
    }
    Ok(())
}

/// The cells of the forwards that a forward depends on.
fn inputs<'a>(
    graph: &'a TaskGraph,
    stages: &'a StageTable,
    task: &'a Task,
) -> impl Iterator<Item = Cell> + 'a {
    let producers = task.deps.iter().map(|dep| dep.task);
    let forwards = producers.filter(|&id| graph.task(id).kind == TaskKind::Forward);
    forwards.map(|id| stages.cells[id.index()])
}
