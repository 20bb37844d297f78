//! What an iteration of a run holds and takes, before it is trained.

use dip_burn::Backend;
use dip_burn::model::Modalities;
use dip_burn::runtime::{Connections, ProcessGroup, SingleProcess};
use dip_core::{Budget, Environment, Flops, Seconds};
use dip_emu::model_flops;
use dip_sched::PlacementError;

use super::sample::BatchSample;
use super::{OnBackend, Run, RunError, on_device};

/// Search iterations for the plan of a sample batch.
const SEARCH_ITERATIONS: u64 = 50;

/// What a mean iteration holds and takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outlook {
    /// Tokens without padding.
    pub tokens: f64,
    /// Documents, or captions of clips.
    pub documents: f64,
    /// Arithmetic, without recomputation.
    pub flops: Flops,
    /// Its time by the plans of sample batches, if the stages were measured.
    pub seconds: Option<Seconds>,
}

impl Run {
    /// Reads sample batches; if `measures` is set, also measures the stages and places the layers as training does. The profile
    /// stays in the output folder, where training finds it.
    ///
    /// # Errors
    /// [`RunError`] as [`Run::start`].
    pub fn outlook(mut self, measures: bool) -> Result<Outlook, RunError> {
        let mut data = self.open()?;
        let sample = BatchSample::draw(&self.model, &mut data)?;
        drop(data);
        let flops = sample.batches().iter().map(|batch| model_flops(&self.model, batch));
        let outlook = Outlook {
            tokens: sample.tokens_per_batch,
            documents: sample.documents_per_batch,
            flops: Flops(flops.map(|flops| flops.0).sum::<f64>() / sample.batches().len() as f64),
            seconds: None,
        };
        if !measures {
            return Ok(outlook);
        }
        let (device, devices) = (self.config.pipeline.device, self.config.pipeline.devices());
        let seconds = on_device(device, devices, Timed { run: &self, sample: &sample })??;
        Ok(Outlook { seconds: Some(seconds), ..outlook })
    }
}

/// Measures an iteration of a run.
struct Timed<'a> {
    run: &'a Run,
    sample: &'a BatchSample,
}

impl OnBackend for Timed<'_> {
    type Output = Result<Seconds, RunError>;

    fn call<B: Backend>(self, devices: Vec<B::Device>) -> Self::Output {
        let Self { run, sample } = self;
        let group: &dyn ProcessGroup = &SingleProcess;
        let schedule = run.choose_schedule()?;
        let costs =
            run.measure(&Connections::default(), sample, &devices, &Modalities::<B>::default())?;
        let trials = sample.trials(run.config.pipeline.replicas as usize);
        let placed = run.place(group, &trials, sample, &costs, &*schedule)?;
        let budget = Budget::Iterations(SEARCH_ITERATIONS);
        let env = Environment { budget, ..Environment::default() };
        let mut seconds = Seconds::ZERO;
        for batch in &trials {
            let plan = placed.plan_in(batch, &*schedule, &env);
            seconds += plan.map_err(PlacementError::from)?.predicted.makespan_s;
        }
        Ok(seconds / trials.len().max(1) as f64 + placed.busiest_update())
    }
}
