//! A training run with the steps of the paper. [`Run::start`] lists them: open the data, sample the first batches, measure the
//! stages, place the layers, train with a plan for every batch.
//!
//! Every step takes your own parts: [`Run::with_schedule`], [`Run::with_cost`], [`Run::with_data`] and [`Run::with_sink`], and
//! [`Run::trainer`] for links, collectives and modalities. Without them a run does what `dip train` does.

mod backend;
mod costs;
mod error;
mod learned;
mod outlook;
mod processes;
mod sample;
mod trained;
mod training;

pub use backend::{OnBackend, on_device};
pub use error::RunError;
pub use outlook::Outlook;
pub use trained::{Trained, TrainedRun};
pub use training::Training;

use std::sync::Arc;

use dip_burn::Backend;
use dip_burn::model::Modalities;
use dip_burn::runtime::transport::{Transport, TransportGroup};
use dip_burn::runtime::{Connections, ProcessGroup, Processes};
use dip_burn::train::{
    Assign, MetricSink, OutputLock, PartitionMethod, RunConfig, RunData, StopRequest, Throughput,
    TrainError, Trainer, TrainerInit,
};
use dip_core::{
    BatchMeta, Budget, Bytes, ClusterSpec, CostModel, FieldError, ModelSpec, Schedule, Seconds,
    SpecError, closest, presets,
};
use dip_sched::{
    BatchPlanner, PartitionError, PlacementError, PlacementSearch, PlannerConfig, Planning,
    assign_microbatches, schedule_by_name, schedule_names,
};

use costs::Costs;
pub use processes::grid;
use processes::{Placed, placed_of_first};
use sample::BatchSample;

/// Longest search for one batch. Shorter iterations shorten the search.
const LONGEST_SEARCH: Seconds = Seconds(10.0);

/// A run that is not started yet.
pub struct Run {
    config: RunConfig,
    model: ModelSpec,
    schedule: Option<Arc<dyn Schedule>>,
    cost: Option<Arc<dyn CostModel>>,
    data: Option<RunData>,
    sinks: Vec<Box<dyn MetricSink>>,
    transport: Option<(Arc<dyn Transport>, Arc<TransportGroup>)>,
    stop: StopRequest,
    lock: Option<OutputLock>,
}

impl Run {
    /// A run of `config` with `model`, to which [`RunConfig::adapt`] has been applied.
    pub fn new(config: RunConfig, model: ModelSpec) -> Self {
        let (schedule, cost, data, transport) = (None, None, None, None);
        let (stop, lock) = (StopRequest::default(), None);
        Self { config, model, schedule, cost, data, sinks: Vec::new(), transport, stop, lock }
    }

    /// The configuration.
    pub fn config(&self) -> &RunConfig {
        &self.config
    }

    /// The model.
    pub fn model(&self) -> &ModelSpec {
        &self.model
    }

    /// Plans with your own schedule, in place of `pipeline.schedule`.
    #[must_use]
    pub fn with_schedule(mut self, schedule: impl Schedule + 'static) -> Self {
        self.schedule = Some(Arc::new(schedule));
        self
    }

    /// Plans with your own costs. Nothing is measured then, and utilisation is not reported.
    #[must_use]
    pub fn with_cost(mut self, cost: impl CostModel + 'static) -> Self {
        self.cost = Some(Arc::new(cost));
        self
    }

    /// Trains and evaluates on your own data.
    #[must_use]
    pub fn with_data(mut self, data: RunData) -> Self {
        self.data = Some(data);
        self
    }

    /// Reports to your own sink, after the files of the run.
    #[must_use]
    pub fn with_sink(mut self, sink: impl MetricSink + 'static) -> Self {
        self.sinks.push(Box::new(sink));
        self
    }

    /// Stops after an iteration, with a checkpoint, if `stop` is requested.
    #[must_use]
    pub fn with_stop(mut self, stop: StopRequest) -> Self {
        self.stop = stop;
        self
    }

    /// Keeps the lock of the output folder. Without it, the trainer takes the lock when it runs.
    #[must_use]
    pub fn with_lock(mut self, lock: OutputLock) -> Self {
        self.lock = Some(lock);
        self
    }

    /// Trains together with the same run in the other processes of a transport, from which `group` has been made. Each process hosts
    /// some of the ranks of `pipeline.replicas` replicas.
    #[must_use]
    pub fn over(mut self, transport: Arc<dyn Transport>, group: Arc<TransportGroup>) -> Self {
        self.transport = Some((transport, group));
        self
    }

    /// Makes the run ready to train on the device that it names.
    ///
    /// # Errors
    /// [`RunError`] names the field, file or device, and the remedy.
    pub fn start(self) -> Result<Box<dyn Training>, RunError> {
        #[cfg(any(feature = "cuda", feature = "rocm"))]
        let kernel_folder = self.config.pipeline.kernel_folder.as_ref();
        #[cfg(any(feature = "cuda", feature = "rocm"))]
        kernel_folder.into_iter().for_each(|folder| dip_burn::backend::keep_kernels_in(folder));
        let processes = self.processes()?;
        let devices = match &processes {
            Some(Processes { transport, grid }) => grid.hosted(transport.index()).len() as u32,
            None => self.config.pipeline.devices(),
        };
        on_device(self.config.pipeline.device, devices, self)?
    }

    /// Makes the run ready to train on these devices, one for each rank of this process, replica by replica, with connections and
    /// modalities that may be your own. All processes plan with the costs of the first, and place layers as the first does.
    ///
    /// # Errors
    /// [`RunError`] names the field or file, and the remedy.
    pub fn trainer<B: Backend>(
        mut self,
        devices: Vec<B::Device>,
        connections: Connections<B>,
        modalities: Modalities<B>,
    ) -> Result<Trainer<B>, RunError> {
        let group = connections.group.clone();
        group.agree("the run", || self.identity())?;
        let schedule = self.choose_schedule()?;
        self.config.evaluation = self.config.evaluation_of_model().map_err(TrainError::from)?;
        let mut data = self.open()?;
        // The metadata of batches is known before they are trained (section 4).
        let sample = BatchSample::draw(&self.model, &mut data)?;
        // The cost of each stage (section 3).
        let costs = self.measure(&connections, &sample, &devices, &modalities)?;
        // The layers of each rank (section 1).
        let trials = sample.trials(self.config.pipeline.replicas as usize);
        let placed = self.place(&*group, &trials, &sample, &costs, &*schedule)?;
        // A plan for every batch, searched while the batch before it trains (sections 2 and 4).
        self.train(PlacedRun { data, costs, placed, schedule, devices, connections, modalities })
    }

    /// The settings that must be the same in all processes, one field per line. Folders may differ.
    fn identity(&self) -> String {
        let mut config = RunConfig { output: Default::default(), ..self.config.clone() };
        config.pipeline.kernel_folder = None;
        let text = serde_json::to_string_pretty(&(env!("CARGO_PKG_VERSION"), config, &self.model));
        text.expect("plain data has a JSON form")
    }

    fn choose_schedule(&self) -> Result<Arc<dyn Schedule>, SpecError> {
        if let Some(schedule) = &self.schedule {
            return Ok(schedule.clone());
        }
        let name = &self.config.pipeline.schedule;
        let found = schedule_by_name(name).ok_or_else(|| {
            let limit = format!("one of {}", schedule_names().collect::<Vec<_>>().join(", "));
            let remedy = match closest(name, schedule_names()) {
                Some(found) => format!("did you mean {found:?}?"),
                None => "see `dip presets schedules`".into(),
            };
            FieldError::new("pipeline.schedule", format!("{name:?}"), limit, remedy)
        })?;
        Ok(found.into())
    }

    /// Opens the data of the run.
    ///
    /// # Errors
    /// [`TrainError`] names the file or setting.
    pub fn open(&mut self) -> Result<RunData, TrainError> {
        let RunConfig { evaluation, seed, .. } = &self.config;
        match self.data.take() {
            Some(own) => Ok(own),
            None => {
                let data = self.config.data_of_model()?;
                Ok(RunData::open(&self.model, &data, evaluation, *seed)?)
            }
        }
    }

    fn place(
        &self,
        group: &dyn ProcessGroup,
        trials: &[BatchMeta],
        sample: &BatchSample,
        costs: &Costs,
        schedule: &dyn Schedule,
    ) -> Result<Planning, RunError> {
        let pipeline = &self.config.pipeline;
        let cluster = this_machine(pipeline.memory_limit_bytes);
        let planning = |weight_split| -> Result<Planning, PartitionError> {
            let cost = costs.model(weight_split);
            let planning = Planning::on_ranks(&self.model, &cluster, cost, pipeline.ranks)?;
            let corrections = costs.learned.of_any_placement();
            Ok(planning.with_weight_split(weight_split).with_corrections(corrections))
        };
        let weight_splits = match pipeline.weight_split {
            Some(weight_split) => vec![weight_split],
            None if schedule.splits_weights() => vec![false, true],
            None => vec![false],
        };
        let search = || -> Result<Planning, RunError> {
            let plannings: Result<Vec<_>, _> = weight_splits.into_iter().map(planning).collect();
            let search = PlacementSearch {
                plannings: plannings.map_err(PlacementError::from)?,
                batches: trials,
                mean: &sample.mean,
                longest_video: self.config.data.video_of_microbatch(&self.model),
                schedule,
                budget: self.budget(),
            };
            Ok(match pipeline.partition {
                PartitionMethod::Searched => search.run()?,
                PartitionMethod::Rule => search.by_rule()?,
            })
        };
        if group.size() == 1 {
            return search();
        }
        let Placed { partition, weight_split } = placed_of_first(group, || {
            let placed = search()?;
            let (partition, weight_split) = (placed.partition().clone(), placed.weight_split());
            Ok(Placed { partition, weight_split })
        })?;
        Ok(planning(weight_split).map_err(PlacementError::from)?.with_partition(partition))
    }

    fn train<B: Backend>(self, prepared: PlacedRun<B>) -> Result<Trainer<B>, RunError> {
        let PlacedRun { data, costs, placed, schedule, devices, connections, modalities } =
            prepared;
        let replicas = self.config.pipeline.replicas as usize;
        let throughput = self.throughput(&costs, replicas);
        let partition = placed.partition().clone();
        let assign = assign(&placed, replicas);
        let (learning, saved) =
            costs.learned.learning(&self.config, &partition.describe(&self.model));
        let placed = placed.with_corrections(None);
        let planner = PlannerConfig {
            schedule,
            seed: self.config.seed,
            budget: self.budget(),
            // Every other core trains.
            threads: 1,
            ..PlannerConfig::default()
        };
        let init = TrainerInit {
            config: &self.config,
            model: &self.model,
            partition: &partition,
            plans: Box::new(BatchPlanner::new(placed, planner).with_learning(learning)),
            data,
            devices,
            connections,
            modalities,
        };
        let mut trainer = Trainer::new(init)?
            .with_throughput(throughput)
            .with_assignment(assign)
            .with_stop(self.stop)
            .with_sink(Box::new(saved));
        if let Some(lock) = self.lock {
            trainer = trainer.with_lock(lock);
        }
        Ok(self.sinks.into_iter().fold(trainer, Trainer::with_sink))
    }

    /// The processes of the run, if there are several.
    fn processes(&self) -> Result<Option<Processes>, RunError> {
        let transport = self.transport.as_ref().map(|(transport, _)| transport.clone());
        let count = transport.as_ref().map_or(1, |transport| transport.size());
        let grid = grid(&self.config.pipeline, count).map_err(SpecError::from)?;
        Ok(transport.map(|transport| Processes { transport, grid }))
    }

    fn budget(&self) -> Budget {
        match self.config.pipeline.search_iterations {
            0 => Budget::Time(LONGEST_SEARCH),
            n => Budget::Iterations(n),
        }
    }

    /// The FLOPs of the model and the peak of the devices, if the peak is known.
    fn throughput(&self, costs: &Costs, replicas: usize) -> Option<Throughput> {
        let devices = self.config.pipeline.ranks as usize * replicas;
        let peak_flops_per_s = devices as f64 * costs.peak_flops_per_s()?;
        let model = self.model.clone();
        let model_flops = move |batch: &BatchMeta| dip_emu::model_flops(&model, batch);
        Some(Throughput { model_flops: Box::new(model_flops), peak_flops_per_s })
    }
}

impl OnBackend for Run {
    type Output = Result<Box<dyn Training>, RunError>;

    fn call<B: Backend>(self, devices: Vec<B::Device>) -> Self::Output {
        let connections = match (self.processes()?, &self.transport) {
            (Some(processes), Some((_, group))) => Connections::over(group.clone(), processes),
            _ => Connections::default(),
        };
        Ok(Box::new(self.trainer::<B>(devices, connections, Modalities::default())?))
    }
}

/// The results of the first steps of a run.
struct PlacedRun<B: Backend> {
    data: RunData,
    costs: Costs,
    placed: Planning,
    schedule: Arc<dyn Schedule>,
    devices: Vec<B::Device>,
    connections: Connections<B>,
    modalities: Modalities<B>,
}

/// Assigns the microbatches of a batch to replicas so that the busiest rank of all replicas has the least load.
fn assign(placed: &Planning, replicas: usize) -> Assign {
    let planning = placed.clone();
    Box::new(move |batch| {
        // The planner refuses a batch without costs, and says why.
        let even = |_| vec![Vec::new(); batch.microbatches.len()];
        let loads = planning.rank_loads(batch).unwrap_or_else(even);
        assign_microbatches(&loads, replicas)
    })
}

/// This machine as a cluster. Without a limit plans may use any amount of memory.
fn this_machine(memory_limit_bytes: Option<u64>) -> ClusterSpec {
    let mut cluster = presets::cluster("cpu").expect("the preset is built in");
    cluster.name = "this machine".into();
    cluster.device.memory_bytes = Bytes(memory_limit_bytes.unwrap_or(u64::MAX));
    cluster
}
