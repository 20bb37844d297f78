//! The recompute settings of systems that fix one before training.

use std::collections::BTreeMap;
use std::fmt;

use dip_core::{LayerStrategy, ModelSpec, ModuleId, Partition, Strategy};

use super::deployment::Memory;

/// What the layers of a module do, the same share of them on every rank, as with Megatron-LM's `--recompute-granularity` and
/// `--recompute-num-layers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Recompute {
    /// Nothing is computed again.
    None,
    /// The attention core of every layer.
    Selective,
    /// So many eighths of the layers of a rank, the others keep everything.
    Full(u32),
}

impl Recompute {
    /// Every setting, from the fastest to the smallest.
    pub const ALL: [Self; 10] = [
        Self::None,
        Self::Selective,
        Self::Full(1),
        Self::Full(2),
        Self::Full(3),
        Self::Full(4),
        Self::Full(5),
        Self::Full(6),
        Self::Full(7),
        Self::Full(8),
    ];

    /// What layer `i` of a rank does.
    fn layer(self, i: u32) -> LayerStrategy {
        match self {
            Self::None => LayerStrategy::Keep,
            Self::Selective => LayerStrategy::Selective,
            Self::Full(eighths) if (i + 1) * eighths / 8 > i * eighths / 8 => LayerStrategy::Full,
            Self::Full(_) => LayerStrategy::Keep,
        }
    }

    /// The strategy of a chunk of `layers` layers with `before` others of its module on the same rank before it.
    pub fn strategy(self, before: u32, layers: u32) -> Strategy {
        let mut layers: Vec<_> = (before..before + layers).map(|i| self.layer(i)).collect();
        layers.sort_unstable_by(|a, b| b.cmp(a));
        Strategy::of_layers(&layers)
    }

    /// The memory choice in which every module has its setting, alike on every rank.
    pub fn memory(partition: &Partition, settings: &[Self]) -> Memory {
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
        Memory::Fixed(strategies)
    }

    /// `settings`, and then ever smaller ones for batches that do not fit.
    pub(super) fn fallbacks(partition: &Partition, settings: &[Self]) -> Vec<Memory> {
        let mut memory = vec![Self::memory(partition, settings)];
        for least in [Self::Full(4), Self::Full(8)] {
            let smaller: Vec<_> = settings.iter().map(|&s| s.max(least)).collect();
            let next = Self::memory(partition, &smaller);
            if memory.last() != Some(&next) {
                memory.push(next);
            }
        }
        memory
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
        }
    }
}
