//! The optimiser of the chunks of one rank: Burn's update rules, with the state kept by parameter name, so that a checkpoint
//! does not depend on the partition; and, where a run asks for them, moving averages of the weights.

mod config;
mod muon;
mod rate;

pub use config::{Algorithm, OptimizerConfig};
pub use rate::RateSchedule;

use std::collections::HashMap;

use burn::backend::Autodiff;
use burn::optim::record::AdaptorRecord;
use burn::optim::{AdamW, AdamWConfig, AdamWState, AdaptiveMomentumState, SimpleOptimizer};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

use super::chunks::Chunks;
use crate::params::{NamedTensors, ParameterMap};
use crate::stage::ChunkStage;
use muon::MuonRule;

const MOMENT_1: &str = ".moment_1";
const MOMENT_2: &str = ".moment_2";
const AVERAGE: &str = ".average";
/// Steps over which an average begins to remember: with few steps behind it, old weights count less.
const AVERAGE_WARM_UP: f64 = 10.0;

/// AdamW with the moments of every parameter of a rank, and Muon for its matrices where the run says so.
pub(crate) struct Optimizer<B: Backend> {
    matrices: AdamW,
    vectors: AdamW,
    muon: Option<MuonRule<B>>,
    steps: u64,
    states: HashMap<String, AdaptorRecord<AdamW, Autodiff<B>>>,
    ema_decay: f64,
    /// Moving averages of the parameters, flat, with their shapes.
    averages: HashMap<String, (Tensor<B, 1>, Vec<usize>)>,
}

impl<B: Backend> Optimizer<B> {
    /// An optimiser without moments. Weight decay applies to matrices, not to norms and biases.
    pub fn new(config: &OptimizerConfig) -> Self {
        let rule = |weight_decay| {
            AdamWConfig::new()
                .with_beta_1(config.beta_1)
                .with_beta_2(config.beta_2)
                .with_epsilon(1e-8)
                .with_weight_decay(weight_decay)
                .build()
        };
        Self {
            matrices: rule(config.weight_decay),
            vectors: rule(0.0),
            muon: (config.algorithm == Algorithm::Muon).then(|| MuonRule::new(config)),
            steps: 0,
            states: HashMap::new(),
            ema_decay: config.ema_decay,
            averages: HashMap::new(),
        }
    }

    /// Updates every trained parameter that this replica `owns` from its gradient, scaled by `scale`.
    pub fn step<'a>(
        &mut self,
        chunks: impl Iterator<Item = &'a mut ChunkStage<B>>,
        learning_rate: f64,
        scale: f64,
        owns: &dyn Fn(&str) -> bool,
    ) {
        self.steps += 1;
        for chunk in chunks {
            chunk.map_parameters(&mut Step { optimizer: self, learning_rate, scale, owns });
        }
    }

    /// Moves the average of a parameter towards its new value.
    fn average<const D: usize>(&mut self, name: &str, parameter: &Tensor<B, D>) {
        if self.ema_decay == 0.0 {
            return;
        }
        let steps = self.steps as f64;
        let decay = self.ema_decay.min(steps / (steps + AVERAGE_WARM_UP));
        let flat = parameter.clone().reshape([parameter.shape().num_elements()]);
        let average = match self.averages.remove(name) {
            Some((average, _)) => average * decay + flat * (1.0 - decay),
            None => flat,
        };
        self.averages.insert(name.to_owned(), (average, parameter.dims().to_vec()));
    }

    /// The moving averages, by parameter name.
    pub fn averages(&self) -> NamedTensors {
        let data = |(tensor, shape): &(Tensor<B, 1>, Vec<usize>)| {
            let mut data = tensor.clone().into_data();
            data.shape = shape.clone().into();
            data
        };
        self.averages.iter().map(|(name, average)| (name.clone(), data(average))).collect()
    }

    /// The moments and averages, by parameter name.
    pub fn moments(&self) -> NamedTensors {
        let mut all = NamedTensors::new();
        if let Some(muon) = &self.muon {
            muon.export(&mut all);
        }
        for (name, record) in &self.states {
            let [moment_1, moment_2] = moments_of(record.clone());
            all.insert(format!("{name}{MOMENT_1}"), moment_1);
            all.insert(format!("{name}{MOMENT_2}"), moment_2);
        }
        for (name, average) in self.averages() {
            all.insert(format!("{name}{AVERAGE}"), average);
        }
        all
    }

    /// Takes the moments of the parameters that `chunks` hold and this replica `owns`; parameters that have none start afresh.
    ///
    /// # Errors
    /// Where a moment has another shape than its parameter, or only one of the two is there.
    pub fn load(
        &mut self,
        chunks: &mut Chunks<B>,
        moments: &NamedTensors,
        steps: u64,
        owns: &dyn Fn(&str) -> bool,
    ) -> Result<(), String> {
        self.steps = steps;
        self.states.clear();
        self.averages.clear();
        if let Some(muon) = &mut self.muon {
            muon.clear();
        }
        let mut load = Load { optimizer: self, moments, owns, error: None };
        for chunk in chunks.values_mut() {
            chunk.map_parameters(&mut load);
        }
        load.error.map_or(Ok(()), Err)
    }
}

/// The update of one step.
struct Step<'a, B: Backend> {
    optimizer: &'a mut Optimizer<B>,
    learning_rate: f64,
    scale: f64,
    owns: &'a dyn Fn(&str) -> bool,
}

impl<B: Backend> ParameterMap<B> for Step<'_, B> {
    fn map<const D: usize>(
        &mut self,
        name: &str,
        parameter: Tensor<B, D>,
        gradient: Option<Tensor<B, D>>,
    ) -> Tensor<B, D> {
        let Some(gradient) = gradient.filter(|_| (self.owns)(name)) else { return parameter };
        let optimizer = &mut *self.optimizer;
        let gradient =
            if self.scale == 1.0 { gradient } else { gradient.mul_scalar(self.scale as f32) };
        if let Some(muon) = optimizer.muon.as_mut().filter(|_| MuonRule::<B>::takes(name, D)) {
            let parameter = muon.step(name, self.learning_rate, parameter, gradient);
            optimizer.average(name, &parameter);
            return parameter;
        }
        let rule = if D >= 2 { &optimizer.matrices } else { &optimizer.vectors };
        let state = optimizer.states.remove(name).map(AdaptorRecord::into_state::<D>);
        let (parameter, state) = rule.step(self.learning_rate, parameter, gradient, state);
        if let Some(state) = state {
            optimizer.states.insert(name.to_owned(), AdaptorRecord::from_state(state));
        }
        optimizer.average(name, &parameter);
        parameter
    }
}

/// Reads the moments of every parameter and leaves the parameters as they are.
struct Load<'a, B: Backend> {
    optimizer: &'a mut Optimizer<B>,
    moments: &'a NamedTensors,
    owns: &'a dyn Fn(&str) -> bool,
    error: Option<String>,
}

impl<B: Backend> ParameterMap<B> for Load<'_, B> {
    fn map<const D: usize>(
        &mut self,
        name: &str,
        parameter: Tensor<B, D>,
        _: Option<Tensor<B, D>>,
    ) -> Tensor<B, D> {
        if !(self.owns)(name) {
            return parameter;
        }
        let shape = parameter.dims();
        match self.moments.get(&format!("{name}{AVERAGE}")) {
            Some(data) if data.shape.dims() == shape => {
                let tensor = Tensor::<B, D>::from_data(data.clone(), &parameter.device());
                let flat = tensor.reshape([parameter.shape().num_elements()]);
                self.optimizer.averages.insert(name.to_owned(), (flat, shape.to_vec()));
            }
            Some(_) => {
                let what = format!("the average of {name} is not of shape {shape:?}");
                self.error.get_or_insert(what);
            }
            None => {}
        }
        let muon = &mut self.optimizer.muon;
        if let Some(muon) = muon.as_mut().filter(|_| MuonRule::<B>::takes(name, D)) {
            if let Err(what) = muon.load(name, &parameter, self.moments) {
                self.error.get_or_insert(what);
            }
            return parameter;
        }
        let moment = |suffix| self.moments.get(&format!("{name}{suffix}"));
        match (moment(MOMENT_1), moment(MOMENT_2)) {
            (None, None) => {}
            (Some(a), Some(b)) if a.shape.dims() == shape && b.shape.dims() == shape => {
                let device = parameter.device();
                let tensor = |data: &TensorData| Tensor::from_data(data.clone(), &device);
                let time = self.optimizer.steps as usize;
                let momentum = AdaptiveMomentumState::new(time, tensor(a), tensor(b));
                let record = AdaptorRecord::from_state::<D>(AdamWState::new(momentum));
                self.optimizer.states.insert(name.to_owned(), record);
            }
            _ => {
                let what = format!("the moments of {name} are not two tensors of shape {shape:?}");
                self.error.get_or_insert(what);
            }
        }
        parameter
    }
}

/// First and second moment of a record, whatever its rank.
fn moments_of<B: Backend>(record: AdaptorRecord<AdamW, Autodiff<B>>) -> [TensorData; 2] {
    fn data<I: Backend, const D: usize>(state: AdamWState<I, D>) -> [TensorData; 2] {
        [state.momentum.moment_1.into_data(), state.momentum.moment_2.into_data()]
    }
    use burn::optim::record::AdaptorRecordV1 as V1;
    let AdaptorRecord::V1(record) = record;
    match record {
        V1::Rank0(_) => unreachable!("parameters have at least one dimension"),
        V1::Rank1(state) => data(state),
        V1::Rank2(state) => data(state),
        V1::Rank3(state) => data(state),
        V1::Rank4(state) => data(state),
        V1::Rank5(state) => data(state),
        V1::Rank6(state) => data(state),
        V1::Rank7(state) => data(state),
        V1::Rank8(state) => data(state),
    }
}
