//! `[pipeline]`: devices, ranks, schedule and search.

use std::path::PathBuf;

use dip_core::{FieldError, MAX_WINDOW};
use serde::{Deserialize, Serialize};

use crate::model::Precision;
use crate::runtime::ProcessPlacement;

/// Most ranks of a replica, and most compute threads of a rank.
const MAX_THREADS: u32 = 1024;
/// Most ranks of all replicas, in all processes.
const MAX_RANKS: u32 = 1 << 16;

/// Ranks, schedule and search.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct PipelineConfig {
    /// The devices of the ranks.
    pub device: Device,
    /// Pipeline ranks, each a thread with its own device.
    pub ranks: u32,
    /// Replicas of the pipeline, each with its own ranks; they share the microbatches of a batch.
    pub replicas: u32,
    /// Which ranks share a process, or are on neighbouring processes, in a run of several processes.
    pub placement: ProcessPlacement,
    /// True to plan with the measured latency and bandwidth between processes. Without it, plans do not depend on how processes share
    /// the ranks, and the results have the bits of one process.
    pub network_costs: bool,
    /// Compute threads of a rank on CPU.
    pub threads_per_rank: usize,
    /// The precision of the layers. Weights and optimiser stay f32. CPUs are slower in 16 bits than in f32.
    pub precision: Precision,
    /// Name of the schedule.
    pub schedule: String,
    /// How layers are placed on ranks.
    #[serde(alias = "cut")]
    pub partition: PartitionMethod,
    /// Search budget in iterations, which makes plans reproducible. 0 for a time budget, the duration of the last iteration.
    pub search_iterations: u64,
    /// Number of the next stages in its order among which a rank may choose while the first of them waits for an input. It makes
    /// up for stages that take longer than planned. 1 keeps the order, and equal runs give equal bits; with more, sums of
    /// gradients have another order from run to run.
    pub window: u32,
    /// True if plans use the stage times that earlier iterations have measured; predictions always do. Plans then differ from run to
    /// run, and so does the order of gradient sums. Absent for true under a time budget and false under `search_iterations`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learn_costs: Option<bool>,
    /// True to split weight gradients (W) from backwards; absent to let the schedule decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_split: Option<bool>,
    /// Memory of one rank for weights, optimiser and activations, in bytes; absent for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
    /// On a GPU, every how many iterations each stage waits until the device has run it, so that its time is the time of its kernels;
    /// 0 for never. In other iterations a stage ends for the host when its kernels are launched.
    pub timed_every: u64,
    /// Folder for the compiled kernels of a GPU; absent for the cache folder of the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_folder: Option<PathBuf>,
}

impl PipelineConfig {
    /// Devices for the ranks of all replicas.
    pub fn devices(&self) -> u32 {
        self.ranks.saturating_mul(self.replicas)
    }

    /// True if the stages of an iteration are timed by their devices. Threads of the CPU always are.
    pub fn is_timed(&self, iteration: u64) -> bool {
        // The last of every few iterations: the first compile kernels.
        let by_turn = self.timed_every > 0 && (iteration + 1).is_multiple_of(self.timed_every);
        self.device == Device::Cpu || by_turn
    }

    /// True if plans use the stage times that earlier iterations have measured.
    pub fn learns_costs(&self) -> bool {
        self.learn_costs.unwrap_or(self.search_iterations == 0)
    }

    /// Checks every field.
    pub(super) fn validate(&self) -> Result<(), FieldError> {
        let check = FieldError::check_range;
        check("pipeline.ranks", self.ranks, 1..=MAX_THREADS, "one rank per core or device")?;
        let max_replicas = MAX_RANKS / self.ranks;
        let remedy = "a run has ranks * replicas ranks in all";
        check("pipeline.replicas", self.replicas, 1..=max_replicas, remedy)?;
        let window = 1..=MAX_WINDOW;
        check("pipeline.window", self.window, window, "try 64, or 1 to keep the order")?;
        let threads = 1..=MAX_THREADS as usize;
        let remedy = "divide the cores by the ranks";
        FieldError::check_range("pipeline.threads_per_rank", self.threads_per_rank, threads, remedy)
    }
}

impl Default for PipelineConfig {
    fn default() -> Self {
        Self {
            device: Device::Cpu,
            ranks: 2,
            replicas: 1,
            placement: ProcessPlacement::default(),
            network_costs: true,
            threads_per_rank: 1,
            precision: Precision::F32,
            schedule: "dip".into(),
            partition: PartitionMethod::default(),
            search_iterations: 20,
            window: 1,
            learn_costs: None,
            weight_split: None,
            memory_limit_bytes: None,
            timed_every: 10,
            kernel_folder: None,
        }
    }
}

/// The devices of the ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Device {
    /// Threads of this machine.
    #[default]
    Cpu,
    /// CUDA devices, one for each rank; ranks share them if there are fewer devices.
    Cuda,
    /// The default GPU with Vulkan, Metal or DirectX, shared by all ranks.
    Wgpu,
    /// The default AMD device, shared by all ranks.
    Rocm,
}

/// How layers are placed on ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PartitionMethod {
    /// Search the placement that makes plans of the first batches shortest. Schedules without a search use their rule.
    #[default]
    Searched,
    /// Take the fastest of a few rules: chunks with about the same number of layers, or with about the same latency.
    Rule,
}
