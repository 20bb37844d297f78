//! SIGTERM and Ctrl-C: the run finishes its iteration and writes a checkpoint. A second Ctrl-C ends it at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use dip::train::StopRequest;
use indicatif::MultiProgress;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::cli::{INTERRUPTED, terminal};

/// Time between two looks at the flag.
const POLL: Duration = Duration::from_millis(50);

/// The signals that stop a run.
pub struct Signals {
    interrupted: Arc<AtomicBool>,
}

impl Signals {
    /// Turns signals of this process into requests to `stop`, and says so above the `lines` that are drawn.
    ///
    /// # Errors
    /// The system's error.
    pub fn stop(stop: &StopRequest, lines: MultiProgress) -> io::Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        // Looks at the flag before the next line sets it.
        flag::register_conditional_shutdown(SIGINT, INTERRUPTED.into(), interrupted.clone())?;
        flag::register(SIGINT, interrupted.clone())?;
        flag::register(SIGINT, stop.flag())?;
        flag::register(SIGTERM, stop.flag())?;
        let stop = stop.clone();
        thread::spawn(move || {
            while !stop.is_requested() {
                thread::sleep(POLL);
            }
            let text = "stopping after this iteration, with a checkpoint; Ctrl-C ends at once";
            lines.suspend(|| terminal::progress(text));
        });
        Ok(Self { interrupted })
    }

    /// Exit code of a run that has stopped.
    pub fn exit_code(&self) -> u8 {
        if self.interrupted.load(Ordering::SeqCst) { INTERRUPTED } else { 0 }
    }
}
