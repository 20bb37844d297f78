use dip_core::{
    Bytes, ChunkQuery, CostError, CostModel, MicrobatchMeta, ModelSpec, ModuleId, Partition,
    RankId, Seconds, StageCost, StageQuery,
};
use dip_sched::{Partitioner, Placement, validate_partition};
use proptest::prelude::*;

/// Seconds of a layer: a fixed part for every call, and a part for every token, by module.
struct Linear(Vec<(f64, f64)>);

impl CostModel for Linear {
    fn stage(&self, query: &StageQuery<'_>) -> Result<StageCost, CostError> {
        let (fixed, each) = self.0[query.chunk.module.index()];
        let layers = query.chunk.layers.len() as f64;
        let forward = Seconds(layers * (fixed + each * query.workload.tokens as f64));
        Ok(StageCost {
            strategy: query.strategy.clone(),
            forward,
            backward: forward * 2.0,
            weight: None,
            activation_bytes: Bytes(1),
            output_bytes: Bytes(1),
        })
    }

    fn transfer(&self, _: RankId, _: RankId, _: Bytes) -> Seconds {
        Seconds::ZERO
    }

    fn static_bytes(&self, _: &ChunkQuery<'_>) -> Bytes {
        Bytes::ZERO
    }
}

/// An encoder and a backbone of so many layers; an image has 16 patches and 4 tokens.
fn model(vision: u32, language: u32) -> ModelSpec {
    let text = format!(
        "name = 'test'\nsequence_tokens = 64\nmax_images = 8\n\
         [[module]]\nname = 'vision'\nlayers = {vision}\nhidden = 8\nffn = 8\nheads = 2\n\
         kind.vit = {{ image_px = 16, patch_px = 4, merge = 2 }}\n\
         [[module]]\nname = 'language'\nlayers = {language}\nhidden = 8\nffn = 8\nheads = 2\n\
         inputs = ['vision']\nkind.decoder = {{ vocab = 32 }}\n"
    );
    ModelSpec::from_toml(&text).unwrap()
}

const VISION: ModuleId = ModuleId(0);
const LANGUAGE: ModuleId = ModuleId(1);

/// Four images, and text to the end.
fn half_full() -> MicrobatchMeta {
    MicrobatchMeta { images: 4, text_tokens: 48, ..MicrobatchMeta::default() }
}

/// The load of every rank, and the heaviest layer, for the half-full microbatch: 64 patches and 64 tokens, no fixed parts.
fn loads(partition: &Partition, cost: &Linear) -> (Vec<f64>, f64) {
    let of_layer = [3.0 * cost.0[0].1 * 64.0, 3.0 * cost.0[1].1 * 64.0];
    let mut loads = vec![0.0; partition.ranks as usize];
    for (module, layer) in partition.modules.iter().zip(of_layer) {
        for chunk in &module.chunks {
            loads[chunk.rank.index()] += layer * chunk.layers.len() as f64;
        }
    }
    (loads, of_layer[0].max(of_layer[1]))
}

#[test]
fn a_module_has_as_many_segments_as_it_is_slower_than_the_fastest() {
    let model = model(16, 48);
    // One image takes 16 layers x 16 tokens, a sequence 48 layers x 64 tokens of half the price: six times as long.
    let cost = Linear(vec![(0.0, 1.0), (0.0, 0.5)]);
    let partition = Partitioner::new(&model, 4, &cost).partition().unwrap();
    assert_eq!((partition.segments(VISION), partition.segments(LANGUAGE)), (1, 6));
    let sizes: Vec<u32> =
        partition.module(LANGUAGE).chunks.iter().map(|c| c.layers.len() as u32).collect();
    assert_eq!(sizes, [2; 24]);
}

#[test]
fn a_sub_microbatch_is_the_smallest_that_keeps_95_percent_of_the_best_efficiency() {
    let model = model(4, 4);
    // A call for b images takes 3.2 + 16 b: two keep 93 % of the efficiency of eight, three keep 96 %.
    let cost = Linear(vec![(3.2, 1.0), (0.0, 1.0)]);
    let partition = Partitioner::new(&model, 2, &cost).partition().unwrap();
    let efficiency = |b: f64| b / (3.2 + 16.0 * b);
    let expected = (1..=8).find(|&b| efficiency(f64::from(b)) >= 0.95 * efficiency(8.0));
    assert_eq!(Some(partition.module(VISION).sub_microbatch), expected);
    assert_eq!(expected, Some(3));
}

#[test]
fn fewer_layers_than_ranks_leave_ranks_without_a_chunk() {
    let model = model(3, 8);
    let cost = Linear(vec![(0.0, 1.0), (0.0, 1.0)]);
    let partition = Partitioner::new(&model, 4, &cost).partition().unwrap();
    let ranks: Vec<u32> = partition.module(VISION).chunks.iter().map(|c| c.rank.0).collect();
    assert_eq!(ranks.len(), 3);
    assert!(ranks.is_sorted_by(|a, b| a < b), "{ranks:?}");
}

#[test]
fn segments_that_are_asked_for_are_lowered_to_what_layers_allow() {
    let model = model(5, 11);
    let cost = Linear(vec![(0.0, 1.0), (0.0, 1.0)]);
    let partitioner =
        Partitioner::new(&model, 4, &cost).with_segments(VISION, 9).with_segments(LANGUAGE, 9);
    let partition = partitioner.partition().unwrap();
    assert_eq!((partition.segments(VISION), partition.segments(LANGUAGE)), (1, 2));
}

proptest! {
    #[test]
    fn every_partition_is_valid_and_its_ranks_differ_by_little_more_than_a_layer(
        vision in 1u32..20,
        language in 1u32..40,
        ranks in 1u32..9,
        prices in [0.1f64..4.0, 0.1f64..4.0],
    ) {
        let model = model(vision, language);
        let cost = Linear(vec![(0.0, prices[0]), (0.0, prices[1])]);
        let partitioner = Partitioner::new(&model, ranks, &cost).with_representative(half_full());
        let partition = partitioner.partition().unwrap();
        prop_assert!(validate_partition(&model, &partition).is_ok());
        let (loads, heaviest) = loads(&partition, &cost);
        let spread = loads.iter().copied().fold(0.0, f64::max)
            - loads.iter().copied().fold(f64::INFINITY, f64::min);
        // Whole layers only: two modules can each leave a rank one layer behind.
        prop_assert!(spread <= 2.0 * heaviest * (1.0 + 1e-9), "{loads:?}, a layer is {heaviest}");
    }

    #[test]
    fn the_longest_contiguous_run_is_as_short_as_possible(
        vision in 1u32..5,
        language in 1u32..6,
        ranks in 1u32..4,
        prices in [0.1f64..4.0, 0.1f64..4.0],
    ) {
        prop_assume!(vision + language >= ranks);
        let model = model(vision, language);
        let cost = Linear(vec![(0.0, prices[0]), (0.0, prices[1])]);
        let partitioner = Partitioner::new(&model, ranks, &cost).with_representative(half_full());
        let partition = partitioner.place(Placement::Contiguous { runs_per_rank: 1 }).unwrap();
        prop_assert!(validate_partition(&model, &partition).is_ok());
        let (loads, _) = loads(&partition, &cost);
        let longest = loads.iter().copied().fold(0.0, f64::max);
        let layers: Vec<f64> = std::iter::repeat_n(3.0 * prices[0] * 64.0, vision as usize)
            .chain(std::iter::repeat_n(3.0 * prices[1] * 64.0, language as usize))
            .collect();
        prop_assert!(longest <= best_cut(&layers, ranks as usize) * (1.0 + 1e-9));
    }
}

/// The shortest longest run over all ways to cut `layers` into `runs`.
fn best_cut(layers: &[f64], runs: usize) -> f64 {
    if runs == 1 {
        return layers.iter().sum();
    }
    let cuts = 1..=layers.len() + 1 - runs;
    cuts.map(|cut| layers[..cut].iter().sum::<f64>().max(best_cut(&layers[cut..], runs - 1)))
        .fold(f64::INFINITY, f64::min)
}
