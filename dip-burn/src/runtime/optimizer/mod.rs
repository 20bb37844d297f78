//! The optimiser of the chunks of one rank: its update rules and, if a run asks for them, moving averages of the weights.
//!
//! State is kept by parameter name, so that checkpoints do not depend on the partition.

mod config;
mod moment;
mod muon;
mod rate;
mod state;

pub(super) use config::no_such_part;
pub use config::{Algorithm, OptimizerConfig, ParameterGroup};
pub use moment::StateError;
pub use rate::RateSchedule;

use std::collections::HashMap;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::kernels::{AdamwStep, AdamwSteps, kernels};
use crate::params::ParameterMap;
use crate::stage::ChunkStage;
use muon::{MuonRule, MuonStep};

/// Steps until the decay of an average reaches one half. The decay grows with the steps, so that early averages forget faster.
const AVERAGE_WARM_UP_STEPS: f64 = 10.0;
/// Added to the root of the second moment of AdamW.
const EPSILON: f32 = 1e-8;

/// AdamW for the parameters of a rank, or Muon for its matrices and AdamW for the rest.
pub(crate) struct Optimizer<B: Backend> {
    config: OptimizerConfig,
    muon: Option<MuonRule<B>>,
    steps: u64,
    /// By parameter name.
    moments: HashMap<String, Moments<B>>,
    ema_decay: f64,
    /// By parameter name.
    averages: HashMap<String, Average<B>>,
}

/// The state of AdamW for a parameter.
struct Moments<B: Backend> {
    /// Steps of the parameter.
    time: usize,
    /// First and second moment.
    flat: [Tensor<B, 1>; 2],
    /// Shape of the parameter.
    shape: Vec<usize>,
}

/// The moving average of a parameter.
struct Average<B: Backend> {
    flat: Tensor<B, 1>,
    /// Shape of the parameter.
    shape: Vec<usize>,
}

impl<B: Backend> Optimizer<B> {
    /// An optimiser without moments. Weight decay applies to matrices, not to norms and biases.
    pub fn new(config: &OptimizerConfig) -> Self {
        Self {
            config: config.clone(),
            muon: (config.algorithm == Algorithm::Muon).then(MuonRule::new),
            steps: 0,
            moments: HashMap::new(),
            ema_decay: config.ema_decay,
            averages: HashMap::new(),
        }
    }

    /// The learning rate and the weight decay of a parameter.
    fn settings(&self, name: &str, learning_rate: f64) -> (f64, f32) {
        let group = self.config.group_of(name);
        let peak = group.and_then(|group| group.learning_rate);
        let rate = match peak {
            Some(peak) if self.config.learning_rate > 0.0 => {
                learning_rate * (peak / self.config.learning_rate)
            }
            _ => learning_rate,
        };
        let decay = group.and_then(|group| group.weight_decay);
        (rate, decay.unwrap_or(self.config.weight_decay))
    }

    /// Updates every trained parameter that this replica `owns` with its gradient times `scale`.
    pub fn step<'a>(
        &mut self,
        chunks: impl Iterator<Item = &'a mut ChunkStage<B>>,
        learning_rate: f64,
        scale: f64,
        owns: &dyn Fn(&str) -> bool,
    ) {
        self.steps += 1;
        let mut update = UpdateParameters::new(self, (learning_rate, scale), owns);
        for chunk in chunks {
            chunk.map_parameters(&mut update);
        }
    }

    /// Replaces parameters by their averages; `None` if there are no averages.
    pub fn averaged(&self) -> Option<AveragedParameters<'_, B>> {
        (!self.averages.is_empty()).then_some(AveragedParameters(&self.averages))
    }

    /// Moves the average of a parameter towards its `new` value.
    fn average(&mut self, name: String, new: Average<B>) {
        let steps = self.steps as f64;
        let decay = self.ema_decay.min(steps / (steps + AVERAGE_WARM_UP_STEPS));
        let Average { flat, shape } = new;
        let flat = match self.averages.remove(&name) {
            Some(average) => average.flat * decay + flat * (1.0 - decay),
            None => flat,
        };
        self.averages.insert(name, Average { flat, shape });
    }
}

/// Replaces parameters by their averages, if they have one.
pub(crate) struct AveragedParameters<'a, B: Backend>(&'a HashMap<String, Average<B>>);

impl<B: Backend> ParameterMap<B> for AveragedParameters<'_, B> {
    fn map<const D: usize>(
        &mut self,
        name: &str,
        parameter: Tensor<B, D>,
        _: Option<Tensor<B, D>>,
    ) -> Tensor<B, D> {
        match self.0.get(name) {
            Some(average) => average.flat.clone().reshape(parameter.dims()),
            None => parameter,
        }
    }
}

/// The update of one step.
struct UpdateParameters<'a, B: Backend> {
    optimizer: &'a mut Optimizer<B>,
    adamw: Box<dyn AdamwSteps<B>>,
    learning_rate: f64,
    /// Factor of the gradients.
    scale: f64,
    owns: &'a dyn Fn(&str) -> bool,
    /// The new values of parameters whose averages are still to be moved.
    new: Vec<(String, Average<B>)>,
}

impl<'a, B: Backend> UpdateParameters<'a, B> {
    fn new(
        optimizer: &'a mut Optimizer<B>,
        (learning_rate, scale): (f64, f64),
        owns: &'a dyn Fn(&str) -> bool,
    ) -> Self {
        let adamw = kernels().adamw();
        Self { optimizer, adamw, learning_rate, scale, owns, new: Vec::new() }
    }

    fn muon<const D: usize>(
        &mut self,
        name: &str,
        parameter: Tensor<B, D>,
        gradient: Tensor<B, D>,
    ) -> Tensor<B, D> {
        let (rate, decay) = self.optimizer.settings(name, self.learning_rate);
        let gradient = match self.scale {
            1.0 => gradient,
            scale => gradient.mul_scalar(scale as f32),
        };
        let muon = self.optimizer.muon.as_mut().expect("it is there");
        muon.step(name, MuonStep { rate, decay }, parameter, gradient)
    }

    fn adamw<const D: usize>(
        &mut self,
        name: &str,
        parameter: Tensor<B, D>,
        gradient: Tensor<B, D>,
    ) -> Tensor<B, D> {
        let (learning_rate, weight_decay) = self.optimizer.settings(name, self.learning_rate);
        let (time, moments) = match self.optimizer.moments.remove(name) {
            Some(Moments { time, flat, .. }) => (time + 1, Some(flat)),
            None => (1, None),
        };
        let step = AdamwStep {
            learning_rate,
            weight_decay: if D >= 2 { weight_decay } else { 0.0 },
            beta_1: self.optimizer.config.beta_1,
            beta_2: self.optimizer.config.beta_2,
            epsilon: EPSILON,
            gradient_scale: self.scale,
            time,
        };
        let shape = parameter.dims();
        let length = [parameter.shape().num_elements()];
        let (parameter, gradient) = (parameter.reshape(length), gradient.reshape(length));
        let (parameter, flat) = self.adamw.step(&step, parameter, gradient, moments);
        let moments = Moments { time, flat, shape: shape.to_vec() };
        self.optimizer.moments.insert(name.to_owned(), moments);
        parameter.reshape(shape)
    }
}

impl<B: Backend> ParameterMap<B> for UpdateParameters<'_, B> {
    fn map<const D: usize>(
        &mut self,
        name: &str,
        parameter: Tensor<B, D>,
        gradient: Option<Tensor<B, D>>,
    ) -> Tensor<B, D> {
        let Some(gradient) = gradient.filter(|_| (self.owns)(name)) else { return parameter };
        let takes_muon = MuonRule::<B>::takes(name, D) && self.optimizer.muon.is_some();
        let parameter = match takes_muon {
            true => self.muon(name, parameter, gradient),
            false => self.adamw(name, parameter, gradient),
        };
        if self.optimizer.ema_decay > 0.0 {
            let shape = parameter.dims().to_vec();
            let flat = parameter.clone().reshape([parameter.shape().num_elements()]);
            self.new.push((name.to_owned(), Average { flat, shape }));
        }
        parameter
    }

    fn finish(&mut self) {
        self.adamw.finish();
        self.new.drain(..).for_each(|(name, new)| self.optimizer.average(name, new));
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::{Shape, TensorData};

    use super::*;

    /// The values after `gradients`, one a step.
    fn stepped<const D: usize>(shape: [usize; D], gradients: &[[f32; 3]]) -> Vec<f32> {
        let config = OptimizerConfig { weight_decay: 0.1, ..OptimizerConfig::default() };
        stepped_by(&config, shape, gradients)
    }

    /// The same for a run whose learning rate is 0.05 now.
    fn stepped_by<const D: usize>(
        config: &OptimizerConfig,
        shape: [usize; D],
        gradients: &[[f32; 3]],
    ) -> Vec<f32> {
        let mut optimizer = Optimizer::<Flex>::new(config);
        let tensor = |values: &[f32; 3]| -> Tensor<Flex, D> {
            let data = TensorData::new(values.to_vec(), Shape::new(shape));
            Tensor::from_data(data, &Default::default())
        };
        let mut parameter = tensor(&[0.5, -1.25, 2.0]);
        for gradient in gradients {
            let mut update = UpdateParameters::new(&mut optimizer, (0.05, 1.0), &|_| true);
            parameter = update.map("w", parameter, Some(tensor(gradient)));
            update.finish();
        }
        parameter.into_data().to_vec().unwrap()
    }

    #[test]
    fn a_group_has_its_own_learning_rate_and_weight_decay() {
        let gradients = [[0.3, -2.0, 1e-4], [-0.1, 0.5, 2e-4]];
        let group = ParameterGroup {
            parameters: vec!["w".into()],
            learning_rate: Some(5e-4),
            weight_decay: Some(0.0),
        };
        for algorithm in [Algorithm::Adamw, Algorithm::Muon] {
            let plain = OptimizerConfig { algorithm, weight_decay: 0.1, ..Default::default() };
            // Half of the peak of the group: the update is made with 50 times the peak of the run.
            let half = OptimizerConfig { learning_rate: 2e-3, weight_decay: 0.0, ..plain.clone() };
            let expected = {
                let group = ParameterGroup { learning_rate: Some(1e-3), ..group.clone() };
                OptimizerConfig { groups: vec![group], ..half }
            };
            let grouped = OptimizerConfig { groups: vec![group.clone()], ..plain.clone() };
            let stepped = |config| stepped_by(config, [1, 3], &gradients);
            assert_eq!(stepped(&grouped), stepped(&expected));
            assert_ne!(stepped(&grouped), stepped(&plain));
        }
    }

    #[test]
    fn four_steps_equal_adamw_of_torch() {
        let gradients =
            [[0.3, -2.0, 1e-4], [-0.1, 0.5, 2e-4], [0.0, 0.25, -3e-4], [0.7, -1.0, 0.0]];
        // torch.optim.AdamW(lr=0.05, betas=(0.9, 0.95), eps=1e-8), with weight_decay 0.1 for matrices and 0 for vectors.
        for (found, expected) in [
            (stepped([1, 3], &gradients), [0.374_153, -1.114_43, 1.869_622]),
            (stepped([3], &gradients), [0.383_051, -1.138_187, 1.908_116]),
        ] {
            let near = |(a, b): (&f32, &f32)| (a / b - 1.0).abs() < 2e-6;
            assert!(found.iter().zip(&expected).all(near), "{found:?} {expected:?}");
        }
    }
}
