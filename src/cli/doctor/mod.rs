//! `dip doctor`: what this machine and this build can do, and what a run needs of them.

mod machine;
#[cfg(feature = "train")]
mod needs;
mod programs;

#[cfg(feature = "train")]
use std::path::PathBuf;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use anyhow::Result;
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::output::{Figures, JsonOutput};
use super::terminal::{ERROR, GOOD};
#[cfg(feature = "train")]
pub use machine::free_memory;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dip doctor
  dip doctor --for run.toml

Exit code: 1 if the run needs something that is missing")]
pub struct Doctor {
    /// Also look for all that this run needs, a TOML file
    #[cfg(feature = "train")]
    #[arg(long = "for", value_name = "RUN")]
    run: Option<PathBuf>,
    #[command(flatten)]
    json: JsonOutput,
}

/// What `dip doctor` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DoctorFigures {
    /// False if the run needs something that is missing.
    ok: bool,
    checks: Vec<Check>,
}

/// One thing that was looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Check {
    name: &'static str,
    state: State,
    /// What was found.
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum State {
    /// It is there.
    Ok,
    /// It is not there, and only some runs need it.
    Absent,
    /// The run needs it, and it is not there.
    Missing,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Ok, found: found.into(), remedy: None }
    }

    fn absent(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (found, remedy) = (found.into(), Some(remedy.into()));
        Self { name, state: State::Absent, found, remedy }
    }

    /// The same, as a thing that the run needs.
    #[cfg(feature = "train")]
    fn needed(self) -> Self {
        let is_absent = self.state == State::Absent;
        Self { state: if is_absent { State::Missing } else { self.state }, ..self }
    }
}

impl Figures for DoctorFigures {
    const SCHEMA: &'static str = "dip.doctor/v1";
}

impl Doctor {
    pub fn run(&self) -> Result<ExitCode> {
        let mut checks = vec![build()];
        checks.extend(machine::checks());
        #[cfg(feature = "train")]
        checks.extend(needs::devices());
        checks.extend(programs::checks());
        #[cfg(feature = "train")]
        if let Some(run) = &self.run {
            needs::of_run(run, &mut checks)?;
        }
        let ok = checks.iter().all(|check| check.state != State::Missing);
        let figures = DoctorFigures { ok, checks };
        self.json.print(&figures, || figures.print())?;
        Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl DoctorFigures {
    fn print(&self) {
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
        for Check { name, state, found, remedy } in &self.checks {
            let (word, colour) = match state {
                State::Ok => ("ok", GOOD),
                State::Absent => ("-", Style::new()),
                State::Missing => ("missing", ERROR),
            };
            anstream::print!("{colour}{word:<7}{colour:#}  {name:width$}  {found}");
            let dim = AnsiColor::BrightBlack.on_default();
            match remedy {
                Some(remedy) => anstream::println!("; {dim}{remedy}{dim:#}"),
                None => println!(),
            }
        }
    }
}

/// The version and the features of this build.
fn build() -> Check {
    let features = [
        ("train", cfg!(feature = "train")),
        ("cuda", cfg!(feature = "cuda")),
        ("wgpu", cfg!(feature = "wgpu")),
        ("rocm", cfg!(feature = "rocm")),
        ("mpi", cfg!(feature = "mpi")),
        ("audio", cfg!(feature = "audio")),
        ("parquet", cfg!(feature = "parquet")),
        ("remote", cfg!(feature = "remote")),
    ];
    let on: Vec<_> = features.iter().filter(|(_, is_on)| *is_on).map(|(name, _)| *name).collect();
    let with = if on.is_empty() { "no features".into() } else { on.join(", ") };
    Check::ok("dip", format!("{} with {with}", env!("CARGO_PKG_VERSION")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "train")]
    #[test]
    fn only_what_a_run_needs_is_missing() {
        let absent = Check::absent("ffmpeg", "not found", "install it");
        assert_eq!(absent.clone().needed().state, State::Missing);
        assert_eq!(absent.state, State::Absent);
        assert_eq!(Check::ok("ffmpeg", "6.0").needed().state, State::Ok);
    }
}
