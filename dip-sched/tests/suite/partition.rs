use dip_core::{
    Bytes, ChunkQuery, CostError, CostModel, MicrobatchMeta, ModelSpec, ModuleId, Partition,
    RankId, Route, Seconds, StageCost, StageQuery,
};
use dip_sched::{Partitioner, routed_partitions, validate_partition};
use proptest::prelude::*;

use crate::support::{stage_of, vision_language};

/// Seconds of a layer, by module: a fixed part for each call and a part for each token.
struct LinearCost(Vec<(f64, f64)>);

impl CostModel for LinearCost {
    fn stage(&self, query: &StageQuery<'_>) -> Result<StageCost, CostError> {
        let (fixed, each) = self.0[query.chunk.module.index()];
        let layers = query.chunk.layers.len() as f64;
        let forward = Seconds(layers * (fixed + each * query.workload.tokens as f64));
        Ok(stage_of(query, forward, forward * 2.0))
    }

    fn transfer(&self, _: RankId, _: RankId, _: Bytes) -> Seconds {
        Seconds::ZERO
    }

    fn static_bytes(&self, _: &ChunkQuery<'_>) -> Bytes {
        Bytes::ZERO
    }
}

/// By module, seconds of a layer, and what the first and the last layer take on top. Tokens do not matter.
struct EndsCost(Vec<[f64; 3]>);

impl CostModel for EndsCost {
    fn stage(&self, query: &StageQuery<'_>) -> Result<StageCost, CostError> {
        let chunk = &query.chunk;
        let seconds =
            self.seconds(chunk.module, chunk.layers.len(), chunk.is_first(), chunk.is_last());
        Ok(stage_of(query, Seconds(seconds), Seconds::ZERO))
    }

    fn transfer(&self, _: RankId, _: RankId, _: Bytes) -> Seconds {
        Seconds::ZERO
    }

    fn static_bytes(&self, _: &ChunkQuery<'_>) -> Bytes {
        Bytes::ZERO
    }
}

impl EndsCost {
    fn seconds(&self, module: ModuleId, layers: usize, is_first: bool, is_last: bool) -> f64 {
        let [layer, first, last] = self.0[module.index()];
        let end = |has: bool, seconds: f64| if has { seconds } else { 0.0 };
        layers as f64 * layer + end(is_first, first) + end(is_last, last)
    }

    /// The load of every rank.
    fn loads(&self, partition: &Partition) -> Vec<f64> {
        let mut loads = vec![0.0; partition.ranks as usize];
        for (m, module) in partition.modules.iter().enumerate() {
            let last = module.chunks.len() - 1;
            for (i, chunk) in module.chunks.iter().enumerate() {
                let layers = chunk.layers.len();
                loads[chunk.rank.index()] += self.seconds(m.into(), layers, i == 0, i == last);
            }
        }
        loads
    }

    /// The load of the busiest rank with equal chunks whose remaining layers go to the ranks with the lowest load.
    fn busiest_of_equal_chunks(&self, partition: &Partition, layers: &[usize]) -> f64 {
        let ranks = partition.ranks as usize;
        let mut loads = vec![0.0; ranks];
        let mut order: Vec<usize> = (0..layers.len()).collect();
        let chunks: Vec<usize> = (0..layers.len())
            .map(|m| ranks * partition.segments(m.into()).max(1) as usize)
            .collect();
        for (m, &n) in chunks.iter().enumerate().filter(|&(m, &n)| layers[m] >= n) {
            for j in 0..n {
                loads[j % ranks] += self.seconds(m.into(), layers[m] / n, j == 0, j + 1 == n);
            }
        }
        order.sort_by(|&a, &b| self.0[b][0].total_cmp(&self.0[a][0]));
        for m in order {
            let mut free: Vec<usize> = (0..chunks[m]).collect();
            let mut given = Vec::new();
            for _ in 0..layers[m] % chunks[m] {
                let by_load = |&a: &usize, &b: &usize| {
                    loads[free[a] % ranks].total_cmp(&loads[free[b] % ranks])
                };
                let chunk = free.remove((0..free.len()).min_by(by_load).unwrap());
                loads[chunk % ranks] += self.0[m][0];
                given.push(chunk);
            }
            if layers[m] < chunks[m] {
                loads[given.iter().min().unwrap() % ranks] += self.0[m][1];
                loads[given.iter().max().unwrap() % ranks] += self.0[m][2];
            }
        }
        loads.into_iter().fold(0.0, f64::max)
    }
}

/// A model with a decoder only.
fn decoder(layers: u32) -> ModelSpec {
    let text = format!(
        "name = 'test'\nsequence_tokens = 64\n\
         [[module]]\nname = 'language'\nlayers = {layers}\nhidden = 8\nffn = 8\nheads = 2\n\
         kind.decoder = {{ vocab = 32 }}\n"
    );
    ModelSpec::from_toml(&text).unwrap()
}

/// The partition with one segment for each module.
fn one_segment(model: &ModelSpec, ranks: u32, cost: &EndsCost) -> Partition {
    let partitioner = Partitioner::new(model, ranks, cost);
    partitioner.with_segments(VISION, 1).with_segments(LANGUAGE, 1).partition().unwrap()
}

/// Layers of every chunk.
fn sizes(partition: &Partition, module: ModuleId) -> Vec<usize> {
    partition.module(module).chunks.iter().map(|c| c.layers.len()).collect()
}

const VISION: ModuleId = ModuleId(0);
const LANGUAGE: ModuleId = ModuleId(1);

/// Four images; text fills the sequence.
fn half_full() -> MicrobatchMeta {
    MicrobatchMeta { images: 4.into(), text_tokens: 48, ..MicrobatchMeta::default() }
}

/// The load of every rank, and the heaviest layer, for the half-full microbatch: 64 patches and 64 tokens, no fixed parts.
fn loads(partition: &Partition, cost: &LinearCost) -> (Vec<f64>, f64) {
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
fn the_number_of_segments_is_the_latency_relative_to_the_fastest_module() {
    let model = vision_language(16, 48);
    // One image takes 16 layers x 16 tokens. A sequence takes 48 layers x 64 tokens at half the time per token: six times as long.
    let cost = LinearCost(vec![(0.0, 1.0), (0.0, 0.5)]);
    let partition = Partitioner::new(&model, 4, &cost).partition().unwrap();
    assert_eq!((partition.segments(VISION), partition.segments(LANGUAGE)), (1, 6));
    let sizes: Vec<u32> =
        partition.module(LANGUAGE).chunks.iter().map(|c| c.layers.len() as u32).collect();
    assert_eq!(sizes, [2; 24]);
}

#[test]
fn a_sub_microbatch_is_the_smallest_that_keeps_95_percent_of_the_best_efficiency() {
    let model = vision_language(4, 4);
    // A call for b images takes 3.2 + 16 b: two keep 93 % of the efficiency of eight, three keep 96 %.
    let cost = LinearCost(vec![(3.2, 1.0), (0.0, 1.0)]);
    let partition = Partitioner::new(&model, 2, &cost).partition().unwrap();
    let efficiency = |b: f64| b / (3.2 + 16.0 * b);
    let expected = (1..=8).find(|&b| efficiency(f64::from(b)) >= 0.95 * efficiency(8.0));
    assert_eq!(Some(partition.module(VISION).sub_microbatch), expected);
    assert_eq!(expected, Some(3));
}

#[test]
fn fewer_layers_than_ranks_leave_ranks_without_a_chunk() {
    let model = vision_language(3, 8);
    let cost = LinearCost(vec![(0.0, 1.0), (0.0, 1.0)]);
    let partition = Partitioner::new(&model, 4, &cost).partition().unwrap();
    let ranks: Vec<u32> = partition.module(VISION).chunks.iter().map(|c| c.rank.0).collect();
    assert_eq!(ranks.len(), 3);
    assert!(ranks.is_sorted_by(|a, b| a < b), "{ranks:?}");
}

#[test]
fn requested_segments_are_limited_by_the_layers() {
    let model = vision_language(5, 11);
    let cost = LinearCost(vec![(0.0, 1.0), (0.0, 1.0)]);
    let partitioner =
        Partitioner::new(&model, 4, &cost).with_segments(VISION, 9).with_segments(LANGUAGE, 9);
    let partition = partitioner.partition().unwrap();
    assert_eq!((partition.segments(VISION), partition.segments(LANGUAGE)), (1, 2));
}

#[test]
fn every_second_segment_of_a_wave_runs_back() {
    let (model, cost) = (decoder(8), EndsCost(vec![[1.0, 0.0, 0.0]]));
    let lm = ModuleId(0);
    let partitioner = Partitioner::new(&model, 2, &cost).with_segments(lm, 4);
    let ranks = |partition: &Partition| -> Vec<u32> {
        partition.module(lm).chunks.iter().map(|chunk| chunk.rank.0).collect()
    };
    let wave = partitioner.clone().with_route(lm, Route::Wave).partition().unwrap();
    assert_eq!(ranks(&wave), [0, 1, 1, 0, 0, 1, 1, 0]);
    let all = routed_partitions(&partitioner).unwrap();
    assert_eq!(
        all.iter().map(ranks).collect::<Vec<_>>(),
        [vec![0, 1, 0, 1, 0, 1, 0, 1], ranks(&wave)]
    );
    // A module of one segment has nothing to turn.
    assert_eq!(routed_partitions(&partitioner.with_segments(lm, 1)).unwrap().len(), 1);
}

#[test]
fn a_rank_with_a_head_gives_layers_away() {
    // The head takes as long as two layers.
    let cost = EndsCost(vec![[1.0, 0.0, 2.0]]);
    let partition = Partitioner::new(&decoder(22), 4, &cost).partition().unwrap();
    assert_eq!(sizes(&partition, ModuleId(0)), [6, 6, 6, 4]);
}

#[test]
fn layers_leave_the_longest_chunk_for_the_shortest() {
    let cost = EndsCost(vec![[1.0, 0.0, 3.0]]);
    let model = decoder(24);
    let partitioner = Partitioner::new(&model, 3, &cost).with_segments(ModuleId(0), 2);
    let partition = partitioner.partition().unwrap();
    assert_eq!(sizes(&partition, ModuleId(0)), [5, 5, 4, 4, 4, 2]);
    assert_eq!(cost.loads(&partition), [9.0, 9.0, 9.0]);
}

#[test]
fn another_module_gives_a_layer_if_the_first_has_none_to_give() {
    // Every chunk has one language layer, and the head takes as long as six vision layers.
    let cost = EndsCost(vec![[1.0, 0.0, 0.0], [20.0, 0.0, 6.0]]);
    let partition = one_segment(&vision_language(24, 4), 4, &cost);
    assert_eq!(sizes(&partition, LANGUAGE), [1; 4]);
    assert_eq!(sizes(&partition, VISION), [7, 7, 7, 3]);
}

#[test]
fn a_layer_stays_if_its_move_helps_in_one_mix_of_modules_only() {
    // The rank with one more language layer has one less vision layer and is busier, unless language takes half the time.
    let cost = EndsCost(vec![[1.0, 0.0, 0.0], [2.5, 0.0, 0.0]]);
    let partition = one_segment(&vision_language(11, 5), 2, &cost);
    assert_eq!((sizes(&partition, VISION), sizes(&partition, LANGUAGE)), (vec![5, 6], vec![3, 2]));
    // With one vision layer less in the model, it is busier in every mix.
    let partition = one_segment(&vision_language(10, 5), 2, &cost);
    assert_eq!((sizes(&partition, VISION), sizes(&partition, LANGUAGE)), (vec![4, 6], vec![3, 2]));
}

#[test]
fn the_largest_models_are_placed_quickly() {
    let cost = EndsCost(vec![[1.0, 0.5, 9.0], [2.0, 3.0, 40_000.0]]);
    for (vision, language, ranks) in
        [(65_536, 40_000, 65_536), (65_536, 65_536, 24_000), (65_536, 65_535, 2)]
    {
        let model = vision_language(vision, language);
        let partition = Partitioner::new(&model, ranks, &cost).partition().unwrap();
        assert!(validate_partition(&model, &partition).is_ok());
    }
}

proptest! {
    #[test]
    fn the_busiest_rank_of_one_module_has_the_least_possible_load(
        layers in 1u32..12,
        ranks in 1u32..5,
        segments in 1u32..4,
        ends in [0.0f64..5.0, 0.0f64..5.0],
    ) {
        prop_assume!(layers >= ranks && layers > 2);
        let cost = EndsCost(vec![[1.0, ends[0], ends[1]]]);
        let model = decoder(layers);
        let partitioner = Partitioner::new(&model, ranks, &cost).with_segments(ModuleId(0), segments);
        let partition = partitioner.partition().unwrap();
        let busiest = cost.loads(&partition).into_iter().fold(0.0, f64::max);
        let chunks = (ranks * partition.segments(ModuleId(0)) as u32) as usize;
        let grid = Grid { ranks: ranks as usize, chunks };
        let best = least_busiest(&cost, grid, layers as usize, &mut Vec::new());
        prop_assert!((busiest - best).abs() < 1e-6, "{busiest} but {best} is possible");
    }

    #[test]
    fn moves_never_raise_the_load_of_the_busiest_rank(
        vision in 3u32..30,
        language in 3u32..40,
        ranks in 1u32..7,
        times in prop::array::uniform6(0.1f64..4.0),
    ) {
        let [v, l, v_first, v_last, l_first, l_last] = times;
        let cost = EndsCost(vec![[v, v_first, v_last], [l, l_first, 2.0 * l_last]]);
        let model = vision_language(vision, language);
        // All four images are in one sub-microbatch, so layer times are for the whole microbatch.
        let partitioner = Partitioner::new(&model, ranks, &cost)
            .with_representative(half_full())
            .with_sub_microbatch(VISION, 8);
        let partition = partitioner.partition().unwrap();
        prop_assert!(validate_partition(&model, &partition).is_ok());
        let busiest = cost.loads(&partition).into_iter().fold(0.0, f64::max);
        let before = cost.busiest_of_equal_chunks(&partition, &[vision as usize, language as usize]);
        prop_assert!(busiest <= before * (1.0 + 1e-9), "{busiest} is more than {before}");
    }

    #[test]
    fn every_partition_is_valid_and_its_ranks_differ_by_little_more_than_a_layer(
        vision in 1u32..20,
        language in 1u32..40,
        ranks in 1u32..9,
        times in [0.1f64..4.0, 0.1f64..4.0],
    ) {
        let model = vision_language(vision, language);
        let cost = LinearCost(vec![(0.0, times[0]), (0.0, times[1])]);
        let partitioner = Partitioner::new(&model, ranks, &cost).with_representative(half_full());
        let partition = partitioner.partition().unwrap();
        prop_assert!(validate_partition(&model, &partition).is_ok());
        let (loads, heaviest) = loads(&partition, &cost);
        let spread = loads.iter().copied().fold(0.0, f64::max)
            - loads.iter().copied().fold(f64::INFINITY, f64::min);
        // Layers are whole, so each of two modules can leave a gap of one layer.
        prop_assert!(spread <= 2.0 * heaviest * (1.0 + 1e-9), "{loads:?}, a layer is {heaviest}");
    }

    #[test]
    fn the_longest_contiguous_run_is_as_short_as_possible(
        vision in 1u32..5,
        language in 1u32..6,
        ranks in 1u32..4,
        times in [0.1f64..4.0, 0.1f64..4.0],
    ) {
        prop_assume!(vision + language >= ranks);
        let model = vision_language(vision, language);
        let cost = LinearCost(vec![(0.0, times[0]), (0.0, times[1])]);
        let partitioner = Partitioner::new(&model, ranks, &cost).with_representative(half_full());
        let partition = partitioner.place(dip_core::Placement::Contiguous { runs_per_rank: 1, route: dip_core::Route::Loop }).unwrap();
        prop_assert!(validate_partition(&model, &partition).is_ok());
        let (loads, _) = loads(&partition, &cost);
        let longest = loads.iter().copied().fold(0.0, f64::max);
        let layers: Vec<f64> = std::iter::repeat_n(3.0 * times[0] * 64.0, vision as usize)
            .chain(std::iter::repeat_n(3.0 * times[1] * 64.0, language as usize))
            .collect();
        prop_assert!(longest <= best_cut(&layers, ranks as usize) * (1.0 + 1e-9));
    }
}

/// Numbers of ranks and chunks.
#[derive(Clone, Copy)]
struct Grid {
    ranks: usize,
    chunks: usize,
}

/// The least load of the busiest rank over all numbers of layers per chunk. `taken` holds the layers of the first chunks, `left` layers
/// remain.
fn least_busiest(cost: &EndsCost, grid: Grid, left: usize, taken: &mut Vec<usize>) -> f64 {
    let Grid { ranks, chunks } = grid;
    if taken.len() + 1 == chunks {
        let mut loads = vec![0.0; ranks];
        for (j, &n) in taken.iter().chain([&left]).enumerate() {
            loads[j % ranks] += cost.seconds(ModuleId(0), n, j == 0, j + 1 == chunks);
        }
        return loads.into_iter().fold(0.0, f64::max);
    }
    let mut best = f64::INFINITY;
    for n in 1..=left - (chunks - taken.len() - 1) {
        taken.push(n);
        best = least_busiest(cost, grid, left - n, taken).min(best);
        taken.pop();
    }
    best
}

/// The length of the longest run in the best cut of `layers` into `runs`.
fn best_cut(layers: &[f64], runs: usize) -> f64 {
    if runs == 1 {
        return layers.iter().sum();
    }
    let cuts = 1..=layers.len() + 1 - runs;
    cuts.map(|cut| layers[..cut].iter().sum::<f64>().max(best_cut(&layers[cut..], runs - 1)))
        .fold(f64::INFINITY, f64::min)
}
