//! Tests of the command as its users run it, one module a capability.

/// Clusters fitted to this machine.
#[cfg(feature = "train")]
mod calibrate;

/// Systems against each other.
mod compare;
/// Training in several processes.
#[cfg(feature = "nodes")]
mod nodes;
mod support;

/// Presets, sampling, planning, checking and emulation, and what is said about bad input.
mod planning;

/// Training, and going on after a kill.
#[cfg(feature = "train")]
mod training;

/// Models of Hugging Face.
#[cfg(feature = "train")]
mod published;
/// Training of text-to-video models.
#[cfg(feature = "train")]
mod video;
