//! How much a command says, and in which colours: none in a pipe or with `NO_COLOR`.

use std::fmt::Display;
use std::sync::OnceLock;

use anstream::eprintln;
use anstyle::{AnsiColor, Style};
use clap::Args;

/// How much a command says beside its results.
#[derive(Debug, Clone, Copy, Default, Args)]
#[command(next_help_heading = "Output")]
pub struct Verbosity {
    /// Print only results, warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Say more: each step with its time, and details of the results
    #[arg(short, long, global = true)]
    verbose: bool,
}

/// That of this process, set once.
static VERBOSITY: OnceLock<Verbosity> = OnceLock::new();

impl Verbosity {
    /// Makes it that of this process.
    pub fn set(self) {
        VERBOSITY.get_or_init(|| self);
    }

    fn of_process() -> Self {
        VERBOSITY.get().copied().unwrap_or_default()
    }
}

/// True if only results, warnings and errors are wanted.
pub fn is_quiet() -> bool {
    Verbosity::of_process().quiet
}

/// True if details are wanted.
pub fn is_verbose() -> bool {
    Verbosity::of_process().verbose
}

/// The colour of things that are as they should be.
pub const GOOD: Style = AnsiColor::Green.on_default().bold();
/// The colour of warnings.
pub const WARNING: Style = AnsiColor::Yellow.on_default().bold();
/// The colour of errors.
pub const ERROR: Style = AnsiColor::Red.on_default().bold();

/// Prints a warning to standard error.
pub fn warn(text: impl Display) {
    eprintln!("{WARNING}warning:{WARNING:#} {text}");
}

/// Prints an error to standard error.
pub fn error(text: impl Display) {
    eprintln!("{ERROR}error:{ERROR:#} {text}");
}

/// Says on standard error what is done, unless the command is quiet.
pub fn progress(text: impl Display) {
    if !is_quiet() {
        eprintln!("{text}");
    }
}

/// Prints details to standard error, if they are wanted.
pub fn detail(text: impl Display) {
    if is_verbose() {
        eprintln!("{text}");
    }
}
