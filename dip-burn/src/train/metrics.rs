//! `metrics.jsonl`, one JSON object for every iteration and evaluation, and the same for TensorBoard.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::MetricsConfig;
use super::checkpoint::CheckpointError;
use super::report::{Evaluation, IterationReport};
use super::scalars;
use super::tensorboard::EventFile;

/// The metrics file of a run.
pub struct Metrics {
    path: PathBuf,
    file: File,
    tensorboard: Option<EventFile>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Line<'a> {
    Train(&'a IterationReport),
    Evaluation(&'a Evaluation),
}

/// What is read back of a line: its number.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kept {
    Train { iteration: u64 },
    Evaluation { iteration: u64 },
}

impl Metrics {
    /// Opens the file of a run that goes on at `iteration`: what a killed run wrote beyond that is dropped.
    ///
    /// # Errors
    /// [`CheckpointError::Io`] names the file.
    pub fn open(
        folder: &Path,
        iteration: u64,
        config: &MetricsConfig,
    ) -> Result<Self, CheckpointError> {
        let path = folder.join("metrics.jsonl");
        let io = io_at(&path);
        fs::create_dir_all(folder).map_err(&io)?;
        let mut kept = Vec::new();
        if iteration > 0 && path.exists() {
            for line in BufReader::new(File::open(&path).map_err(&io)?).lines() {
                let line = line.map_err(&io)?;
                match serde_json::from_str(&line) {
                    Ok(Kept::Train { iteration: i }) if i < iteration => kept.push(line),
                    Ok(Kept::Evaluation { iteration: i }) if i <= iteration => kept.push(line),
                    // A line that was cut off by a kill, or is to be written again.
                    _ => {}
                }
            }
        }
        let mut text = kept.join("\n");
        if !text.is_empty() {
            text.push('\n');
        }
        let partial = path.with_extension("jsonl.partial");
        fs::write(&partial, text).map_err(&io)?;
        fs::rename(&partial, &path).map_err(&io)?;
        let file = OpenOptions::new().append(true).open(&path).map_err(&io)?;
        let events = folder.join("tensorboard");
        let tensorboard = match config.tensorboard {
            // Steps are iterations that are done, so that the evaluation behind the last of them stays.
            true => Some(EventFile::create(&events, iteration + 1).map_err(io_at(&events))?),
            false => None,
        };
        Ok(Self { path, file, tensorboard })
    }

    /// Adds an iteration.
    ///
    /// # Errors
    /// [`CheckpointError::Io`] names the file.
    pub fn iteration(&mut self, report: &IterationReport) -> Result<(), CheckpointError> {
        self.line(&Line::Train(report))?;
        self.scalars(report.iteration + 1, &scalars::of_iteration(report))
    }

    /// Adds an evaluation.
    ///
    /// # Errors
    /// [`CheckpointError::Io`] names the file.
    pub fn evaluation(&mut self, evaluation: &Evaluation) -> Result<(), CheckpointError> {
        self.line(&Line::Evaluation(evaluation))?;
        self.scalars(evaluation.iteration, &scalars::of_evaluation(evaluation))
    }

    fn line(&mut self, line: &Line<'_>) -> Result<(), CheckpointError> {
        let mut text = serde_json::to_vec(line).expect("plain data has a JSON form");
        text.push(b'\n');
        self.file.write_all(&text).map_err(io_at(&self.path))
    }

    fn scalars(&mut self, step: u64, scalars: &[(String, f64)]) -> Result<(), CheckpointError> {
        let Some(events) = &mut self.tensorboard else { return Ok(()) };
        events.scalars(step, scalars).map_err(|e| io_at(events.path())(e))
    }
}

fn io_at(path: &Path) -> impl Fn(std::io::Error) -> CheckpointError + use<> {
    let path = path.to_owned();
    move |source| CheckpointError::Io { path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluation(iteration: u64) -> Evaluation {
        Evaluation { iteration, ..Evaluation::new("loss", 1.0) }
    }

    #[test]
    fn a_resumed_run_drops_what_was_written_beyond_its_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let mut metrics = Metrics::open(folder.path(), 0, &MetricsConfig::default()).unwrap();
        (0..5).for_each(|i| metrics.evaluation(&evaluation(i)).unwrap());
        metrics.file.write_all(b"{\"train\":{\"iter").unwrap();
        let mut metrics = Metrics::open(folder.path(), 3, &MetricsConfig::default()).unwrap();
        metrics.evaluation(&evaluation(4)).unwrap();
        let text = fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
        assert_eq!(text.lines().count(), 5);
        assert!(text.lines().all(|line| line.ends_with('}')));
    }
}
