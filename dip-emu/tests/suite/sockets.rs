use std::collections::BTreeMap;

use dip_core::{
    Bytes, ChunkQuery, CostError, CostModel, MicrobatchMeta, Modality, ModelSpec, ModuleKind,
    ModuleSpec, RankId, Seconds, StageCost, StageQuery, Strategy, Workload, presets,
};
use dip_emu::{
    AnalyticCost, ModalityOperators, Operator, OperatorKind, OperatorRule, PartBuilder, Product,
};

fn model() -> ModelSpec {
    presets::model("vlm-s").unwrap()
}

fn cost(model: &ModelSpec) -> AnalyticCost {
    AnalyticCost::new(model, &presets::cluster("h800").unwrap())
}

/// The chunk of one vision layer with 8 images.
fn chunk(model: &ModelSpec) -> (ChunkQuery<'_>, Workload) {
    let (vision, _) = model.module("vision").unwrap();
    let meta = MicrobatchMeta { images: 8.into(), ..MicrobatchMeta::default() };
    (ChunkQuery::new(model, vision, 1..2), model.workload(vision, &meta, 0..8))
}

fn keep(cost: &dyn CostModel, model: &ModelSpec) -> StageCost {
    let (chunk, workload) = chunk(model);
    cost.stage(&StageQuery { chunk, workload, strategy: &Strategy::keep() }).unwrap()
}

/// Measured kernels, by the name of the operator.
struct KernelTable(BTreeMap<&'static str, Seconds>);

impl OperatorRule for KernelTable {
    fn latency(&self, op: &Operator) -> Option<Seconds> {
        self.0.get(op.name).copied()
    }
}

#[test]
fn a_rule_replaces_the_formula_for_its_operators() {
    let model = model();
    let formula = keep(&cost(&model), &model).forward;
    let table = KernelTable(BTreeMap::from([("ffn up", Seconds(1.0))]));
    let ruled = keep(&cost(&model).with_rule(table), &model).forward;
    assert!(ruled > Seconds(1.0) && ruled < formula + Seconds(1.0));
    let free = |op: &Operator| (op.kind == OperatorKind::Collective).then_some(Seconds::ZERO);
    assert!(keep(&cost(&model).with_rule(free), &model).forward < formula);
}

/// Another cost model whose stages take `factor` times as long.
struct Slower<C> {
    inner: C,
    factor: f64,
}

impl<C: CostModel> CostModel for Slower<C> {
    fn stage(&self, query: &StageQuery<'_>) -> Result<StageCost, CostError> {
        let cost = self.inner.stage(query)?;
        Ok(StageCost {
            forward: cost.forward * self.factor,
            backward: cost.backward * self.factor,
            weight: cost.weight.map(|seconds| seconds * self.factor),
            ..cost
        })
    }

    fn transfer(&self, from: RankId, to: RankId, bytes: Bytes) -> Seconds {
        self.inner.transfer(from, to, bytes)
    }

    fn static_bytes(&self, chunk: &ChunkQuery<'_>) -> Bytes {
        self.inner.static_bytes(chunk)
    }

    fn working_bytes(&self, chunk: &ChunkQuery<'_>, workload: Workload) -> Bytes {
        self.inner.working_bytes(chunk, workload)
    }

    fn update(&self, chunk: &ChunkQuery<'_>) -> Seconds {
        self.inner.update(chunk) * self.factor
    }
}

#[test]
fn a_cost_model_can_wrap_another() {
    let model = model();
    let slower = Slower { inner: cost(&model), factor: 2.0 };
    let (inner, outer) = (keep(&slower.inner, &model), keep(&slower, &model));
    assert_eq!(outer.forward, inner.forward * 2.0);
    assert_eq!(outer.activation_bytes, inner.activation_bytes);
    let (chunk, workload) = chunk(&model);
    assert_eq!(slower.candidates(&chunk, workload).unwrap(), [outer]);
}

/// Point clouds, whose layers are single products without attention.
#[derive(Debug)]
struct PointClouds;

impl Modality for PointClouds {
    fn name(&self) -> &str {
        "point-cloud"
    }

    fn start_parameters(&self, module: &ModuleSpec, _: u64) -> u64 {
        3 * u64::from(module.hidden)
    }
}

impl ModalityOperators for PointClouds {
    fn start(&self, part: &mut PartBuilder<'_>, _: u64) {
        let (rows, outer) = (part.work().tokens, part.hidden());
        let points = part.data(part.whole(rows, 3));
        part.linear("points", points, points, Product { rows, inner: 3, outer });
    }

    fn layer(&self, part: &mut PartBuilder<'_>) {
        let (rows, h) = (part.work().tokens, part.hidden());
        let x = part.stream();
        part.linear("mix", x, x, Product { rows, inner: h, outer: h });
    }
}

#[test]
fn a_modality_brings_its_operators() {
    let mut model = model();
    model.modules[0].kind = ModuleKind::other(PointClouds);
    let (vision, spec) = model.module("vision").unwrap();
    let meta = PointClouds.microbatch_of(spec, 500);
    let workload = model.workload(vision, &meta, 0..1);
    let seconds = |cost: &AnalyticCost, layers| {
        let chunk = ChunkQuery::new(&model, vision, layers);
        let strategy = &Strategy::keep();
        cost.stage(&StageQuery { chunk, workload, strategy }).unwrap().forward
    };
    let plain = cost(&model);
    let own = cost(&model).with_operators("point-cloud", PointClouds);
    assert!(seconds(&own, 0..1) > seconds(&own, 1..2), "the start takes time");
    assert!(seconds(&own, 1..2) < seconds(&plain, 1..2), "a layer has one product only");
}
