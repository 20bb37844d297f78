//! What is trained, on what, and with which batches: the vocabulary that every other room uses.

mod batch;
mod cluster;
mod error;
mod ids;
mod model;
mod parameters;
pub mod presets;
mod units;
mod workload;

pub use batch::{BatchMeta, ClipMeta, MicrobatchMeta};
pub use cluster::{ClusterSpec, DeviceSpec, Factors, LinkSpec};
pub use error::{FieldError, SpecError};
pub use ids::{MicrobatchId, ModuleId, RankId, SegmentId, SubMicrobatchId, TaskId};
pub use model::{
    Activation, AttentionBias, LayerOptions, Lora, LoraTarget, ModelSpec, ModuleKind, ModuleSpec,
    Parallelism, Rope, RopeStretch, Tower,
};
pub use parameters::{AUDIO_KERNEL, MEL_BANDS, ModuleParameters};
pub use units::{Bytes, Flops, Seconds};
pub use workload::{InstanceSpace, Workload, causal_block_pairs, causal_blocks};
