//! The plan of every replica: made by one process, and sent to the others that host ranks of the replica.

use std::ops::Range;

use burn::tensor::backend::Backend;
use dip_core::{BatchMeta, BatchSplit, FormatError, Plan, PlannedBatch, Seconds, check_plan};
use serde::{Deserialize, Serialize};

use super::Trainer;
use super::prefetch::PrefetchedBatch;
use crate::train::assignment;
use crate::train::error::TrainError;

/// Longest plan that is accepted from another process, in bytes.
const MAX_PLAN_BYTES: usize = 1 << 30;

/// What a message says about a plan before the plan itself.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct PlanHeader {
    slices: Vec<Vec<Vec<Range<u32>>>>,
    expected_s: f64,
    stall_s: f64,
    search_s: f64,
    fallback: bool,
    plan_bytes: usize,
}

impl<B: Backend> Trainer<B> {
    /// True if this process plans for a replica.
    pub(super) fn leads(&self, replica: usize) -> bool {
        self.pipeline.grid().leader(replica) == self.group.index()
    }

    /// The checked plan of every replica with ranks in this process. Ranks with an invalid plan could wait for each other forever.
    pub(super) fn take_plans(
        &mut self,
        batch: &PrefetchedBatch,
    ) -> Result<Vec<PlannedBatch>, TrainError> {
        let replicas = self.pipeline.replicas().to_vec();
        let own = self.group.index();
        let mut made = Vec::new();
        for &replica in &replicas {
            if !self.leads(replica) {
                continue;
            }
            let planned = self.plans.take()?;
            let others = self.pipeline.grid().hosts_of_replica(replica);
            let others: Vec<usize> = others.into_iter().filter(|&host| host != own).collect();
            if !others.is_empty() {
                let bytes = to_bytes(&planned);
                others.iter().for_each(|&host| self.group.send(host, bytes.clone()));
            }
            made.push(planned);
        }
        let mut made = made.into_iter();
        let mut all = Vec::with_capacity(replicas.len());
        for (&replica, assigned) in replicas.iter().zip(&batch.assigned) {
            let planned = match self.leads(replica) {
                true => made.next(),
                false => {
                    let leader = self.pipeline.grid().leader(replica);
                    let bytes = self.group.receive(leader)?;
                    let meta = assignment::meta_of(batch.meta(), assigned);
                    Some(from_bytes(&bytes, meta).map_err(|what| {
                        self.refused(leader, format!("has sent a plan that {what}"))
                    })?)
                }
            };
            let Some(mut planned) = planned else { continue };
            planned.plan.window = self.config.pipeline.window;
            let violations = check_plan(&planned.plan);
            if let Some(first) = violations.first() {
                return Err(TrainError::InvalidPlan {
                    iteration: self.iteration(),
                    violations: violations.len(),
                    first: first.to_string(),
                });
            }
            all.push(planned);
        }
        Ok(all)
    }

    /// Accepts plans of other processes.
    pub(super) fn accept_plans(&self) {
        self.group.accept_bytes(MAX_PLAN_BYTES);
    }

    /// The error of a message that cannot be used.
    pub(super) fn refused(&self, process: usize, what: String) -> TrainError {
        let host = self.group.host(process);
        crate::runtime::GroupError::Gone { process, host, what }.into()
    }
}

fn to_bytes(planned: &PlannedBatch) -> Vec<u8> {
    let plan = planned.plan.to_json();
    let header = PlanHeader {
        slices: planned.split.slices.clone(),
        expected_s: planned.expected.0,
        stall_s: planned.stall.0,
        search_s: planned.search.0,
        fallback: planned.fallback,
        plan_bytes: plan.len(),
    };
    let mut bytes = serde_json::to_vec(&header).expect("plain data has a JSON form");
    bytes.push(b'\n');
    bytes.extend(plan.into_bytes());
    bytes
}

fn from_bytes(bytes: &[u8], batch: BatchMeta) -> Result<PlannedBatch, String> {
    let short = || "is cut short".to_owned();
    let end = bytes.iter().position(|&b| b == b'\n').ok_or_else(short)?;
    let header: PlanHeader =
        serde_json::from_slice(&bytes[..end]).map_err(|e| format!("cannot be read: {e}"))?;
    let plan = &bytes[end + 1..];
    if plan.len() != header.plan_bytes {
        return Err(short());
    }
    let plan = std::str::from_utf8(plan).map_err(|e| format!("is not text: {e}"))?;
    let read = |e: FormatError| format!("cannot be read: {e}");
    Ok(PlannedBatch {
        batch,
        split: BatchSplit { slices: header.slices },
        plan: Plan::from_json(plan).map_err(read)?,
        expected: Seconds(header.expected_s),
        stall: Seconds(header.stall_s),
        search: Seconds(header.search_s),
        fallback: header.fallback,
    })
}
