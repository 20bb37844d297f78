//! What a process reads of a batch.

use dip_core::{AudioSpec, ModelSpec, Partition, RankId, VitSpec};

/// A microbatch that a process trains, or a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Its number in the batch.
    pub microbatch: usize,
    /// What is decoded of it.
    pub inputs: Inputs,
}

/// Inputs of encoders, which only the ranks with their first layers read. The others know their sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inputs {
    /// The pixels of pictures and videos.
    pub images: bool,
    /// The mel frames of sounds.
    pub sounds: bool,
}

impl Inputs {
    /// All inputs.
    pub const ALL: Self = Self { images: true, sounds: true };

    /// What some ranks of a partition of `model` read.
    pub fn of_ranks(
        model: &ModelSpec,
        partition: &Partition,
        has: impl Fn(RankId) -> bool,
    ) -> Self {
        let mut inputs = Self { images: false, sounds: false };
        for (rank, chunk) in partition.queries(model) {
            let kind = &model.modules[chunk.module.index()].kind;
            if chunk.is_first() && has(rank) {
                inputs.images |= kind.get::<VitSpec>().is_some();
                inputs.sounds |= kind.get::<AudioSpec>().is_some();
            }
        }
        inputs
    }
}

impl From<usize> for Wanted {
    /// All of a microbatch.
    fn from(microbatch: usize) -> Self {
        Self { microbatch, inputs: Inputs::ALL }
    }
}

#[cfg(test)]
mod tests {
    use dip_core::{Chunk, ModulePartition, SegmentId, presets};

    use super::*;

    #[test]
    fn only_ranks_with_the_first_layers_of_an_encoder_read_its_inputs() {
        let model = presets::model("omni-tiny").unwrap();
        let on = |rank, layers| Chunk { rank: RankId(rank), segment: SegmentId(0), layers };
        let module = |chunks| ModulePartition { sub_microbatch: 1, chunks };
        let names: Vec<&str> = model.modules.iter().map(|module| &*module.name).collect();
        assert_eq!(names, ["vision", "audio", "language"]);
        let layers = model.modules[2].layers;
        let modules = vec![
            module(vec![on(0, 0..1), on(1, 1..model.modules[0].layers)]),
            module(vec![on(1, 0..model.modules[1].layers)]),
            module(vec![on(2, 0..layers)]),
        ];
        let partition = Partition { ranks: 3, modules };
        let inputs = |ranks: &[u32]| {
            let Inputs { images, sounds } =
                Inputs::of_ranks(&model, &partition, |rank| ranks.contains(&rank.0));
            (images, sounds)
        };
        assert_eq!(inputs(&[0]), (true, false));
        assert_eq!(inputs(&[1]), (false, true));
        assert_eq!(inputs(&[2]), (false, false));
        assert_eq!(inputs(&[0, 1, 2]), (true, true));
    }
}
