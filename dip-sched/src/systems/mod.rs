//! Whole training systems to compare: what each decides before training, and what it does with every batch.
//!
//! ```text
//! Setting (model, cluster, ranks, costs, history of batches) -> System -> Deployment      before training
//! Deployment, BatchMeta                                      -> Plan                      each batch
//! ```
//!
//! A system is a placement, a memory choice and a schedule on the same cost model, memory limit and data as all others.
//! Those that fix a choice before training fix the one that does best over the history.
//!
//! | system | placement | memory | schedule |
//! |---|---|---|---|
//! | [`Megatron`] | the concatenated layers in chunks of about equal parameters, V chunks a rank | best recompute of each module | interleaved 1F1B |
//! | [`NnScaler`] | runs of least longest latency that fit, by dynamic programming | fastest recompute of each rank that fits | 1F1B |
//! | [`OptimusSystem`] | encoders and backbone apart, V chunks of the backbone a rank | best recompute of each module | encoder forwards first, interleaved backbone |
//! | [`DipSystem`] | modality-aware, sub-microbatches | chosen for every stage of every batch | searched for every batch |
//! | [`Classical`] | latency-balanced runs | chosen by the schedule for every batch | any by name |

mod classical;
mod deployment;
mod dip;
mod ladder;
mod megatron;
mod nnscaler;
mod optimus;
mod parameters;
mod recompute;
mod trial;

pub use classical::Classical;
pub use deployment::{Deployment, Memory, SystemError};
pub use dip::DipSystem;
pub use ladder::{LADDER, Step};
pub use megatron::Megatron;
pub use nnscaler::NnScaler;
pub use optimus::OptimusSystem;
pub use recompute::Recompute;

use dip_core::{BatchMeta, ClusterSpec, CostModel, MicrobatchMeta, ModelSpec};

/// What a system decides from, before training.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    /// The model.
    pub model: &'a ModelSpec,
    /// The cluster; its device memory is the limit of every rank.
    pub cluster: &'a ClusterSpec,
    /// Pipeline ranks.
    pub ranks: u32,
    /// Seconds and bytes.
    pub cost: &'a dyn CostModel,
    /// Batches like those to come, but not they themselves.
    pub history: &'a [BatchMeta],
}

impl Setting<'_> {
    /// All microbatches of the history.
    fn microbatches(&self) -> impl Iterator<Item = &MicrobatchMeta> {
        self.history.iter().flat_map(|b| &b.microbatches)
    }
}

/// A training system.
pub trait System: Send + Sync {
    /// Its name on the command line and in reports.
    fn name(&self) -> &str;

    /// Decides what stays fixed during training.
    ///
    /// # Errors
    /// [`SystemError`] where no choice of the system fits the model into memory.
    fn deploy(&self, setting: &Setting<'_>) -> Result<Deployment, SystemError>;
}

/// The system of that name: one of this module, or a schedule on its own placement.
///
/// ```
/// let system = dip_sched::systems::system_by_name("megatron").unwrap();
/// assert_eq!(system.name(), "megatron");
/// assert!(dip_sched::systems::system_by_name("megatrom").is_none());
/// ```
pub fn system_by_name(name: &str) -> Option<Box<dyn System>> {
    Some(match name {
        "megatron" => Box::new(Megatron),
        "nnscaler" => Box::new(NnScaler),
        "optimus" => Box::new(OptimusSystem),
        "dip" => Box::new(DipSystem),
        name => Box::new(Classical::new(name)?),
    })
}

/// Names of all systems.
pub fn system_names() -> impl Iterator<Item = &'static str> {
    let schedules = crate::names().filter(|n| !matches!(*n, "dip" | "optimus"));
    ["megatron", "nnscaler", "optimus", "dip"].into_iter().chain(schedules)
}
