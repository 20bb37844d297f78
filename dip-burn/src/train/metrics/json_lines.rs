//! `metrics.jsonl`: one JSON object for every iteration and evaluation.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use dip_files::Kind;
use serde::{Deserialize, Serialize};

use super::{MetricSink, SinkError};
use crate::checkpoint::CheckpointError;
use crate::train::report::{Evaluation, IterationReport};

/// The metrics file of a run.
pub struct JsonLines {
    path: PathBuf,
    /// Open once the run has started.
    file: Option<File>,
}

#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(in crate::train) enum MetricLine<'a> {
    /// An iteration.
    Train(&'a IterationReport),
    /// An evaluation.
    Evaluation(&'a Evaluation),
}

/// The iteration of a line in the file of an earlier run.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum LineNumber {
    Train { iteration: u64 },
    Evaluation { iteration: u64 },
}

impl JsonLines {
    /// `metrics.jsonl` in the output folder of a run.
    pub fn new(folder: &Path) -> Self {
        Self { path: folder.join("metrics.jsonl"), file: None }
    }

    /// Keeps the lines of the first `iteration` iterations and opens the file at its end.
    fn open(&self, iteration: u64) -> Result<File, CheckpointError> {
        let path = &self.path;
        let io = CheckpointError::io(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(&io)?;
        }
        let mut text = String::new();
        if iteration > 0 && path.exists() {
            for line in BufReader::new(dip_files::open(path, Kind::METRICS).map_err(&io)?).lines() {
                let line = line.map_err(&io)?;
                if is_kept(&line, iteration) {
                    text += &line;
                    text.push('\n');
                }
            }
        }
        dip_files::write_whole(path, text.as_bytes()).map_err(&io)?;
        OpenOptions::new().append(true).open(path).map_err(&io)
    }

    fn write(&mut self, line: &MetricLine<'_>) -> Result<(), SinkError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        Ok(file.write_all(&text).map_err(CheckpointError::io(&self.path))?)
    }
}

/// False for a line that is incomplete, or that the resumed run writes again.
fn is_kept(line: &str, iteration: u64) -> bool {
    match serde_json::from_str(line) {
        Ok(LineNumber::Train { iteration: i }) => i < iteration,
        Ok(LineNumber::Evaluation { iteration: i }) => i <= iteration,
        Err(_) => false,
    }
}

impl MetricSink for JsonLines {
    fn start(&mut self, iteration: u64) -> Result<(), SinkError> {
        self.file = Some(self.open(iteration)?);
        Ok(())
    }

    fn iteration(&mut self, report: &IterationReport) -> Result<(), SinkError> {
        self.write(&MetricLine::Train(report))
    }

    fn evaluation(&mut self, evaluation: &Evaluation) -> Result<(), SinkError> {
        self.write(&MetricLine::Evaluation(evaluation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluation(iteration: u64) -> Evaluation {
        Evaluation { iteration, ..Evaluation::new("loss", 1.0) }
    }

    #[test]
    fn a_resumed_run_drops_lines_after_its_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let mut lines = JsonLines::new(folder.path());
        lines.start(0).unwrap();
        (0..5).for_each(|i| lines.evaluation(&evaluation(i)).unwrap());
        lines.file.take().unwrap().write_all(b"{\"train\":{\"iter").unwrap();
        let mut lines = JsonLines::new(folder.path());
        lines.start(3).unwrap();
        lines.evaluation(&evaluation(4)).unwrap();
        let text = fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
        assert_eq!(text.lines().count(), 5);
        assert!(text.lines().all(|line| line.ends_with('}')));
    }
}
