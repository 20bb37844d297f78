//! The `dip` command.

mod cli;

use std::process::ExitCode;

/// Exit code of a command whose reader has closed the pipe, as of a command that the signal SIGPIPE ends.
const PIPE_CLOSED: i32 = 128 + 13;

fn main() -> ExitCode {
    end_when_the_pipe_closes();
    match cli::Cli::from_arguments().run() {
        Ok(code) => code,
        Err(error) => cli::fail(&error),
    }
}

/// Ends silently when the reader of a pipe is gone, as in `dip sample | head`. Printing would panic.
fn end_when_the_pipe_closes() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload_as_str().unwrap_or_default();
        if text.starts_with("failed printing to stdout") && text.contains("Broken pipe") {
            std::process::exit(PIPE_CLOSED);
        }
        default(panic);
    }));
}
