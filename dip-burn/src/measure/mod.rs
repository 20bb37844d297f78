//! Measures time and memory of the parts of a model on this machine, as a profile for the planner.
//!
//! Every module is measured through the same [`ChunkStage`](crate::stage::ChunkStage) that trains it, in chunks that differ by one
//! part, so that differences give the parts. As many threads measure at once as there will be ranks, since ranks share caches,
//! memory bandwidth and clock.
//!
//! | file | holds |
//! |---|---|
//! | `profiler` | the profile of a model, from a file or measured |
//! | `probe` | one module at one size |
//! | `inputs`, `stages`, `memory` | the inputs, the seconds and the bytes of a probe |
//! | `figures` | arithmetic of measurements |
//! | `images` | how times change with the sizes of images |
//! | `sizes` | the sizes of images that a run is measured on |
//! | `operators` | single operators, for the calibration of analytic costs |
//! | `kernels` | kernels beside their twins in Burn's operations |
//! | `peak` | the peak FLOP/s of a rank |
//! | `meeting` | a barrier for threads that measure at the same time |

mod figures;
mod images;
mod inputs;
pub mod kernels;
mod meeting;
mod memory;
pub mod operators;
mod peak;
mod probe;
mod profiler;
mod settings;
mod sizes;
mod stages;

use std::path::PathBuf;

use burn::tensor::StreamId;
use burn::tensor::backend::Backend;
use dip_core::{LinkError, SpecError, StageError};
use thiserror::Error;

use crate::model::ModelError;
use crate::params::ReadError;
pub use figures::undisturbed;
use meeting::Meeting;
pub use profiler::Profiler;
pub use settings::MeasureSettings;
pub use sizes::measured_model;

/// A measurement that failed.
#[derive(Debug, Error)]
pub enum MeasureError {
    /// The model cannot be built.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A stage failed.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The measured profile is not valid.
    #[error(transparent)]
    Profile(#[from] SpecError),
    /// The profile file cannot be read or written.
    #[error("{}: {source}; check the disk and the permissions of the folder", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A rank did not answer another.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The device failed while it was measured.
    #[error(transparent)]
    Device(#[from] ReadError),
    /// A thread failed.
    #[error("a measuring thread failed; its own message says why")]
    Thread,
}

/// Runs `measure` on `ranks` threads at the same time, each with its own `threads` compute threads, as in training. The threads
/// wait for each other at the meeting, so that all measure the same thing at the same time. A thread that fails is not waited for.
fn at_once<T: Send>(
    ranks: usize,
    threads: usize,
    measure: impl Fn(usize, &Meeting) -> T + Sync,
) -> Result<Vec<T>, MeasureError> {
    let ranks = ranks.max(1);
    let meeting = Meeting::new(ranks);
    let stream = StreamId::current();
    let one = |rank| {
        // Kept until the thread ends: dropping it would end the compute threads.
        let _pool =
            rayon::ThreadPoolBuilder::new().num_threads(threads).use_current_thread().build();
        let _attendance = meeting.attend();
        stream.executes(|| measure(rank, &meeting))
    };
    std::thread::scope(|scope| {
        let one = &one;
        let ranks: Vec<_> = (0..ranks).map(|rank| scope.spawn(move || one(rank))).collect();
        let joined = ranks.into_iter().map(|rank| rank.join().map_err(|_| MeasureError::Thread));
        joined.collect()
    })
}

/// Waits until the device has finished its work.
fn finish<B: Backend>(device: &B::Device) -> Result<(), ReadError> {
    B::sync(device).map_err(ReadError::new)
}

#[cfg(test)]
mod tests;
