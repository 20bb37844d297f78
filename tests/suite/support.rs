//! Runs of the command in a folder of their own.

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

    /// A folder with a model and a run of it, `small.toml` and `run.toml`.
    #[cfg(feature = "train")]
    pub fn of_run(model: &str, run: &str) -> Self {
        let folder = Self::new();
        folder.write("small.toml", model);
        folder.write("run.toml", run);
        folder
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

/// What a run of the command gave.
pub struct Run(Output);

impl Run {
    /// A run that has ended.
    #[cfg(feature = "nodes")]
    pub fn of(output: Output) -> Self {
        Self(output)
    }

    /// Standard output of a run that must succeed.
    pub fn ok(self) -> String {
        assert!(self.0.status.success(), "{}", self.error());
        String::from_utf8(self.0.stdout).unwrap()
    }

    /// Standard error of a run that must end with `code`.
    pub fn fails(self, code: i32) -> String {
        assert_eq!(self.0.status.code(), Some(code), "{}", self.error());
        self.error()
    }

    /// Standard output of a run that must end with `code`.
    pub fn says(self, code: i32) -> String {
        assert_eq!(self.0.status.code(), Some(code), "{}", self.error());
        String::from_utf8(self.0.stdout).unwrap()
    }

    fn error(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }
}

/// The text of a file.
pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// The loss of every iteration, as written.
#[cfg(feature = "train")]
pub fn losses(folder: &Folder, output: &str) -> Vec<(u64, String)> {
    let metrics = read(&folder.path(output).join("metrics.jsonl"));
    let lines = metrics.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
    lines
        .filter_map(|line| {
            let train = line.get("train")?;
            Some((train["iteration"].as_u64()?, train["loss"].to_string()))
        })
        .collect()
}
