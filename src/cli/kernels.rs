//! Says when a GPU compiles kernels: the first start on a card does so for minutes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use dip::train::backend::kernel_folder;
use log::{LevelFilter, Log, Metadata, Record};

use super::terminal::progress;

/// Time between two messages.
const PAUSE: Duration = Duration::from_secs(10);

static WATCH: Watch =
    Watch { compiled: AtomicU64::new(0), read: AtomicU64::new(0), said: Mutex::new(None) };

/// Listens to the backend, which logs every kernel.
struct Watch {
    compiled: AtomicU64,
    /// Kernels that were read from disk.
    read: AtomicU64,
    /// The time of the last message.
    said: Mutex<Option<Instant>>,
}

/// Starts to listen.
pub fn watch() {
    // Another logger may be there already; then nothing is said.
    if log::set_logger(&WATCH).is_ok() {
        log::set_max_level(LevelFilter::Trace);
    }
}

/// Prints how many kernels were compiled, and how many were found on disk.
pub fn print_summary() {
    let (compiled, read) =
        (WATCH.compiled.load(Ordering::Relaxed), WATCH.read.load(Ordering::Relaxed));
    if compiled + read > 0 {
        progress(format!("kernels: {compiled} compiled, {read} found on disk{}", place()));
    }
}

/// The folder of the kernels, in words.
fn place() -> String {
    kernel_folder().map_or_else(String::new, |folder| format!(" in {}", folder.display()))
}

impl Watch {
    fn count_compiled(&self) {
        let compiled = self.compiled.fetch_add(1, Ordering::Relaxed) + 1;
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        match *said {
            None => progress(format!("compiling kernels; later starts find them{}", place())),
            Some(at) if at.elapsed() > PAUSE => progress(format!("compiled {compiled} kernels")),
            Some(_) => return,
        }
        *said = Some(Instant::now());
    }
}

impl Log for Watch {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("cubecl_cuda::compute")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        match record.args().as_str() {
            Some("Compiling kernel") => self.count_compiled(),
            Some("Using PTX cache") => {
                self.read.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    fn flush(&self) {}
}
