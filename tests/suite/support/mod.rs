//! Runs of the command, each in its own folder.

pub mod inputs;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A folder that is removed at the end of the test.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The command in this folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dip"));
        command.args(arguments).current_dir(self.0.path()).stdin(Stdio::null());
        command
    }

    /// Runs the command to its end.
    pub fn dip(&self, arguments: &[&str]) -> Run {
        Run(self.command(arguments).output().unwrap())
    }
}

/// A run of the command that has ended.
pub struct Run(Output);

impl Run {
    pub fn of(output: Output) -> Self {
        Self(output)
    }

    /// True if the run succeeded.
    pub fn succeeds(&self) -> bool {
        self.0.status.success()
    }

    /// Standard output of a run that must succeed.
    pub fn ok(self) -> String {
        self.says(0)
    }

    /// Standard output of a run that must end with `code`.
    pub fn says(self, code: i32) -> String {
        assert_eq!(self.0.status.code(), Some(code), "{}", self.error());
        String::from_utf8(self.0.stdout).unwrap()
    }

    /// Standard error of a run that must end with `code`.
    pub fn fails(self, code: i32) -> String {
        assert_eq!(self.0.status.code(), Some(code), "{}", self.error());
        self.error()
    }

    /// Its exit code; `None` if a signal has ended it.
    pub fn code(&self) -> Option<i32> {
        self.0.status.code()
    }

    /// True if the limit of its processor time has ended it.
    #[cfg(unix)]
    pub fn is_out_of_time(&self) -> bool {
        use std::os::unix::process::ExitStatusExt;
        const SIGXCPU: i32 = 24;
        const SIGKILL: i32 = 9;
        matches!(self.0.status.signal(), Some(SIGXCPU | SIGKILL))
    }

    /// Standard error.
    pub fn error(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }
}

/// The text of a file.
pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// Helpers of the tests of training.
#[cfg(feature = "train")]
mod training {
    use std::collections::BTreeMap;
    use std::path::Path;

    use dip::train::checkpoint::CheckpointReader;
    use dip::train::params::TensorSource;
    use serde_json::Value;

    use super::{Folder, read};

    impl Folder {
        /// A folder with a model and a run of it, `small.toml` and `run.toml`.
        pub fn of_run(model: &str, run: &str) -> Self {
            let folder = Self::new();
            folder.write("small.toml", model);
            folder.write("run.toml", run);
            folder
        }

        /// Gives the output folder `to` the profile of `from`. Runs with one profile place layers on the same ranks, and sum in the same order.
        pub fn share_profile(&self, from: &str, to: &str) {
            std::fs::create_dir(self.path(to)).unwrap();
            let profile = |output: &str| self.path(output).join("profile.json");
            std::fs::copy(profile(from), profile(to)).unwrap();
        }

        /// Copies the files of a folder, but not its folders, into another one.
        pub fn copy(&self, from: &str, to: &str) {
            std::fs::create_dir_all(self.path(to)).unwrap();
            let files = std::fs::read_dir(self.path(from)).unwrap().map(Result::unwrap);
            for file in files.filter(|file| file.path().is_file()) {
                std::fs::copy(file.path(), self.path(to).join(file.file_name())).unwrap();
            }
        }

        /// One field of the report of every iteration.
        pub fn metric(&self, output: &str, field: &str) -> Vec<Value> {
            let metrics = read(&self.path(output).join("metrics.jsonl"));
            let lines = metrics.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
            lines.filter_map(|line| line.get("train").map(|train| train[field].clone())).collect()
        }

        /// The number and the loss of every iteration, with the digits of `metrics.jsonl`.
        pub fn losses(&self, output: &str) -> Vec<(u64, String)> {
            let number = |value: &Value| value.as_u64().unwrap();
            let iterations = self.metric(output, "iteration");
            let losses = self.metric(output, "loss");
            iterations.iter().map(number).zip(losses.iter().map(Value::to_string)).collect()
        }

        /// The largest memory of any rank in each iteration.
        pub fn peaks(&self, output: &str) -> Vec<u64> {
            let largest = |ranks: &Value| {
                let bytes = ranks.as_array().unwrap().iter().map(|bytes| bytes.as_u64().unwrap());
                bytes.max().unwrap()
            };
            self.metric(output, "peak_bytes").iter().map(largest).collect()
        }
    }

    /// All tensors of a checkpoint that is whole, and the progress of its run.
    pub fn saved(checkpoint: &Path) -> (BTreeMap<String, Vec<u8>>, Value) {
        let reader = CheckpointReader::open(checkpoint).unwrap();
        reader.verify(0, 1).unwrap();
        let bytes = |name| reader.tensor(name).unwrap().unwrap().as_bytes().to_vec();
        let tensors = reader.names().map(|name| (name.to_owned(), bytes(name))).collect();
        (tensors, reader.state().unwrap())
    }

    /// Checks that two runs have the same losses, to rounding.
    pub fn assert_close(some: &[(u64, String)], others: &[(u64, String)]) {
        assert_eq!(some.len(), others.len());
        for (a, b) in some.iter().zip(others) {
            let (x, y): (f64, f64) = (a.1.parse().unwrap(), b.1.parse().unwrap());
            assert!(a.0 == b.0 && (x - y).abs() < 1e-4 * x, "{a:?} {b:?}");
        }
    }

    /// The last loss that `dip train --compare` prints for a schedule.
    pub fn last_loss(text: &str, schedule: &str) -> f64 {
        let is_row = |l: &&str| l.starts_with(&format!("{schedule} ")) && l.contains("ms");
        let row = text.lines().find(is_row).unwrap();
        row.split_whitespace().last().unwrap().parse().unwrap()
    }

    /// The bytes that a run needs, from the error that refuses its memory limit.
    pub fn bytes_needed(error: &str) -> u64 {
        let need = error.split("needs ").nth(1).and_then(|rest| rest.split(' ').next());
        need.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{error}"))
    }
}

#[cfg(feature = "train")]
pub use training::{assert_close, bytes_needed, last_loss, saved};
