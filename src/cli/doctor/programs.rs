//! Programs that some runs call.

use std::process::{Command, Stdio};

use super::Check;

/// `ffmpeg`, which decodes videos, and the launcher of MPI.
pub fn checks() -> Vec<Check> {
    vec![
        program(
            "ffmpeg",
            &["ffmpeg", "-version"],
            "needed for .mp4, .webm and other videos; on Debian, apt install ffmpeg",
        ),
        program(
            "MPI",
            &["mpirun", "--version"],
            "needed for several processes under MPI; on Debian, apt install openmpi-bin",
        ),
    ]
}

/// Runs a program for its version, the first line that it prints.
fn program(name: &'static str, command: &[&str], remedy: &str) -> Check {
    let [program, arguments @ ..] = command else { return Check::ok(name, "") };
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let line = text.lines().next().unwrap_or_default();
            Check::ok(name, line.chars().filter(|c| !c.is_control()).collect::<String>())
        }
        Ok(output) => Check::absent(name, format!("{program} ends with {}", output.status), remedy),
        Err(_) => Check::absent(name, format!("no {program} in the PATH"), remedy),
    }
}
