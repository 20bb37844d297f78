//! Reports of a plan and the trace of its run, virtual or measured: a table, a page, a Perfetto trace, and charts.
//!
//! Reports are strings. Text from files is escaped. Spans of tasks that the plan does not have are left out.

mod breakdown;
mod bubbles;
pub mod charts;
mod chrome;
mod colours;
mod critical;
mod markup;
mod memory;
mod page;
mod run;
mod summary;
mod svg;
mod text;

pub use breakdown::{Breakdown, ModuleTime, breakdown};
pub use bubbles::{Bubble, BubbleCause, bubbles};
pub use chrome::chrome;
pub use critical::critical_path;
pub use memory::{MemoryCurve, memory};
pub use page::html;
pub use run::TimelineRun;
pub use summary::{RankFigures, rank_figures};
pub use svg::svg;
pub use text::table;
