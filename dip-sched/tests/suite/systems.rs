use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dip_core::{
    BatchMeta, Bytes, ChunkQuery, ClusterSpec, CostError, CostModel, Environment, LayerStrategy,
    MicrobatchMeta, ModelSpec, RankId, Seconds, StageCost, StageQuery, check_plan, presets,
};
use dip_sched::Planning;
use dip_sched::systems::{
    LADDER, ScheduleSystem, System, SystemInputs, system_by_name, system_names,
};

use crate::support::OutsideSchedule;

/// Every layer takes 250 s forward and 500 s backward, and ten units of memory, or one if it is recomputed.
#[derive(Default)]
struct Uniform {
    priced: AtomicUsize,
}

impl CostModel for Uniform {
    fn stage(&self, query: &StageQuery<'_>) -> Result<StageCost, CostError> {
        self.priced.fetch_add(1, Ordering::Relaxed);
        let n = query.chunk.layers.len();
        let layers = query.strategy.layers(n).unwrap();
        let full = layers.iter().filter(|&&l| l == LayerStrategy::Full).count();
        Ok(StageCost {
            strategy: query.strategy.clone(),
            forward: Seconds(250.0 * n as f64),
            backward: Seconds(500.0 * n as f64 + 250.0 * full as f64),
            weight: Some(Seconds(250.0 * n as f64)),
            activation_bytes: Bytes(10 * (n - full) as u64 + full as u64),
            output_bytes: Bytes(1),
        })
    }

    fn transfer(&self, _: RankId, _: RankId, _: Bytes) -> Seconds {
        Seconds::ZERO
    }

    fn static_bytes(&self, chunk: &ChunkQuery<'_>) -> Bytes {
        Bytes(chunk.layers.len() as u64)
    }
}

/// Two modules, one after another, of 7 and 9 equal layers.
fn model() -> ModelSpec {
    let text = |name: &str, layers: u32, inputs: &str| {
        format!(
            "[[module]]\nname = \"{name}\"\nlayers = {layers}\nhidden = 64\nffn = 128\nheads = 4\n\
             inputs = [{inputs}]\nkind = {{ decoder = {{ vocab = 4, head = false }} }}\n"
        )
    };
    let modules = text("a", 7, "") + &text("b", 9, "\"a\"");
    ModelSpec::from_toml(&format!("name = \"two\"\nsequence_tokens = 64\n{modules}")).unwrap()
}

fn batch(microbatches: usize) -> BatchMeta {
    let meta = MicrobatchMeta { text_tokens: 64, ..MicrobatchMeta::default() };
    BatchMeta { iteration: 0, microbatches: vec![meta; microbatches] }
}

fn cluster(memory: u64) -> ClusterSpec {
    let mut cluster = presets::cluster("h800").unwrap();
    cluster.device.memory_bytes = Bytes(memory);
    cluster
}

fn planning(model: &ModelSpec, memory: u64, cost: Arc<dyn CostModel>) -> Planning {
    Planning::on_ranks(model, &cluster(memory), cost, 4).unwrap()
}

fn makespan(system: &dyn System, microbatches: usize, memory: u64) -> f64 {
    let (cost, batch) = (Arc::new(Uniform::default()), batch(microbatches));
    let planning = planning(&model(), memory, cost.clone());
    let history = [batch.clone()];
    let inputs = SystemInputs { planning: &planning, history: &history, offload: false };
    let deployment = system.deploy(&inputs).unwrap();
    let priced = cost.priced.load(Ordering::Relaxed);
    let plan = deployment.plan(&batch, &Environment::default()).unwrap();
    assert!(cost.priced.load(Ordering::Relaxed) > priced);
    let violations = check_plan(&plan);
    assert!(violations.is_empty(), "{}: {violations:?}", system.name());
    plan.predicted.makespan_s.0
}

fn by_name(name: &str, microbatches: usize, memory: u64) -> f64 {
    makespan(&*system_by_name(name).unwrap(), microbatches, memory)
}

#[test]
fn a_schedule_of_another_crate_is_a_system_of_its_own() {
    let system = ScheduleSystem::new(Arc::new(OutsideSchedule));
    assert_eq!(system.name(), "outside");
    // It takes its own placement of two runs per rank, on which 1F1B is slower than interleaved 1F1B.
    let seconds = makespan(&system, 8, u64::MAX);
    assert!(seconds > by_name("interleaved", 8, u64::MAX), "{seconds}");
}

#[test]
fn a_run_across_two_modules_is_one_stage_of_the_virtual_pipeline() {
    // 4 layers per rank: 1000 forward and 2000 backward, as in the closed forms.
    assert_eq!(by_name("interleaved", 8, u64::MAX), 28500.0);
}

#[test]
fn text_only_microbatches_do_not_change_the_order_of_the_ranks() {
    let model = ModelSpec::from_toml(
        "name = \"sees\"\nsequence_tokens = 64\nmax_images = 1\n\
         [[module]]\nname = \"eye\"\nlayers = 8\nhidden = 64\nffn = 128\nheads = 4\n\
         kind = { vit = { image_px = 32, patch_px = 8, merge = 2 } }\n\
         [[module]]\nname = \"lm\"\nlayers = 8\nhidden = 64\nffn = 128\nheads = 4\n\
         inputs = [\"eye\"]\nkind = { decoder = { vocab = 4 } }\n",
    )
    .unwrap();
    let planning = planning(&model, u64::MAX, Arc::new(Uniform::default()));
    let meta = |images: u32| MicrobatchMeta {
        images: images.into(),
        text_tokens: 32,
        ..MicrobatchMeta::default()
    };
    let all = BatchMeta { iteration: 0, microbatches: vec![meta(1); 8] };
    let history = [all.clone()];
    let inputs = SystemInputs { planning: &planning, history: &history, offload: false };
    for name in ["1f1b", "interleaved", "zero_bubble"] {
        let deployment = system_by_name(name).unwrap().deploy(&inputs).unwrap();
        let seconds = |batch: &BatchMeta| {
            let plan = deployment.plan(batch, &Environment::default()).unwrap();
            plan.predicted.makespan_s.0
        };
        for without in 0..8 {
            let mut batch = all.clone();
            batch.microbatches[without] = meta(0);
            let (fewer, whole) = (seconds(&batch), seconds(&all));
            assert!(fewer <= whole, "{name}, {without}: {fewer} > {whole}");
        }
    }
}

#[test]
fn uniform_stages_take_the_closed_forms() {
    assert_eq!(by_name("nnscaler", 8, u64::MAX), 33000.0);
    assert_eq!(by_name("gpipe", 8, u64::MAX), 33000.0);
    // Four chunks per rank of one layer each.
    assert_eq!(by_name("megatron", 8, u64::MAX), 24000.0 + 9000.0 / 4.0);
}

#[test]
fn encoders_on_ranks_of_their_own_take_the_closed_form() {
    // Stages of 3, 4, 4 and 5 layers of 750 s: once through all stages, then seven times through the longest.
    let one_chunk = 16.0 * 750.0 + 7.0 * 5.0 * 750.0;
    let seconds = by_name("megatron-mimo", 8, u64::MAX);
    assert!((8.0 * 5.0 * 750.0..=one_chunk).contains(&seconds), "{seconds}");
}

#[test]
fn equal_microbatches_leave_a_static_partition_as_it_is() {
    assert_eq!(by_name("entrain", 8, u64::MAX), by_name("megatron", 8, u64::MAX));
}

#[test]
fn every_system_stays_within_memory() {
    // A rank holds 4 units of weights and, when everything is kept, 40 per microbatch.
    for memory in [1000, 100, 60] {
        for name in system_names().filter(|n| *n != "exact") {
            let seconds = by_name(name, 8, memory);
            assert!(seconds >= 24000.0, "{name}: {seconds}");
        }
    }
}

#[test]
fn the_ladder_starts_at_megatron_and_ends_here() {
    let seconds: Vec<f64> = LADDER.iter().map(|s| makespan(s, 8, 1000)).collect();
    assert_eq!(seconds[0], by_name("megatron", 8, 1000));
    assert_eq!(seconds[LADDER.len() - 1], by_name("dip", 8, 1000));
}

#[test]
fn a_model_that_does_not_fit_is_an_error() {
    let planning = planning(&model(), 3, Arc::new(Uniform::default()));
    let history = [batch(4)];
    let inputs = SystemInputs { planning: &planning, history: &history, offload: false };
    for name in ["megatron", "nnscaler", "optimus"] {
        let error = system_by_name(name).unwrap().deploy(&inputs).err().unwrap().to_string();
        assert!(error.contains(name) && error.contains("use more ranks"), "{error}");
    }
}
