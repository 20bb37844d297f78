use std::sync::Arc;

use dip_core::{
    BatchMeta, Budget, Bytes, Chunk, ChunkQuery, ClusterSpec, CostError, CostModel, Environment,
    MicrobatchMeta, ModelSpec, ModulePartition, Partition, RankId, Schedule, Seconds, SegmentId,
    StageCost, StageQuery, presets,
};
use dip_sched::{
    Dip, Interleaved, Partitioner, PlacementError, PlacementSearch, Planning, validate_partition,
};

use crate::support::{OutsideSchedule, stage_of, vision_language};

/// Seconds of one layer of a module, per call, token and update. The first and the last layer take `first` and `last` seconds more.
#[derive(Clone, Copy)]
struct LayerTimes {
    call: f64,
    token: f64,
    first: f64,
    last: f64,
    update: f64,
}

/// Layer times by module, and the extra time of a backward with split weight gradients, as a share of the forward.
struct LayerTimesCost {
    times: Vec<LayerTimes>,
    extra: f64,
}

impl CostModel for LayerTimesCost {
    fn stage(&self, query: &StageQuery<'_>) -> Result<StageCost, CostError> {
        let times = self.times[query.chunk.module.index()];
        let layer = times.call + times.token * query.workload.tokens as f64;
        let first = if query.chunk.is_first() { times.first } else { 0.0 };
        let last = if query.chunk.is_last() { times.last } else { 0.0 };
        let forward = Seconds(layer * query.chunk.layers.len() as f64 + first + last);
        let backward = forward * (2.0 + self.extra);
        Ok(StageCost {
            weight: Some(forward),
            activation_bytes: Bytes(query.workload.tokens),
            ..stage_of(query, forward, backward)
        })
    }

    fn transfer(&self, _: RankId, _: RankId, _: Bytes) -> Seconds {
        Seconds::ZERO
    }

    fn static_bytes(&self, chunk: &ChunkQuery<'_>) -> Bytes {
        Bytes(1000 * chunk.layers.len() as u64)
    }

    fn update(&self, chunk: &ChunkQuery<'_>) -> Seconds {
        Seconds(self.times[chunk.module.index()].update * chunk.layers.len() as f64)
    }
}

fn microbatch(images: u32) -> MicrobatchMeta {
    let text_tokens = 64 - 4 * u64::from(images);
    MicrobatchMeta { images: images.into(), text_tokens, ..MicrobatchMeta::default() }
}

/// A run whose layers are placed.
struct PlacementCase {
    model: ModelSpec,
    times: Vec<LayerTimes>,
    cluster: ClusterSpec,
    batches: Vec<BatchMeta>,
    ranks: u32,
    /// The extra time of a backward with split weight gradients, as a share of the forward.
    split_extra: f64,
}

impl PlacementCase {
    fn new(layers: [u32; 2], times: [LayerTimes; 2]) -> Self {
        let batch = |images: [u32; 4]| BatchMeta {
            iteration: 0,
            microbatches: images.map(microbatch).to_vec(),
        };
        let mut cluster = presets::cluster("cpu").unwrap();
        cluster.device.memory_bytes = Bytes(u64::MAX);
        Self {
            model: vision_language(layers[0], layers[1]),
            times: times.to_vec(),
            cluster,
            batches: vec![batch([4, 2, 6, 3]), batch([8, 1, 4, 4])],
            ranks: 2,
            split_extra: 0.3,
        }
    }

    fn planning(&self, weight_split: bool) -> Planning {
        let extra = if weight_split { self.split_extra } else { 0.0 };
        let cost = Arc::new(LayerTimesCost { times: self.times.clone(), extra });
        let planning = Planning::on_ranks(&self.model, &self.cluster, cost, self.ranks);
        planning.unwrap().with_weight_split(weight_split)
    }

    fn found(
        &self,
        schedule: &dyn Schedule,
        find: impl Fn(&PlacementSearch<'_>) -> Result<Planning, PlacementError>,
    ) -> Result<Planning, PlacementError> {
        let splits = if schedule.splits_weights() { vec![false, true] } else { vec![false] };
        find(&PlacementSearch {
            plannings: splits.into_iter().map(|split| self.planning(split)).collect(),
            batches: &self.batches,
            mean: &microbatch(4),
            longest_video: Seconds::ZERO,
            schedule,
            budget: Budget::Iterations(20),
        })
    }

    fn by_rule(&self) -> Planning {
        self.found(&Dip, |search| search.by_rule()).unwrap()
    }

    fn searched(&self, schedule: &dyn Schedule) -> Result<Planning, PlacementError> {
        self.found(schedule, |search| search.run())
    }

    /// Mean seconds of an iteration.
    fn seconds(&self, planning: &Planning) -> f64 {
        let environment = Environment { budget: Budget::Iterations(20), ..Environment::default() };
        let planned =
            |batch| planning.plan_in(batch, &Dip, &environment).unwrap().predicted.makespan_s.0;
        let mean = self.batches.iter().map(planned).sum::<f64>() / self.batches.len() as f64;
        mean + planning.busiest_update().0
    }

    /// The best of all partitions on two ranks with whole microbatches.
    fn optimum(&self) -> f64 {
        let planning = self.planning(false);
        let layers: Vec<u32> = self.model.modules.iter().map(|m| m.layers).collect();
        let all = 0u32..1 << layers.iter().sum::<u32>();
        let seconds = all.map(|ranks| {
            let mut bits = (0..).map(|i| RankId(ranks >> i & 1));
            let modules = layers.iter().map(|&n| module(bits.by_ref().take(n as usize))).collect();
            self.seconds(&planning.clone().with_partition(Partition { ranks: 2, modules }))
        });
        seconds.fold(f64::INFINITY, f64::min)
    }
}

/// A module with its layers on these ranks.
fn module(ranks: impl Iterator<Item = RankId>) -> ModulePartition {
    let mut chunks: Vec<Chunk> = Vec::new();
    for (layer, rank) in (0..).zip(ranks) {
        match chunks.last_mut() {
            Some(chunk) if chunk.rank == rank => chunk.layers.end = layer + 1,
            _ => {
                let before = chunks.iter().filter(|c| c.rank == rank).count();
                let segment = SegmentId::from(before);
                chunks.push(Chunk { rank, segment, layers: layer..layer + 1 });
            }
        }
    }
    ModulePartition { sub_microbatch: u32::MAX, chunks }
}

const EVEN: LayerTimes = LayerTimes { call: 0.0, token: 1.0, first: 0.0, last: 0.0, update: 0.0 };

#[test]
fn a_searched_placement_is_as_good_as_the_best_of_all() {
    // A small encoder before a backbone with a heavy first layer, as in diffusion transformers; a head as heavy as two layers; an
    // encoder that no rank can share evenly; slices that cost as much as whole microbatches; a backbone with two heavy ends.
    let small = LayerTimes { call: 150.0, token: 0.0, ..EVEN };
    let cases = [
        PlacementCase::new([2, 4], [small, LayerTimes { call: 1100.0, first: 400.0, ..EVEN }]),
        PlacementCase::new(
            [1, 4],
            [LayerTimes { call: 400.0, ..EVEN }, LayerTimes { last: 128.0, ..EVEN }],
        ),
        PlacementCase::new([2, 3], [LayerTimes { call: 400.0, token: 1.5, ..EVEN }, EVEN]),
        PlacementCase::new(
            [3, 3],
            [LayerTimes { call: 400.0, token: 0.4, ..EVEN }, LayerTimes { last: 40.0, ..EVEN }],
        ),
        PlacementCase::new(
            [2, 5],
            [
                LayerTimes { call: 50.0, token: 0.2, ..EVEN },
                LayerTimes { first: 300.0, last: 500.0, ..EVEN },
            ],
        ),
    ];
    let mut shorter = 0;
    for (i, case) in cases.iter().enumerate() {
        let rule = case.by_rule();
        let searched = case.searched(&Dip).unwrap();
        assert_eq!(validate_partition(&case.model, searched.partition()), Ok(()));
        let [rule, found] = [&rule, &searched].map(|planning| case.seconds(planning));
        assert!(found <= rule, "case {i}: {found} against {rule} by rule");
        let optimum = case.optimum();
        assert!(found <= 1.01 * optimum, "case {i}: {found}, but {optimum} is possible");
        shorter += usize::from(found < 0.98 * rule);
    }
    assert!(
        shorter >= 1,
        "the rule is optimal in every case, so these cases do not test the search"
    );
}

#[test]
fn the_placement_follows_the_plans_of_a_schedule_of_another_crate() {
    let case = PlacementCase::new([2, 4], [EVEN, LayerTimes { last: 128.0, ..EVEN }]);
    let seconds = |planning: &Planning| {
        let plan = planning.plan(&case.batches[0], &OutsideSchedule).unwrap();
        plan.predicted.makespan_s
    };
    let rule = case.found(&OutsideSchedule, |search| search.by_rule()).unwrap();
    let searched = case.searched(&OutsideSchedule).unwrap();
    assert!(seconds(&searched) <= seconds(&rule));
    assert_eq!(validate_partition(&case.model, searched.partition()), Ok(()));
}

#[test]
fn equal_runs_get_equal_placements() {
    let case = PlacementCase::new([3, 5], [EVEN, LayerTimes { last: 100.0, ..EVEN }]);
    let placed = || case.searched(&Dip).unwrap().partition().clone();
    assert_eq!(placed(), placed());
}

#[test]
fn weights_that_take_long_to_update_are_shared() {
    let update = |update| [LayerTimes { update, ..EVEN }, LayerTimes { token: 0.01, ..EVEN }];
    // The backbone takes no time: without updates the encoder alone decides.
    let busiest = |times| {
        let case = PlacementCase::new([4, 1], times);
        case.searched(&Dip).unwrap().busiest_update()
    };
    assert_eq!(busiest(update(1000.0)), Seconds(2000.0));
    // If updates take longer than stages, balanced updates matter more than the pipeline.
    let heavy =
        [LayerTimes { token: 0.01, update: 900.0, ..EVEN }, LayerTimes { update: 900.0, ..EVEN }];
    assert_eq!(busiest(heavy), Seconds(2700.0));
}

#[test]
fn a_schedule_that_does_not_search_keeps_its_rule() {
    let case = PlacementCase::new([1, 4], [EVEN, LayerTimes { last: 500.0, ..EVEN }]);
    let cost = LayerTimesCost { times: case.times.clone(), extra: 0.0 };
    let mean = microbatch(4);
    let rule = Partitioner::new(&case.model, 2, &cost).with_representative(mean).contiguous(2);
    let found = case.searched(&Interleaved).unwrap().partition().clone();
    assert_eq!(Ok(found), rule);
}

#[test]
fn a_placement_keeps_the_limit_and_an_error_names_a_sufficient_limit() {
    let mut case = PlacementCase::new([2, 4], [EVEN, EVEN]);
    let needs = |error| match error {
        PlacementError::Memory { limit, need, .. } => (limit, need),
        other => panic!("{other}"),
    };
    case.cluster.device.memory_bytes = Bytes(2000);
    let (limit, need) = needs(case.searched(&Dip).err().unwrap());
    assert!(limit == 2000 && need > 3000, "{limit} {need}");
    case.cluster.device.memory_bytes = Bytes(need - 1);
    assert_eq!(needs(case.searched(&Dip).err().unwrap()).1, need);
    case.cluster.device.memory_bytes = Bytes(need);
    let placed = case.searched(&Dip).unwrap();
    for batch in &case.batches {
        let plan = placed.plan(batch, &Dip).unwrap();
        assert!(plan.predicted.peak_bytes.iter().all(|bytes| bytes.0 <= need));
    }
}

#[test]
fn weight_gradients_are_split_if_that_gains_more_than_it_costs() {
    let mut case = PlacementCase::new([2, 4], [EVEN, EVEN]);
    case.split_extra = 0.0;
    assert!(case.searched(&Dip).unwrap().weight_split(), "bubbles of four microbatches are filled");
    case.split_extra = 1.0;
    assert!(!case.searched(&Dip).unwrap().weight_split());
}

#[test]
fn any_number_of_ranks_is_placed() {
    for ranks in [1, 3, 7] {
        let mut case = PlacementCase::new([2, 5], [EVEN, LayerTimes { last: 90.0, ..EVEN }]);
        case.ranks = ranks;
        let placed = case.searched(&Dip).unwrap();
        assert_eq!(validate_partition(&case.model, placed.partition()), Ok(()));
        assert_eq!(placed.ranks(), ranks);
    }
}

#[test]
fn a_model_of_very_many_layers_is_placed_by_rule() {
    let mut case = PlacementCase::new([64, 9_000], [EVEN, EVEN]);
    case.batches.truncate(1);
    assert_eq!(case.by_rule().partition(), case.searched(&Dip).unwrap().partition());
}
