//! Reports of a plan and the trace of its run, virtual or measured: a table, a page, a Perfetto trace, and charts.
//!
//! Reports are strings. Text from files is escaped. Spans of tasks that the plan does not have are left out.

pub mod charts;
mod chrome;
mod html;
mod markup;
mod memory;
mod summary;
mod text;

pub use chrome::chrome;
pub use html::html;
pub use memory::{MemoryCurve, memory};
pub use text::table;
