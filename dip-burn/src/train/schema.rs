//! JSON Schemas of the files of a run.

use dip_core::schema::{FileSchema, of_output};
use schemars::schema_for;

use super::config::RunConfig;
use super::metrics::MetricLine;

/// The schemas of runs and of the lines of `metrics.jsonl`.
pub fn files() -> Vec<FileSchema> {
    let file = |name, holds, schema| FileSchema { name, holds, schema };
    vec![
        file("run", "a training run, TOML", schema_for!(RunConfig)),
        file("metrics", "a line of metrics.jsonl, JSON", of_output::<MetricLine<'static>>()),
    ]
}
