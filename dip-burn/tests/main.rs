//! Integration tests of the trainer, one module per capability.

#[path = "suite/support.rs"]
mod support;

/// Every valid plan gives the loss and the gradients of one device.
#[path = "suite/gradients.rs"]
mod gradients;

/// Evaluation, captions and samples run through the pipeline.
#[path = "suite/inference.rs"]
mod inference;

/// Modalities from outside the crate.
#[path = "suite/modality.rs"]
mod modality;

/// Audio encoders beside vision encoders.
#[path = "suite/audio.rs"]
mod audio;

/// GPUs compute the same as the CPU.
#[cfg(any(feature = "cuda", feature = "wgpu"))]
#[path = "suite/gpu.rs"]
mod gpu;

/// A pipeline is an executor of plans.
#[path = "suite/executor.rs"]
mod executor;

/// No tensor without elements reaches a device.
#[path = "suite/empty.rs"]
mod empty;

#[path = "suite/strict.rs"]
mod strict;

/// bf16 and f16 layers over f32 weights.
#[path = "suite/precision.rs"]
mod precision;

/// Published models: logits, gradients and steps equal those of `transformers`, and exported weights equal the imported ones.
#[path = "suite/published/mod.rs"]
mod published;

/// Videos in documents of vision-language models.
#[path = "suite/videos.rs"]
mod videos;

/// Data sources, pictures, videos and packing rules from outside the crate.
#[path = "suite/sources.rs"]
mod sources;

/// Runs resume on other ranks, end early, and size their batches.
#[path = "suite/training.rs"]
mod training;

/// Replicas train like one device, share their optimiser state, and fail together.
#[path = "suite/replicas.rs"]
mod replicas;

/// Processes train like the threads of one process, and end together.
#[path = "suite/processes/mod.rs"]
mod processes;

/// The transport of MPI, in processes that `mpirun` starts.
#[cfg(feature = "mpi")]
#[path = "suite/mpi.rs"]
mod mpi;
