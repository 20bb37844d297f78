//! The `dip` command.

mod cli;

use std::process::ExitCode;

use clap::Parser;

/// Exit code of a command whose output nobody reads any more: that of the signal that others end with.
const PIPE_CLOSED: i32 = 128 + 13;

fn main() -> ExitCode {
    end_with_the_pipe();
    match cli::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Ends without a word where the reader of a pipe is gone, as in `dip sample | head`: printing panics then.
fn end_with_the_pipe() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload_as_str().unwrap_or_default();
        if text.starts_with("failed printing to stdout") && text.contains("Broken pipe") {
            std::process::exit(PIPE_CLOSED);
        }
        usual(panic);
    }));
}
