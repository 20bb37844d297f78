//! The memory settings of systems that fix them before training.

use std::collections::BTreeMap;
use std::fmt;

use dip_core::{LayerStrategy, ModelSpec, ModuleId, Partition, Strategy};

use super::deployment::MemoryPolicy;

/// The recomputation of a module: the same share of its layers on every rank, like Megatron-LM's `--recompute-granularity` and
/// `--recompute-num-layers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Recompute {
    /// All layers keep everything.
    None,
    /// Every layer recomputes its attention core.
    Selective,
    /// This many eighths of the layers of a rank recompute everything; the others keep everything.
    Full(u32),
    /// This many eighths of the layers of a rank move to host memory; the others keep everything on the device.
    Offload(u32),
}

impl Recompute {
    /// Every setting that a system may try, with or without offloading.
    pub fn options(offload: bool) -> Vec<Self> {
        let mut options = vec![Self::None, Self::Selective];
        options.extend((1..=8).map(Self::Full));
        if offload {
            options.extend((1..=8).map(Self::Offload));
        }
        options
    }

    /// The strategy of layer `i` of a rank.
    fn layer(self, i: u32) -> LayerStrategy {
        let among = |eighths: u32| (i + 1) * eighths / 8 > i * eighths / 8;
        match self {
            Self::Selective => LayerStrategy::Selective,
            Self::Full(eighths) if among(eighths) => LayerStrategy::Full,
            Self::Offload(eighths) if among(eighths) => LayerStrategy::Offload,
            Self::None | Self::Full(_) | Self::Offload(_) => LayerStrategy::Keep,
        }
    }

    /// The strategy of a chunk of `layers` layers. `before` layers of its module are on the same rank before it.
    pub fn strategy(self, before: u32, layers: u32) -> Strategy {
        let mut layers: Vec<_> = (before..before + layers).map(|i| self.layer(i)).collect();
        layers.sort_unstable_by(|a, b| b.cmp(a));
        Strategy::of_layers(&layers)
    }

    /// The memory policy in which every module has its setting, equally on every rank.
    pub fn memory(partition: &Partition, settings: &[Self]) -> MemoryPolicy {
        let mut strategies = BTreeMap::new();
        for (m, (module, setting)) in partition.modules.iter().zip(settings).enumerate() {
            let mut before = vec![0; partition.ranks as usize];
            for chunk in &module.chunks {
                let (layers, rank) = (chunk.layers.len() as u32, chunk.rank.index());
                let strategy = setting.strategy(before[rank], layers);
                before[rank] += layers;
                strategies.insert((ModuleId::from(m), chunk.layers.start), strategy);
            }
        }
        MemoryPolicy::Fixed(strategies)
    }

    /// The policy of `settings`, then ever smaller ones for batches that do not fit.
    pub(super) fn fallbacks(partition: &Partition, settings: &[Self]) -> Vec<MemoryPolicy> {
        let mut memory = vec![Self::memory(partition, settings)];
        for least in [4, 8] {
            let smaller: Vec<_> = settings.iter().map(|s| s.at_least(least)).collect();
            let next = Self::memory(partition, &smaller);
            if memory.last() != Some(&next) {
                memory.push(next);
            }
        }
        memory
    }

    /// The same setting for at least this many eighths of the layers.
    fn at_least(self, least: u32) -> Self {
        match self {
            Self::None | Self::Selective => Self::Full(least),
            Self::Full(eighths) => Self::Full(eighths.max(least)),
            Self::Offload(eighths) => Self::Offload(eighths.max(least)),
        }
    }

    /// The settings of all modules, for reports.
    pub(super) fn describe(model: &ModelSpec, settings: &[Self]) -> String {
        let of = |(m, s): (&dip_core::ModuleSpec, &Self)| format!("{} {s}", m.name);
        model.modules.iter().zip(settings).map(of).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for Recompute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("keeps all"),
            Self::Selective => f.write_str("recomputes attention"),
            Self::Full(8) => f.write_str("recomputes all"),
            Self::Full(eighths) => write!(f, "recomputes {eighths}/8"),
            Self::Offload(eighths) => write!(f, "offloads {eighths}/8"),
        }
    }
}
