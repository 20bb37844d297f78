//! Orders in the CSV form of PyTorch's pipelining, such as `0F0,0F1,2I0,2W0`.
//!
//! Each row is a rank and each cell an action; an empty cell is a bubble. A cell has the number of a stage, a letter (`F`
//! forward, `B` full backward, `I` input gradients, `W` weight gradients) and the number of a microbatch. A backward is `I` if
//! its pair has a weight task, else `B`. Stages are the chunks (rank, module, segment) of the graph, numbered in the order of
//! the data flow.
//!
//! The reader is stricter than PyTorch's loader, which accepts broken orders that hang at run time.

mod read;
mod stages;
mod write;

pub use read::order_from_csv;
pub use write::order_to_csv;

use thiserror::Error;

/// An order that has no CSV form, or a CSV text that is not an order.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CsvError {
    /// PyTorch's form cannot express the graph.
    #[error("the graph has no form in PyTorch's pipelining CSV: {reason}")]
    Graph {
        /// The reason, and what to do.
        reason: String,
    },
    /// A cell is wrong.
    #[error("row {row}, column {column}: `{cell}` {problem}")]
    Cell {
        /// Row number from 1. Row 1 is rank 0.
        row: usize,
        /// Column number from 1.
        column: usize,
        /// The text of the cell; a long one is shortened.
        cell: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A row is wrong as a whole.
    #[error("row {row}: {problem}")]
    Row {
        /// Row number from 1. Row 1 is rank 0.
        row: usize,
        /// What is wrong, and what to do.
        problem: String,
    },
}
