//! Measured timelines as files, for `dip report`.

use std::fs;
use std::path::{Path, PathBuf};

use super::{MetricSink, SinkError};
use crate::checkpoint::CheckpointError;
use crate::train::report::IterationReport;

/// Writes the timelines of an iteration to `<iteration>.jsonl` of a folder, those of further replicas to
/// `<iteration>-<replica>.jsonl`, as `dip.trace/v1`.
pub struct TraceFiles(PathBuf);

impl TraceFiles {
    /// Files in `folder`, which is made with the first timeline.
    pub fn new(folder: &Path) -> Self {
        Self(folder.to_owned())
    }
}

impl MetricSink for TraceFiles {
    fn iteration(&mut self, report: &IterationReport) -> Result<(), SinkError> {
        for timeline in &report.timelines {
            let name = match timeline.replica {
                0 => format!("{}.jsonl", timeline.iteration),
                replica => format!("{}-{replica}.jsonl", timeline.iteration),
            };
            let path = self.0.join(name);
            fs::create_dir_all(&self.0).map_err(CheckpointError::io(&self.0))?;
            fs::write(&path, timeline.to_text()).map_err(CheckpointError::io(&path))?;
        }
        Ok(())
    }
}
