//! What replicas and optimiser add to a plan.

use std::sync::Arc;

use dip_core::{BatchMeta, Chunk, MicrobatchMeta, ModelSpec, ModulePartition, Partition, Plan};
use dip_core::{
    BatchSplit, ClusterSpec, CostModel, GraphInput, RankId, Seconds, SegmentId, TaskId,
    build_graph, check_plan, presets,
};
use dip_emu::{AnalyticCost, GradientOverlap, Replicas, model_flops, step_figures};

/// A language model of four layers on two ranks, with two microbatches, one after another.
struct Run {
    model: ModelSpec,
    cluster: ClusterSpec,
    partition: Partition,
    batch: BatchMeta,
}

impl Run {
    fn new(data: u32) -> Self {
        let mut model = presets::model("vlm-m").unwrap();
        model.modules.remove(0);
        model.modules[0].inputs.clear();
        model.modules[0].layers = 4;
        model.parallel.data = data;
        let chunk = |rank: u32, layers| Chunk { rank: RankId(rank), segment: SegmentId(0), layers };
        let chunks = vec![chunk(0, 0..2), chunk(1, 2..4)];
        let modules = vec![ModulePartition { sub_microbatch: 1, chunks }];
        let meta = MicrobatchMeta { text_tokens: 8192, ..MicrobatchMeta::default() };
        let batch = BatchMeta { iteration: 0, microbatches: vec![meta; 2] };
        let partition = Partition { ranks: 2, modules };
        Self { model, cluster: presets::cluster("h800").unwrap(), partition, batch }
    }

    fn cost(&self, overlap: GradientOverlap) -> AnalyticCost {
        let replicas = Replicas { overlap, ..Replicas::default() };
        AnalyticCost::new(&self.model, &self.cluster).with_replicas(replicas)
    }

    /// Rank 1 ends a forward and a backward of all microbatches before the last backward of rank 0.
    fn plan(&self) -> Plan {
        let cost: Arc<dyn CostModel> = Arc::new(self.cost(GradientOverlap::None));
        let graph = build_graph(&GraphInput {
            model: &self.model,
            cluster: &self.cluster,
            partition: &self.partition,
            batch: &self.batch,
            split: &BatchSplit { slices: vec![vec![vec![0..1]]; 2] },
            cost: &*cost,
            weight_split: false,
        })
        .unwrap();
        let mut order = vec![Vec::new(); 2];
        let mut tasks: Vec<_> = graph.tasks.iter().collect();
        tasks.sort_by_key(|t| (t.microbatch, t.id));
        tasks.iter().for_each(|t| order[t.rank.index()].push(TaskId::from(t.id.index())));
        let plan = Plan::new(graph, "in turn", order, Seconds::ZERO).unwrap();
        assert_eq!(check_plan(&plan), []);
        plan
    }
}

#[test]
fn a_single_replica_only_updates() {
    let run = Run::new(1);
    let step =
        step_figures(&run.cost(GradientOverlap::Chunks), &run.partition, &run.batch, &run.plan());
    assert_eq!((step.reduction_s, step.gather_s), (Seconds::ZERO, Seconds::ZERO));
    assert!(step.update_s > Seconds::ZERO);
    assert_eq!((step.tokens, step.devices()), (2 * 8192, 16));
    assert_eq!(step.flops, model_flops(&run.model, &run.batch));
}

#[test]
fn gradients_are_summed_while_the_pipeline_runs_on() {
    let run = Run::new(8);
    let plan = run.plan();
    let step = |overlap| step_figures(&run.cost(overlap), &run.partition, &run.batch, &plan);
    let [none, chunks, layers] =
        [GradientOverlap::None, GradientOverlap::Chunks, GradientOverlap::Layers].map(step);
    let cost = run.cost(GradientOverlap::None);
    let of_rank: Vec<Seconds> =
        run.partition.queries(&run.model).map(|(_, chunk)| cost.reduction(&chunk)).collect();
    assert!((none.reduction_s.0 - of_rank[0].max(of_rank[1]).0).abs() < 1e-12);
    // Rank 1 has the head, but ends early: its sum starts at its own end.
    let makespan = plan.predicted.makespan_s;
    let last = plan.order[1].last().unwrap();
    let ended = plan.predicted.end_s[last.index()];
    assert!(ended < makespan);
    let expected = (makespan + of_rank[0]).max(ended + of_rank[1]) - makespan;
    assert!((chunks.reduction_s.0 - expected.0).abs() < 1e-12);
    assert!(layers.reduction_s < chunks.reduction_s && layers.reduction_s > Seconds::ZERO);
    assert!((none.gather_s.0, none.update_s) == (chunks.gather_s.0, layers.update_s));
    assert_eq!(none.seconds(makespan), makespan + none.exchange() + none.update_s);
}
