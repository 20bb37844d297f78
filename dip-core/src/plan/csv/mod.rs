//! Orders in the CSV form of PyTorch's pipelining: `0F0,0F1,2I0,2W0`.
//!
//! A row is a rank, a cell an action, an empty cell a bubble. A cell is the number of a stage, the action (`F` forward, `B`
//! full backward, `I` input gradients, `W` weight gradients) and the number of a microbatch. A backward is `I` where its
//! pair has a weight task, else `B`. Stages are the chunks (rank, module, segment) of the graph in the order in which data
//! flows through them; PyTorch's own loader is more lenient and takes broken orders, which then hang.

mod read;
mod stages;
mod write;

pub use read::order_from_csv;
pub use write::order_to_csv;

use thiserror::Error;

/// Why an order has no CSV form, or a CSV text is no order.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CsvError {
    /// PyTorch's form cannot express the graph.
    #[error("the graph has no form in PyTorch's pipelining CSV: {reason}")]
    Graph {
        /// What stands in the way, and what to do.
        reason: String,
    },
    /// A cell is wrong.
    #[error("row {row}, column {column}: `{cell}` {problem}")]
    Cell {
        /// Row, counted from 1; row 1 is rank 0.
        row: usize,
        /// Column, counted from 1.
        column: usize,
        /// The cell, shortened where it is long.
        cell: String,
        /// What is wrong with it and what to do.
        problem: String,
    },
    /// A row is wrong as a whole.
    #[error("row {row}: {problem}")]
    Row {
        /// Row, counted from 1; row 1 is rank 0.
        row: usize,
        /// What is wrong with it and what to do.
        problem: String,
    },
}
