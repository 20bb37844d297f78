//! Specifications of models, clusters and batches, with the ids and units that the other modules use.

mod batch;
mod cluster;
mod error;
mod ids;
mod modality;
mod model;
mod parameters;
pub mod presets;
mod strict;
mod suggestion;
mod units;
mod workload;

#[cfg(feature = "schema")]
pub(crate) use batch::BatchLine;
pub use batch::{BatchMeta, ClipMeta, ImageSize, Images, MicrobatchMeta};
pub use cluster::{ClusterSpec, DeviceSpec, Factors, LinkSpec};
pub use error::{FieldError, SpecError};
pub use ids::{MicrobatchId, ModuleId, RankId, SegmentId, SubMicrobatchId, TaskId};
pub use modality::{
    AUDIO_KERNEL, AudioProjector, AudioSpec, DecoderSpec, DitSpec, Filling, InstanceLoads,
    Modality, ModuleKind, ModuleSlice, NormKind, OtherModality, PixelRange, STEP_EMBEDDING, T5Spec,
    TileSpec, Tower, VitSpec, WanSpec, WindowSpec,
};
pub use model::{
    Activation, AttentionBias, AttentionWindow, LayerOptions, Lora, LoraTarget, ModelSpec,
    ModuleSpec, Parallelism, QueryKeyNorm, Rope, RopeScaling, YarnScaling, name_covers,
    part_covers,
};
pub use parameters::ModuleParameters;
pub use strict::{from_json, from_toml};
pub use suggestion::{closest, did_you_mean};
pub use units::{Bytes, Flops, Seconds};
pub use workload::{InstanceSpace, Workload, causal_block_pairs, causal_blocks};
