//! Orders in the CSV form of PyTorch's pipelining, such as `0F0,0F1,2I0,2W0`.
//!
//! Each row is a rank and each cell an action; an empty cell is a bubble. A cell has the number of a stage, a letter (`F`
//! forward, `B` full backward, `I` input gradients, `W` weight gradients) and the number of a microbatch. Stages are the chunks
//! (rank, module, segment) of the graph, numbered in the order of the data flow.
//!
//! **Written** files run in PyTorch. A backward is `I` if its pair has a weight task, else `B`. PyTorch looks up a loss by its
//! microbatch number but stores losses in the order of execution, so microbatches are numbered in the order in which the last
//! stage runs their forwards; [`CsvOrder::microbatches`] keeps the numbers of the graph.
//!
//! **Read** files may come from PyTorch. `B` stands for backward and weight task of a pair that has both. An overlapped cell such
//! as `(1F1;0B0)OVERLAP_F_B` is read as its parts, one after another. Communication and gradient reduction (`0SEND_F1`,
//! `2REDUCE_GRAD`) are skipped: the graph gives them. Otherwise the reader is stricter than PyTorch's loader, which accepts broken
//! orders that hang at run time.

mod read;
mod stages;
mod write;

pub use read::order_from_csv;
pub use write::order_to_csv;

use thiserror::Error;

use crate::spec::MicrobatchId;

/// An order as CSV.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsvOrder {
    /// One row per rank.
    pub text: String,
    /// The microbatch of the graph for each microbatch number of the text; empty if the numbers are equal.
    pub microbatches: Vec<MicrobatchId>,
}

impl From<&str> for CsvOrder {
    /// An order whose microbatches have the numbers of the graph.
    fn from(text: &str) -> Self {
        Self { text: text.to_owned(), microbatches: Vec::new() }
    }
}

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
