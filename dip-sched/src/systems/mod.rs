//! Whole training systems to compare: the decisions of each before training, and its plan of every batch.
//!
//! ```text
//! SystemInputs (planning, history of batches) -> System -> Deployment      before training
//! Deployment, BatchMeta                       -> Plan                      each batch
//! ```
//!
//! A system is a placement, a memory policy and a schedule. All systems share the cost model, the memory limit and the data. A system
//! that fixes a choice before training takes the choice that does best over the history.
//!
//! | system | placement | memory | schedule |
//! |---|---|---|---|
//! | [`Megatron`] | layers of all modules, one after another, in V chunks per rank of about equal parameters | best recomputation of each module | interleaved 1F1B |
//! | [`NnScaler`] | contiguous stages that fit, the longest as short as possible | fastest recomputation of each rank that fits | 1F1B |
//! | [`OptimusSystem`] | separate chunks for encoders and backbone, V chunks of the backbone per rank | best recomputation of each module | encoder forwards first, interleaved backbone |
//! | [`MegatronMimo`] | encoders on the first ranks, V chunks of the backbone on each of the others | best recomputation of each module | 1F1B or interleaved |
//! | [`Entrain`] | contiguous, balanced for the mean microbatch | best recomputation of each module | interleaved, over microbatches made equal |
//! | [`DipSystem`] | modality-aware, sub-microbatches | chosen for every stage of every batch | searched for every batch |
//! | [`ScheduleSystem`] | the placement of the schedule | chosen by the schedule for every batch | any schedule |

mod deployment;
mod dip;
mod entrain;
mod even;
mod fixed_memory;
mod ladder;
mod megatron;
mod mimo;
mod nnscaler;
mod optimus;
mod parameters;
mod recompute;
mod schedule;
mod trial;

pub use deployment::{Deployment, MemoryPolicy, SystemError};
pub use dip::DipSystem;
pub use entrain::Entrain;
pub use ladder::{LADDER, LadderStep};
pub use megatron::Megatron;
pub use mimo::MegatronMimo;
pub use nnscaler::NnScaler;
pub use optimus::OptimusSystem;
pub use recompute::Recompute;
pub use schedule::ScheduleSystem;

use std::sync::Arc;

use dip_core::{BatchMeta, MicrobatchMeta, ModelSpec};

use crate::planning::Planning;
use crate::schedules::{DynaPipe, schedule_by_name, schedule_names};

/// What a system knows when it decides, before training.
#[derive(Clone, Copy)]
pub struct SystemInputs<'a> {
    /// Model, cluster, ranks and costs. Systems replace the partition.
    pub planning: &'a Planning,
    /// Sample batches of the same distribution as the batches to come.
    pub history: &'a [BatchMeta],
    /// True if systems with fixed memory settings may also offload. The systems of the papers do not.
    pub offload: bool,
}

impl SystemInputs<'_> {
    fn model(&self) -> &ModelSpec {
        self.planning.model()
    }

    /// All microbatches of the history.
    fn microbatches(&self) -> impl Iterator<Item = &MicrobatchMeta> {
        self.history.iter().flat_map(|b| &b.microbatches)
    }

    /// The error of a system that finds no choice.
    fn nothing_fits(&self, system: &str) -> SystemError {
        SystemError::NothingFits {
            system: system.into(),
            memory: self.planning.cluster().device.memory_bytes,
        }
    }
}

/// A training system.
pub trait System: Send + Sync {
    /// The name on the command line and in reports.
    fn name(&self) -> &str;

    /// Decides everything that stays fixed during training.
    ///
    /// # Errors
    /// [`SystemError`] if no choice of the system fits the model into memory.
    fn deploy(&self, inputs: &SystemInputs<'_>) -> Result<Deployment, SystemError>;
}

/// Returns the system with this name: one of this module, or a schedule on its own placement.
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
        "megatron-mimo" => Box::new(MegatronMimo),
        "entrain" => Box::new(Entrain),
        "dynapipe" => Box::new(ScheduleSystem::new(Arc::new(DynaPipe))),
        "dip" => Box::new(DipSystem),
        name => Box::new(ScheduleSystem::new(schedule_by_name(name)?.into())),
    })
}

/// The names of all systems.
pub fn system_names() -> impl Iterator<Item = &'static str> {
    let schedules = schedule_names().filter(|n| !matches!(*n, "dip" | "optimus"));
    ["megatron", "nnscaler", "optimus", "megatron-mimo", "entrain", "dynapipe", "dip"]
        .into_iter()
        .chain(schedules)
}
