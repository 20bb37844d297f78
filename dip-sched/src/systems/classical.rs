//! Any schedule on the placement that it is meant for.

use super::deployment::{Deployment, Memory, SystemError};
use super::{Setting, System};
use crate::partition::Partitioner;
use crate::schedules::{names, schedule_by_name};

/// A schedule by name on its own placement, with memory strategies of its choice for every batch.
#[derive(Debug, Clone, Copy)]
pub struct Classical {
    schedule: &'static str,
}

impl Classical {
    /// The system of a schedule; `None` where there is none of that name.
    pub fn new(schedule: &str) -> Option<Self> {
        names().find(|n| *n == schedule).map(|schedule| Self { schedule })
    }
}

impl System for Classical {
    fn name(&self) -> &str {
        self.schedule
    }

    fn deploy(&self, setting: &Setting<'_>) -> Result<Deployment, SystemError> {
        let partitioner = Partitioner::new(setting.model, setting.ranks, setting.cost);
        let schedule = schedule_by_name(self.schedule).ok_or_else(|| SystemError::NothingFits {
            system: self.schedule.into(),
            memory: setting.cluster.device.memory_bytes,
        })?;
        Ok(Deployment {
            partition: partitioner.place(schedule.placement())?,
            memory: vec![Memory::Free],
            weight_split: schedule.splits_weights(),
            schedule,
            choice: "memory chosen for every batch".into(),
        })
    }
}
