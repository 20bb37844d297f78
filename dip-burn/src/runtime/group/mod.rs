//! The processes that train one run together: they agree on what must be the same, and the first one writes what all have found.
//!
//! Every process calls the same methods in the same order. A [`ProcessGrid`] says which ranks of which replicas each one hosts.

mod error;
mod grid;
mod network;
mod tree;

pub use error::GroupError;
pub use grid::{Position, ProcessGrid, ProcessPlacement};
pub use network::{LinkTime, Network};

use std::fmt::Display;

use twox_hash::XxHash3_64;

/// The remedy if processes were started for different runs.
pub(super) const START_ALIKE: &str = "start all processes with the same run, version and data";
/// Longest text in which a difference is looked for, in bytes.
const MAX_TEXT_BYTES: usize = 8 << 20;
/// Longest difference that is quoted, in characters.
const MAX_QUOTED: usize = 200;

/// This process among all processes of a run.
pub trait ProcessGroup: Send + Sync {
    /// Number of this process, from 0.
    fn index(&self) -> usize;

    /// Number of processes.
    fn size(&self) -> usize;

    /// The machine of a process; empty if it is not known.
    fn host(&self, process: usize) -> String {
        let _ = process;
        String::new()
    }

    /// Sends a message to another process; does not wait for it. Messages to one process arrive in order.
    fn send(&self, to: usize, bytes: Vec<u8>);

    /// The next message of another process. Waits for it.
    ///
    /// # Errors
    /// [`GroupError::Gone`] if the process has ended.
    fn receive(&self, from: usize) -> Result<Vec<u8>, GroupError>;

    /// Accepts messages of up to `bytes`, for groups that refuse long messages by default.
    fn accept_bytes(&self, bytes: usize) {
        let _ = bytes;
    }

    /// The first reason why the processes cannot continue together.
    fn failure(&self) -> Option<GroupError> {
        None
    }

    /// Tells the other processes that this one cannot continue.
    fn abort(&self, reason: &str) {
        let _ = reason;
    }

    /// Tells the other processes that this one ends, and with which error.
    fn leave(&self, error: Option<&str>) {
        let _ = error;
    }
}

impl dyn ProcessGroup + '_ {
    /// True if this process decides for all, and writes metrics and samples.
    pub fn is_first(&self) -> bool {
        self.index() == 0
    }

    /// Runs this process's part, and tells the others how it ended.
    ///
    /// # Errors
    /// The error of `run`.
    pub fn take_part<T, E: Display>(&self, run: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let result = run();
        let error = result.as_ref().err().map(|error| format!("{error:#}"));
        self.leave(error.as_deref());
        result
    }

    /// Runs `make` on the first process and returns its bytes on all.
    ///
    /// # Errors
    /// The error of `make` on the first process, and [`GroupError::Gone`] on the others.
    pub fn compute_on_first<E: From<GroupError>>(
        &self,
        make: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<Vec<u8>, E> {
        let own = if self.is_first() { make()? } else { Vec::new() };
        Ok(self.broadcast(own)?)
    }

    /// The sum over all processes.
    ///
    /// # Errors
    /// [`GroupError::Gone`] if a process has ended.
    pub fn sum(&self, own: u64) -> Result<u64, GroupError> {
        let all = self.all_gather(own.to_le_bytes().to_vec())?;
        let number = |bytes: &Vec<u8>| bytes.first_chunk().map_or(0, |x| u64::from_le_bytes(*x));
        Ok(all.iter().map(number).fold(0, u64::saturating_add))
    }

    /// Checks that `text` is the same on all processes, which compare hashes. A single process does not compute it.
    ///
    /// # Errors
    /// [`GroupError::Differs`] names the first process with another text.
    pub fn agree(&self, what: &str, text: impl FnOnce() -> String) -> Result<(), GroupError> {
        self.agree_or(what, START_ALIKE, text)
    }

    /// As `agree`, with the remedy that the error names.
    ///
    /// # Errors
    /// As `agree`.
    pub fn agree_or(
        &self,
        what: &str,
        remedy: &'static str,
        text: impl FnOnce() -> String,
    ) -> Result<(), GroupError> {
        if self.size() == 1 {
            return Ok(());
        }
        let own = text();
        let hash = |text: &str| XxHash3_64::oneshot(text.as_bytes()).to_le_bytes().to_vec();
        let hashes = self.all_gather(hash(&own))?;
        let Some(odd) = hashes.iter().position(|hash| *hash != hashes[0]) else {
            return Ok(());
        };
        // Texts are long, and there may be thousands of processes: only two are sent, and only now.
        let shown = own.as_bytes()[..own.len().min(MAX_TEXT_BYTES)].to_vec();
        if self.index() == odd {
            self.send(0, shown.clone());
        }
        let of_first = self.broadcast(shown)?;
        let of_odd = if self.is_first() { self.receive(odd)? } else { Vec::new() };
        let of_odd = self.broadcast(of_odd)?;
        // Nobody ends before all know the difference; afterwards each may.
        let _ = self.all_gather(Vec::new());
        let is_odd = hashes[self.index()] != hashes[0];
        let (process, theirs) = if is_odd { (0, of_first) } else { (odd, of_odd) };
        let difference = difference(&String::from_utf8_lossy(&theirs), &own);
        Err(GroupError::Differs { process, what: format!("{what}: {difference}"), remedy })
    }
}

/// A run of one process.
#[derive(Debug, Clone, Copy, Default)]
pub struct SingleProcess;

impl ProcessGroup for SingleProcess {
    fn index(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn send(&self, _: usize, _: Vec<u8>) {}

    fn receive(&self, from: usize) -> Result<Vec<u8>, GroupError> {
        let what = "is not part of a run of one process".into();
        Err(GroupError::Gone { process: from, host: String::new(), what })
    }
}

/// The first `most` characters of a text from another process, without control characters.
pub(super) fn quoted(text: &str, most: usize) -> String {
    text.chars().take(most).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The first line in which two texts differ.
fn difference(theirs: &str, ours: &str) -> String {
    let shown = |line: Option<&str>| match line {
        Some(line) => quoted(line.trim(), MAX_QUOTED),
        None => String::from("nothing"),
    };
    let (mut theirs, mut ours) = (theirs.lines(), ours.lines());
    loop {
        match (theirs.next(), ours.next()) {
            (Some(x), Some(y)) if x == y => {}
            (x, y) => return format!("it has `{}`, this process `{}`", shown(x), shown(y)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_the_first_line_that_differs() {
        let (a, b) = ("name = 1\nseed = 3\nend", "name = 1\nseed = 4\nend");
        assert_eq!(difference(a, b), "it has `seed = 3`, this process `seed = 4`");
        assert_eq!(difference("x", "x\ny"), "it has `nothing`, this process `y`");
    }

    #[test]
    fn a_single_process_agrees_with_itself_and_keeps_its_messages() {
        let group: &dyn ProcessGroup = &SingleProcess;
        assert!(group.is_first());
        assert_eq!(group.sum(7), Ok(7));
        assert_eq!(group.compute_on_first(|| Ok::<_, GroupError>(vec![1])), Ok(vec![1]));
        group.agree("nothing", || unreachable!("there is nobody to agree with")).unwrap();
    }
}
