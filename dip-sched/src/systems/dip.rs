//! This system.

use super::deployment::{Deployment, Memory, SystemError};
use super::{Setting, System};
use crate::partition::Partitioner;
use crate::schedules::Dip;

/// Modality-aware placement, and for every batch its own order and memory strategies, weight gradients apart.
#[derive(Debug, Clone, Copy, Default)]
pub struct DipSystem;

impl System for DipSystem {
    fn name(&self) -> &str {
        "dip"
    }

    fn deploy(&self, setting: &Setting<'_>) -> Result<Deployment, SystemError> {
        let partition = Partitioner::new(setting.model, setting.ranks, setting.cost).partition()?;
        let modules = setting.model.modules.iter().zip(&partition.modules);
        let of = |(m, p): (&dip_core::ModuleSpec, &dip_core::ModulePartition)| {
            let segments = p.chunks.iter().map(|c| c.segment.0 + 1).max().unwrap_or(0);
            format!("{} K = {segments}, B = {}", m.name, p.sub_microbatch)
        };
        Ok(Deployment {
            choice: modules.map(of).collect::<Vec<_>>().join("; "),
            partition,
            memory: vec![Memory::Free],
            weight_split: true,
            schedule: Box::new(Dip),
        })
    }
}
