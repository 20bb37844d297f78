//! Any schedule as a training system.

use std::sync::Arc;

use dip_core::Schedule;

use super::deployment::{Deployment, MemoryPolicy, SystemError};
use super::{System, SystemInputs};

/// A schedule on the placement it is made for. It chooses memory strategies for every batch.
#[derive(Clone)]
pub struct ScheduleSystem {
    schedule: Arc<dyn Schedule>,
}

impl ScheduleSystem {
    /// The system of a schedule, which may come from another crate.
    pub fn new(schedule: Arc<dyn Schedule>) -> Self {
        Self { schedule }
    }
}

impl System for ScheduleSystem {
    fn name(&self) -> &str {
        self.schedule.name()
    }

    fn deploy(&self, inputs: &SystemInputs<'_>) -> Result<Deployment, SystemError> {
        let partition = inputs.planning.partitioner().place(self.schedule.placement())?;
        let planning = inputs.planning.clone().with_partition(partition);
        Ok(Deployment {
            planning: planning.with_weight_split(self.schedule.splits_weights()),
            memory: vec![MemoryPolicy::Free],
            schedule: self.schedule.clone(),
            evens_out: false,
            choice: "memory chosen for every batch".into(),
        })
    }
}
