//! Joins profile, cost model, partition and planner to a training run.

use std::sync::Arc;

use dip_burn::measure::{Effort, MeasureError, cached_profile};
use dip_burn::train::{Deal, RunConfig, RunData, Throughput, TrainError, Trainer, TrainerInit};
use dip_core::profile::Profile;
use dip_core::{
    BatchMeta, Budget, Bytes, ClusterSpec, CostModel, MicrobatchMeta, ModelSpec, Partition,
    Schedule, Seconds, SpecError, presets,
};
use dip_emu::MeasuredCost;
use dip_sched::{
    BatchPlanner, PartitionError, Partitioner, PlanInputs, PlannerConfig, balance_microbatches,
    placement, rank_loads, schedule_by_name, splits_weights,
};

/// Longest search of a run whose budget is time, unless its iterations are shorter.
const LONGEST_SEARCH: Seconds = Seconds(10.0);
/// Batches whose mean microbatch loads are balanced for.
const REPRESENTATIVE_BATCHES: usize = 8;

/// A run that cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A field of the run.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The profile.
    #[error(transparent)]
    Measure(#[from] MeasureError),
    /// The partition.
    #[error(transparent)]
    Partition(#[from] PartitionError),
    /// The trainer.
    #[error(transparent)]
    Train(#[from] TrainError),
}

/// The trainer of a run: costs are measured on these devices, once for each model, and kept in the output folder.
///
/// # Errors
/// [`RunError`] names the field or file and the remedy.
pub fn trainer<B: dip_burn::Backend>(
    config: &RunConfig,
    model: &ModelSpec,
    devices: Vec<B::Device>,
) -> Result<Trainer<B>, RunError> {
    let pipeline = &config.pipeline;
    let schedule: Arc<dyn Schedule> = schedule(&pipeline.schedule)?.into();
    let mut data = RunData::open(model, &config.data, &config.evaluation, config.seed)
        .map_err(TrainError::from)?;
    let (representative, documents) = representative(&mut data)?;
    let effort = Effort {
        ranks: pipeline.devices() as usize,
        threads: pipeline.threads_per_rank,
        documents,
        precision: pipeline.precision,
        ..Effort::default()
    };
    let device = devices.first().cloned().unwrap_or_default();
    let path = config.output.join("profile.json");
    let profile = cached_profile::<B>(&path, model, &device, effort)?;
    // Recomputing costs time, so it is only offered where memory is limited.
    let recompute = pipeline.memory_limit_bytes.is_some();
    let weight_split = pipeline.weight_split.unwrap_or_else(|| splits_weights(&pipeline.schedule));
    let cost = MeasuredCost::new(&profile, recompute).with_weight_split(weight_split);
    let cost: Arc<dyn CostModel> = Arc::new(cost);
    let partition: Partition = Partitioner::new(model, pipeline.ranks, &*cost)
        .with_representative(representative)
        .place(placement(&pipeline.schedule))?;
    let deal = deal(model, &partition, cost.clone(), pipeline.replicas as usize);
    let inputs = PlanInputs {
        model: model.clone(),
        cluster: cluster(pipeline.memory_limit_bytes),
        partition: partition.clone(),
        cost,
        weight_split,
    };
    let throughput = throughput(model, &profile, pipeline.devices());
    let planner = PlannerConfig {
        schedule,
        seed: config.seed,
        budget: match pipeline.search_iterations {
            0 => Budget::Time(LONGEST_SEARCH),
            n => Budget::Iterations(n),
        },
        // Every core beside this one trains.
        threads: 1,
        ..PlannerConfig::default()
    };
    let plans = Box::new(BatchPlanner::new(inputs, planner));
    let init = TrainerInit { config, model, partition: &partition, plans, data, devices };
    Ok(Trainer::new(init)?.with_throughput(throughput).with_dealing(deal))
}

/// Deals microbatches so that the busiest rank of any replica is least busy.
fn deal(
    model: &ModelSpec,
    partition: &Partition,
    cost: Arc<dyn CostModel>,
    replicas: usize,
) -> Deal {
    let (model, partition) = (model.clone(), partition.clone());
    Box::new(move |batch| {
        // A batch without costs is refused by the planner, which says why.
        let even = |_| vec![Vec::new(); batch.microbatches.len()];
        let loads = rank_loads(&model, &partition, batch, &*cost).unwrap_or_else(even);
        balance_microbatches(&loads, replicas)
    })
}

/// The arithmetic of the model over that of the devices, where the profile knows their peak.
fn throughput(model: &ModelSpec, profile: &Profile, devices: u32) -> Option<Throughput> {
    let model = model.clone();
    let peak_flops_per_s = f64::from(devices) * profile.peak_flops_per_s?;
    let model_flops = move |batch: &BatchMeta| dip_emu::model_flops(&model, batch);
    Some(Throughput { model_flops: Box::new(model_flops), peak_flops_per_s })
}

fn schedule(name: &str) -> Result<Box<dyn Schedule>, SpecError> {
    schedule_by_name(name).ok_or_else(|| SpecError::Field {
        path: "pipeline.schedule".into(),
        value: format!("{name:?}"),
        limit: format!("one of {}", dip_sched::names().collect::<Vec<_>>().join(", ")),
        remedy: "see `dip presets schedules`".into(),
    })
}

/// This machine: where there is no limit, the planner may use any amount of memory.
fn cluster(memory_limit_bytes: Option<u64>) -> ClusterSpec {
    let mut cluster = presets::cluster("cpu").expect("the preset is built in");
    cluster.name = "this machine".into();
    cluster.device.memory_bytes = Bytes(memory_limit_bytes.unwrap_or(u64::MAX));
    cluster
}

/// The mean microbatch of the first batches, and its number of documents.
fn representative(data: &mut RunData) -> Result<(MicrobatchMeta, usize), TrainError> {
    let start = data.loader.position();
    let (mut images, mut text_tokens, mut documents, mut count) = (0u64, 0u64, 0u64, 0u64);
    for _ in 0..REPRESENTATIVE_BATCHES {
        let batch = data.loader.next_batch()?;
        for m in &batch.meta.microbatches {
            images += u64::from(m.images);
            text_tokens += m.text_tokens;
            count += 1;
        }
        let packed = batch.microbatches.iter().map(|m| u64::from(m.packed_documents));
        documents += packed.sum::<u64>();
    }
    data.loader.restore(&start)?;
    let mean = |sum: u64| sum.div_ceil(count.max(1));
    let images = u32::try_from(mean(images)).unwrap_or(u32::MAX);
    let meta = MicrobatchMeta { images, text_tokens: mean(text_tokens), ..Default::default() };
    Ok((meta, mean(documents) as usize))
}
