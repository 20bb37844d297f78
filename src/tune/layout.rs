//! Layouts of a model at given degrees: segments, routes and sizes of sub-microbatches.

use dip_core::{ModuleId, Partition};
use dip_sched::{PartitionError, Partitioner, Planning};
use serde::Serialize;

/// Multiples of the paper's sub-microbatch sizes that are tried.
pub(super) const SIZE_SCALES: [f64; 3] = [0.5, 1.0, 2.0];
/// The multiple that searches usually take.
pub(super) const USUAL_SEGMENTS: u32 = 2;

/// Segments, routes and sub-microbatches of the modules.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Layout {
    /// Segments, as a multiple of the paper's rule.
    pub segment_factor: u32,
    /// The ways of the modules through the ranks.
    pub route: RouteMix,
    /// Instances of a sub-microbatch, as a multiple of the paper's rule.
    pub size_scale: f64,
    /// Segments of each module.
    pub segments: Vec<u32>,
    /// Instances of a sub-microbatch of each module.
    pub sub_microbatch: Vec<u32>,
    #[serde(skip)]
    pub(super) partition: Partition,
}

/// The ways of all modules through the ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RouteMix {
    /// All modules on loops.
    Loop,
    /// All modules with several segments on waves.
    Wave,
    /// Some of both.
    Mixed,
}

impl Layout {
    /// The paper's sizes and twice its segments, on loops.
    pub(super) fn usual(planning: &Planning) -> Result<Self, PartitionError> {
        let partition = scaled(planning, 1.0).with_segment_factor(USUAL_SEGMENTS).partition()?;
        Ok(Self::of(partition, USUAL_SEGMENTS, 1.0))
    }

    pub(super) fn of(partition: Partition, segment_factor: u32, size_scale: f64) -> Self {
        let modules = || (0..partition.modules.len()).map(ModuleId::from);
        let (mut waves, mut loops) = (false, false);
        for module in modules() {
            let mut chunks = partition.module(module).chunks.iter();
            match chunks.find(|chunk| chunk.segment.0 == 1) {
                Some(second) if second.rank.0 > 0 => waves = true,
                Some(_) => loops = true,
                None => {}
            }
        }
        Self {
            segment_factor,
            route: match (waves, loops) {
                (true, false) => RouteMix::Wave,
                (true, true) => RouteMix::Mixed,
                (false, _) => RouteMix::Loop,
            },
            size_scale,
            segments: modules().map(|m| partition.segments(m)).collect(),
            sub_microbatch: modules().map(|m| partition.module(m).sub_microbatch).collect(),
            partition,
        }
    }
}

/// A partitioner with this multiple of the paper's sub-microbatch sizes.
pub(super) fn scaled(planning: &Planning, scale: f64) -> Partitioner<'_> {
    let by_rule = planning.partition();
    let modules = (0..by_rule.modules.len()).map(ModuleId::from);
    modules.fold(planning.partitioner(), |all, module| {
        let instances = f64::from(by_rule.module(module).sub_microbatch) * scale;
        all.with_sub_microbatch(module, instances.ceil() as u32)
    })
}
