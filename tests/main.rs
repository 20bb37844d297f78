//! Tests of the command as its users run it, one module per capability.

#[path = "suite/support/mod.rs"]
mod support;

/// Losses, plans and systems, compared with the records in `tests/goldens`.
#[path = "suite/goldens.rs"]
mod goldens;

/// Presets, sampling, planning, checking and emulation, and the messages about bad input.
#[path = "suite/planning.rs"]
mod planning;

/// Help, JSON documents, colours and exit codes.
#[path = "suite/output.rs"]
mod output;

/// What the machine can do.
#[path = "suite/doctor.rs"]
mod doctor;

/// Inputs that never end, and extreme numbers.
#[cfg(unix)]
#[path = "suite/bounded.rs"]
mod bounded;

/// Timelines of plans and of training, and what they explain.
#[cfg(feature = "train")]
#[path = "suite/timelines.rs"]
mod timelines;

/// Systems against each other.
#[path = "suite/compare.rs"]
mod compare;

/// The size of a run.
#[path = "suite/tune.rs"]
mod tune;

/// The emulator against published measurements.
#[path = "suite/validation.rs"]
mod validation;

/// Clusters fitted to this machine.
#[cfg(feature = "train")]
#[path = "suite/calibrate.rs"]
mod calibrate;

/// Proposed runs.
#[cfg(feature = "train")]
#[path = "suite/init.rs"]
mod init;

/// Training, and resuming after a kill.
#[cfg(feature = "train")]
#[path = "suite/training.rs"]
mod training;

/// The panel of a run on a terminal.
#[cfg(all(feature = "train", unix))]
#[path = "suite/panel.rs"]
mod panel;

/// Interruptions, full disks and damaged checkpoints.
#[cfg(all(feature = "train", unix))]
#[path = "suite/durable.rs"]
mod durable;

/// Training of text-to-video models.
#[cfg(feature = "train")]
#[path = "suite/video.rs"]
mod video;

/// Losses, captions and clips of trained models.
#[cfg(feature = "train")]
#[path = "suite/trained.rs"]
mod trained;

/// Models of Hugging Face.
#[cfg(feature = "train")]
#[path = "suite/published.rs"]
mod published;

/// Wan in a folder of diffusers.
#[cfg(feature = "train")]
#[path = "suite/wan.rs"]
mod wan;

/// Training in several processes.
#[cfg(feature = "mpi")]
#[path = "suite/mpi.rs"]
mod mpi;
