//! What the processes of a run decide together before they train: the first decides, and sends it to the others.

use dip_burn::measure::MeasureError;
use dip_burn::runtime::{GroupError, ProcessGrid, ProcessGroup};
use dip_burn::train::PipelineConfig;
use dip_core::profile::Profile;
use dip_core::{FieldError, Partition};
use serde::{Deserialize, Serialize};

use super::RunError;

/// The layers of each rank, and whether weight gradients are tasks of their own.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Placed {
    pub partition: Partition,
    pub weight_split: bool,
}

/// The place of every rank of a run on these processes.
///
/// # Errors
/// [`FieldError`] if there are more processes than ranks.
pub fn grid(pipeline: &PipelineConfig, processes: usize) -> Result<ProcessGrid, FieldError> {
    let (ranks, replicas) = (pipeline.ranks as usize, pipeline.replicas as usize);
    ProcessGrid::new(ranks, replicas, processes, pipeline.placement)
}

/// The profile of the first process, for all processes. With separate profiles, processes would place layers differently.
pub(super) fn profile_of_first(
    group: &dyn ProcessGroup,
    measure: impl FnOnce() -> Result<Profile, MeasureError>,
) -> Result<Profile, RunError> {
    let text = group.compute_on_first(|| Ok::<_, RunError>(measure()?.to_json().into_bytes()))?;
    Ok(Profile::from_json(&String::from_utf8_lossy(&text)).map_err(MeasureError::from)?)
}

/// The placement of the first process, for all processes. A search in time finds another one in every process.
pub(super) fn placed_of_first(
    group: &dyn ProcessGroup,
    place: impl FnOnce() -> Result<Placed, RunError>,
) -> Result<Placed, RunError> {
    let text = group.compute_on_first(|| {
        Ok::<_, RunError>(serde_json::to_vec(&place()?).expect("plain data has a JSON form"))
    })?;
    let read = serde_json::from_slice(&text).map_err(|error| GroupError::Gone {
        process: 0,
        host: group.host(0),
        what: format!("has sent a placement that cannot be read: {error}"),
    });
    Ok(read?)
}
