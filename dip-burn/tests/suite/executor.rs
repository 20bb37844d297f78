use std::sync::Arc;

use dip_burn::Batch;
use dip_burn::runtime::{Pipeline, PipelineInit};
use dip_core::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::support::*;

/// Runs a plan on any executor; the trace must cover the plan.
fn run(executor: &mut dyn Executor, plan: &Plan) -> Result<Trace, ExecError> {
    let trace = executor.execute(plan)?;
    trace.check(plan).unwrap();
    Ok(trace)
}

struct Case {
    model: ModelSpec,
    partition: Partition,
    batch: Arc<Batch>,
    /// Two plans of the batch.
    plans: [Plan; 2],
}

impl Case {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let model = model(2, 3, false);
        let (meta, batch) = random_batch(&mut rng, &model, &[&[1, 2], &[3], &[0]]);
        let partition = random_partition(&mut rng, &model, 2);
        let plans = [true, false].map(|weight_split| {
            let graph = graph(&model, &partition, &meta, &batch, weight_split);
            random_plan(&mut rng, graph, &["keep", "full"])
        });
        Self { model, partition, batch, plans }
    }

    fn pipeline(&self) -> Pipeline<B> {
        let devices = vec![Default::default(); 2];
        Pipeline::new(&PipelineInit::new(&self.model, &self.partition, devices)).unwrap()
    }
}

#[test]
fn a_pipeline_executes_any_plan_of_its_batch() {
    let case = Case::new(1);
    let mut pipeline = case.pipeline();
    let mut executor = pipeline.executor(&case.batch, None);
    for plan in &case.plans {
        assert_eq!(run(&mut executor, plan).unwrap().ranks, 2);
    }
}

#[test]
fn a_strategy_that_no_stage_knows_is_the_error_of_its_task() {
    let mut case = Case::new(2);
    for task in &mut case.plans[0].graph.tasks {
        task.strategy = Strategy::new("unheard-of");
    }
    let mut pipeline = case.pipeline();
    let error = run(&mut pipeline.executor(&case.batch, None), &case.plans[0]).unwrap_err();
    assert!(
        matches!(error, ExecError::Stage { source: StageError::Unsupported { .. }, .. }),
        "{error}"
    );
}
