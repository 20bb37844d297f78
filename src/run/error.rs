//! Errors of the preparation of a run.

use dip_burn::backend::DeviceError;
use dip_burn::measure::MeasureError;
use dip_burn::runtime::GroupError;
use dip_burn::train::TrainError;
use dip_core::SpecError;
use dip_sched::PlacementError;

/// A run that cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A field of the run is wrong.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The device of the run is missing.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The stages could not be measured.
    #[error(transparent)]
    Measure(#[from] MeasureError),
    /// The layers could not be placed.
    #[error(transparent)]
    Placement(PlacementError),
    /// No placement fits the memory limit.
    #[error("pipeline.{0}")]
    Memory(#[source] PlacementError),
    /// Another process failed or differs.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The trainer could not be built.
    #[error(transparent)]
    Train(#[from] TrainError),
}

impl From<PlacementError> for RunError {
    fn from(error: PlacementError) -> Self {
        match error {
            PlacementError::Memory { .. } => Self::Memory(error),
            PlacementError::Partition(_) | PlacementError::Plan(_) => Self::Placement(error),
        }
    }
}
