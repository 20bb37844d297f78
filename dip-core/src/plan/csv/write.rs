//! Writes an order as CSV.

use super::CsvError;
use super::stages::StageTable;
use crate::plan::graph::TaskGraph;
use crate::spec::TaskId;

/// Writes an order, one row per rank, without bubbles.
///
/// # Errors
/// [`CsvError::Graph`] if the graph has sub-microbatches or its chunks form a cycle; [`CsvError::Row`] if the order names a
/// task that the graph does not have.
pub fn order_to_csv(graph: &TaskGraph, order: &[Vec<TaskId>]) -> Result<String, CsvError> {
    let stages = StageTable::of(graph)?;
    let mut text = String::new();
    for (rank, list) in order.iter().enumerate() {
        for (i, id) in list.iter().enumerate() {
            let Some(cell) = stages.cells.get(id.index()) else {
                let n = graph.tasks.len();
                let problem = format!("task {id} is not one of {n} tasks; correct the order");
                return Err(CsvError::Row { row: rank + 1, problem });
            };
            if i > 0 {
                text.push(',');
            }
            text.push_str(&cell.to_string());
        }
        text.push('\n');
    }
    Ok(text)
}
