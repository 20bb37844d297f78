//! `metrics.prom`: the newest figures of a run in the text format of Prometheus, for the textfile collector of its node exporter.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{MetricSink, SinkError, scalars};
use crate::checkpoint::CheckpointError;
use crate::train::report::{Evaluation, IterationReport};

/// Least time between two versions of the file.
const INTERVAL: Duration = Duration::from_secs(1);

/// The newest figures of a run, one file.
pub struct Prometheus {
    path: PathBuf,
    /// The label of all figures.
    run: String,
    /// Values by name, and by rank for those of ranks.
    values: BTreeMap<(String, Option<String>), f64>,
    written: Option<Instant>,
}

impl Prometheus {
    /// `metrics.prom` in the output folder of the run of this name.
    pub fn new(folder: &Path, run: &str) -> Self {
        let (path, run) = (folder.join("metrics.prom"), run.to_owned());
        Self { path, run, values: BTreeMap::new(), written: None }
    }

    fn set(&mut self, iterations: u64, scalars: Vec<(String, f64)>) {
        let own = ("run/iterations".to_owned(), iterations as f64);
        for (tag, value) in scalars.into_iter().chain([own]) {
            let (tag, rank) = match tag.split_once("/rank_") {
                Some((tag, rank)) => (tag, Some(rank.to_owned())),
                None => (tag.as_str(), None),
            };
            self.values.insert((format!("dip_{}", tag.replace('/', "_")), rank), value);
        }
    }

    /// The file: a type for every name, and a line for every value.
    fn text(&self) -> String {
        let run = self.run.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let (mut text, mut before) = (String::new(), "");
        for ((name, rank), value) in &self.values {
            if name != before {
                text.push_str(&format!("# TYPE {name} gauge\n"));
                before = name;
            }
            let rank = rank.as_ref().map_or_else(String::new, |rank| format!(",rank=\"{rank}\""));
            text.push_str(&format!("{name}{{run=\"{run}\"{rank}}} {value}\n"));
        }
        text
    }

    /// Writes the file whole, so that no collector reads a part of it.
    fn write(&mut self) -> Result<(), SinkError> {
        self.written = Some(Instant::now());
        let written = dip_files::write_whole(&self.path, self.text().as_bytes());
        Ok(written.map_err(CheckpointError::io(&self.path))?)
    }
}

impl MetricSink for Prometheus {
    fn iteration(&mut self, report: &IterationReport) -> Result<(), SinkError> {
        self.set(report.iteration + 1, scalars::of_iteration(report));
        match self.written.is_none_or(|written| written.elapsed() >= INTERVAL) {
            true => self.write(),
            false => Ok(()),
        }
    }

    fn evaluation(&mut self, evaluation: &Evaluation) -> Result<(), SinkError> {
        self.set(evaluation.iteration, scalars::of_evaluation(evaluation));
        self.write()
    }

    fn end(&mut self) -> Result<(), SinkError> {
        self.write()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_a_type_once_and_labels_of_run_and_rank() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = Prometheus::new(folder.path(), "a \"b\"");
        let scalars =
            [("train/loss", 1.5), ("memory/peak/rank_0", 2.0), ("memory/peak/rank_1", 3.0)];
        sink.set(7, scalars.map(|(tag, value)| (tag.to_owned(), value)).into());
        sink.write().unwrap();
        let run = r#"run="a \"b\"""#;
        let expected = format!(
            "# TYPE dip_memory_peak gauge\ndip_memory_peak{{{run},rank=\"0\"}} 2\ndip_memory_peak{{{run},rank=\"1\"}} 3\n\
             # TYPE dip_run_iterations gauge\ndip_run_iterations{{{run}}} 7\n\
             # TYPE dip_train_loss gauge\ndip_train_loss{{{run}}} 1.5\n"
        );
        assert_eq!(std::fs::read_to_string(folder.path().join("metrics.prom")).unwrap(), expected);
    }
}
