//! Joins profile, cost model, partition and planner to a training run.

use std::sync::Arc;

use dip_burn::ClipSize;
use dip_burn::measure::{MeasureError, MeasureSettings, cached_profile};
use dip_burn::runtime::nodes::NodeGroup;
use dip_burn::runtime::{Connections, GroupError, ProcessGroup};
use dip_burn::train::{
    Assign, Cut, Device, RunConfig, RunData, Throughput, TrainError, Trainer, TrainerInit,
};
use dip_core::profile::Profile;
use dip_core::{
    BatchMeta, Budget, Bytes, ClipMeta, ClusterSpec, CostModel, FieldError, MicrobatchMeta,
    ModelSpec, Partition, Schedule, Seconds, SpecError, presets,
};
use dip_emu::MeasuredCost;
use dip_sched::{
    BatchPlanner, CutError, CutSearch, PlannerConfig, balance_microbatches, rank_loads,
    schedule_by_name,
};

/// Longest search of a run whose budget is time, unless its iterations are shorter.
const LONGEST_SEARCH: Seconds = Seconds(10.0);
/// Batches whose mean microbatch loads are balanced for.
const REPRESENTATIVE_BATCHES: usize = 8;
/// Those of them for which ways to cut the model are compared.
const TRIAL_BATCHES: usize = 4;

/// A run that cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A field of the run.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The profile.
    #[error(transparent)]
    Measure(#[from] MeasureError),
    /// The cut of the model.
    #[error(transparent)]
    Cut(CutError),
    /// The memory limit.
    #[error("pipeline.{0}")]
    Memory(CutError),
    /// Another node.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The trainer.
    #[error(transparent)]
    Train(#[from] TrainError),
}

impl From<CutError> for RunError {
    fn from(error: CutError) -> Self {
        match error {
            CutError::Memory { .. } => Self::Memory(error),
            other => Self::Cut(other),
        }
    }
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
    trainer_on_nodes(config, model, devices, None)
}

/// As [`trainer`], beside the trainers of other nodes. Costs are those of the first node's devices, and all nodes make sure that
/// they were started for the same run.
///
/// # Errors
/// As [`trainer`], and [`RunError::Group`] where a node has another run, model or version.
pub fn trainer_on_nodes<B: dip_burn::Backend>(
    config: &RunConfig,
    model: &ModelSpec,
    devices: Vec<B::Device>,
    nodes: Option<Arc<NodeGroup>>,
) -> Result<Trainer<B>, RunError> {
    let connections = nodes.map_or_else(Connections::default, Connections::on_nodes);
    let group = connections.group.clone();
    group.agree("the run", || identity(config, model))?;
    let count = group.size();
    let pipeline = &config.pipeline;
    let schedule: Arc<dyn Schedule> = schedule(&pipeline.schedule)?.into();
    let mut data = RunData::open(model, &config.data, &config.evaluation, config.seed)
        .map_err(TrainError::from)?;
    let Representative { meta, documents, clip, batches } = representative(model, &mut data)?;
    let is_limited = pipeline.memory_limit_bytes.is_some();
    let usual = MeasureSettings::default();
    let settings = MeasureSettings {
        // What fits no more than a microbatch or two when trained must not fail when measured.
        in_flight: if is_limited { 1 } else { usual.in_flight },
        ranks: pipeline.devices() as usize,
        threads: pipeline.threads_per_rank,
        documents,
        clip,
        precision: pipeline.precision,
        algorithm: config.optimizer.algorithm,
        averages: config.optimizer.ema_decay > 0.0,
        ..usual
    };
    let device = devices.first().cloned().unwrap_or_default();
    let path = config.output.join("profile.json");
    let measure = || cached_profile::<B>(&path, model, &device, settings);
    let profile = profile_of_first(&*group, measure)?;
    let replicas = pipeline.replicas as usize * count;
    // Recomputing and offloading cost time, so they are only offered where memory is limited; and what a processor computes with
    // is host memory already.
    let cost = MeasuredCost::new(&profile)
        .with_recompute(is_limited)
        .with_offload(is_limited && pipeline.device != Device::Cpu)
        .with_averages(config.optimizer.ema_decay > 0.0)
        .with_update_share(if config.optimizer.shard { 1.0 / replicas as f64 } else { 1.0 });
    let budget = match pipeline.search_iterations {
        0 => Budget::Time(LONGEST_SEARCH),
        n => Budget::Iterations(n),
    };
    let share = |batch: &BatchMeta| BatchMeta {
        iteration: batch.iteration,
        microbatches: batch.microbatches.iter().step_by(replicas).cloned().collect(),
    };
    let trials: Vec<BatchMeta> = batches[..TRIAL_BATCHES].iter().map(share).collect();
    let search = CutSearch {
        model,
        cluster: &cluster(pipeline.memory_limit_bytes),
        ranks: pipeline.ranks,
        cost: &|weight_split| Arc::new(cost.clone().with_weight_split(weight_split)),
        weight_split: pipeline.weight_split,
        batches: &trials,
        mean: &meta,
        longest_video: config.data.video_of_microbatch(model),
        schedule: &*schedule,
        budget,
    };
    let inputs = match pipeline.cut {
        Cut::Searched => search.searched()?,
        Cut::Rule => search.by_rule()?,
    };
    let partition = inputs.partition.clone();
    let assign = assign(model, &partition, inputs.cost.clone(), replicas);
    let throughput = throughput(model, &profile, pipeline.devices() as usize * count);
    let planner = PlannerConfig {
        schedule,
        seed: config.seed,
        budget,
        // Every core beside this one trains.
        threads: 1,
        ..PlannerConfig::default()
    };
    let plans = Box::new(BatchPlanner::new(inputs, planner));
    let partition = &partition;
    let init = TrainerInit { config, model, partition, plans, data, devices, connections };
    Ok(Trainer::new(init)?.with_throughput(throughput).with_assignment(assign))
}

/// What must be the same on all nodes, a field a line; each may have an output folder of its own.
fn identity(config: &RunConfig, model: &ModelSpec) -> String {
    let config = RunConfig { output: Default::default(), ..config.clone() };
    let text = serde_json::to_string_pretty(&(env!("CARGO_PKG_VERSION"), config, model));
    text.expect("plain data has a JSON form")
}

/// The profile of the first node: with figures of their own, nodes would not cut the model alike.
fn profile_of_first(
    group: &dyn ProcessGroup,
    measure: impl FnOnce() -> Result<Profile, MeasureError>,
) -> Result<Profile, RunError> {
    let text = group.compute_on_first(|| Ok::<_, RunError>(measure()?.to_json().into_bytes()))?;
    Ok(Profile::from_json(&String::from_utf8_lossy(&text)).map_err(MeasureError::from)?)
}

/// Assigns microbatches to replicas so that the busiest rank of any replica is least busy.
fn assign(
    model: &ModelSpec,
    partition: &Partition,
    cost: Arc<dyn CostModel>,
    replicas: usize,
) -> Assign {
    let (model, partition) = (model.clone(), partition.clone());
    Box::new(move |batch| {
        // A batch without costs is refused by the planner, which says why.
        let even = |_| vec![Vec::new(); batch.microbatches.len()];
        let loads = rank_loads(&model, &partition, batch, &*cost).unwrap_or_else(even);
        balance_microbatches(&loads, replicas)
    })
}

/// The arithmetic of the model over that of the devices, where the profile knows their peak.
fn throughput(model: &ModelSpec, profile: &Profile, devices: usize) -> Option<Throughput> {
    let model = model.clone();
    let peak_flops_per_s = devices as f64 * profile.peak_flops_per_s?;
    let model_flops = move |batch: &BatchMeta| dip_emu::model_flops(&model, batch);
    Some(Throughput { model_flops: Box::new(model_flops), peak_flops_per_s })
}

fn schedule(name: &str) -> Result<Box<dyn Schedule>, SpecError> {
    schedule_by_name(name).ok_or_else(|| {
        let limit = format!("one of {}", dip_sched::names().collect::<Vec<_>>().join(", "));
        let remedy = "see `dip presets schedules`";
        FieldError::new("pipeline.schedule", format!("{name:?}"), limit, remedy).into()
    })
}

/// This machine: where there is no limit, the planner may use any amount of memory.
fn cluster(memory_limit_bytes: Option<u64>) -> ClusterSpec {
    let mut cluster = presets::cluster("cpu").expect("the preset is built in");
    cluster.name = "this machine".into();
    cluster.device.memory_bytes = Bytes(memory_limit_bytes.unwrap_or(u64::MAX));
    cluster
}

/// What the first batches are like.
struct Representative {
    batches: Vec<BatchMeta>,
    /// Their mean microbatch.
    meta: MicrobatchMeta,
    /// Its documents.
    documents: usize,
    /// One of its clips.
    clip: ClipSize,
}

fn representative(model: &ModelSpec, data: &mut RunData) -> Result<Representative, TrainError> {
    let start = data.loader.position();
    let (mut batches, mut documents) = (Vec::new(), 0);
    for _ in 0..REPRESENTATIVE_BATCHES {
        let batch = data.loader.next_batch(&mut |_| Vec::new())?;
        documents += batch.documents;
        batches.push(batch.meta);
    }
    data.loader.restore(&start)?;
    let microbatches: Vec<_> = batches.iter().flat_map(|batch| &batch.microbatches).collect();
    let mean = |sum: u64| sum.div_ceil(microbatches.len().max(1) as u64);
    let images = microbatches.iter().map(|m| u64::from(m.images)).sum();
    let text_tokens = microbatches.iter().map(|m| m.text_tokens).sum();
    let clips: Vec<&ClipMeta> = microbatches.iter().flat_map(|m| &m.clips).collect();
    let clip = mean_clip(&clips);
    let meta = MicrobatchMeta {
        images: u32::try_from(mean(images)).unwrap_or(u32::MAX),
        text_tokens: mean(text_tokens),
        clips: vec![clip.clone(); mean(clips.len() as u64) as usize],
        ..MicrobatchMeta::default()
    };
    let documents = mean(documents) as usize;
    Ok(Representative { batches, meta, documents, clip: dip_burn::train::clip_size(model, &clip) })
}

/// A clip of mean length, size and caption.
fn mean_clip(clips: &[&ClipMeta]) -> ClipMeta {
    let count = clips.len().max(1) as u64;
    let sizes: Vec<u64> = clips.iter().filter_map(|c| c.tokens_per_frame).map(u64::from).collect();
    let size = sizes.iter().sum::<u64>().checked_div(sizes.len() as u64);
    ClipMeta {
        seconds: clips.iter().map(|c| c.seconds).sum::<f64>() / count as f64,
        caption_tokens: clips.iter().map(|c| c.caption_tokens).sum::<u64>().div_ceil(count),
        tokens_per_frame: size.and_then(|size| u32::try_from(size).ok()),
    }
}
