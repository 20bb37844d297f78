//! The optimiser of the chunks of one rank: Burn's update rules and, if a run asks for them, moving averages of the weights.
//!
//! State is kept by parameter name, so that checkpoints do not depend on the partition.

mod config;
mod moment;
mod muon;
mod rate;
mod state;

pub use config::{Algorithm, OptimizerConfig};
pub use moment::StateError;
pub use rate::RateSchedule;

use std::collections::HashMap;

use burn::backend::Autodiff;
use burn::optim::record::AdaptorRecord;
use burn::optim::{AdamW, AdamWConfig, SimpleOptimizer};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::params::ParameterMap;
use crate::stage::ChunkStage;
use muon::MuonRule;

/// Steps until the decay of an average reaches one half. The decay grows with the steps, so that early averages forget faster.
const AVERAGE_WARM_UP_STEPS: f64 = 10.0;

/// AdamW for the parameters of a rank, or Muon for its matrices and AdamW for the rest.
pub(crate) struct Optimizer<B: Backend> {
    matrices: AdamW,
    vectors: AdamW,
    muon: Option<MuonRule<B>>,
    steps: u64,
    /// By parameter name.
    states: HashMap<String, AdaptorRecord<AdamW, Autodiff<B>>>,
    ema_decay: f64,
    /// By parameter name.
    averages: HashMap<String, Average<B>>,
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

    /// Updates every trained parameter that this replica `owns` with its gradient times `scale`.
    pub fn step<'a>(
        &mut self,
        chunks: impl Iterator<Item = &'a mut ChunkStage<B>>,
        learning_rate: f64,
        scale: f64,
        owns: &dyn Fn(&str) -> bool,
    ) {
        self.steps += 1;
        for chunk in chunks {
            chunk.map_parameters(&mut UpdateParameters {
                optimizer: self,
                learning_rate,
                scale,
                owns,
            });
        }
    }

    /// Moves the average of a parameter towards its new value.
    fn average<const D: usize>(&mut self, name: &str, parameter: &Tensor<B, D>) {
        if self.ema_decay == 0.0 {
            return;
        }
        let steps = self.steps as f64;
        let decay = self.ema_decay.min(steps / (steps + AVERAGE_WARM_UP_STEPS));
        let flat = parameter.clone().reshape([parameter.shape().num_elements()]);
        let flat = match self.averages.remove(name) {
            Some(average) => average.flat * decay + flat * (1.0 - decay),
            None => flat,
        };
        let shape = parameter.dims().to_vec();
        self.averages.insert(name.to_owned(), Average { flat, shape });
    }
}

/// The update of one step.
struct UpdateParameters<'a, B: Backend> {
    optimizer: &'a mut Optimizer<B>,
    learning_rate: f64,
    scale: f64,
    owns: &'a dyn Fn(&str) -> bool,
}

impl<B: Backend> ParameterMap<B> for UpdateParameters<'_, B> {
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

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::{Shape, TensorData};

    use super::*;

    /// The values after `gradients`, one a step.
    fn stepped<const D: usize>(shape: [usize; D], gradients: &[[f32; 3]]) -> Vec<f32> {
        let config = OptimizerConfig { weight_decay: 0.1, ..OptimizerConfig::default() };
        let mut optimizer = Optimizer::<Flex>::new(&config);
        let tensor = |values: &[f32; 3]| -> Tensor<Flex, D> {
            let data = TensorData::new(values.to_vec(), Shape::new(shape));
            Tensor::from_data(data, &Default::default())
        };
        let mut parameter = tensor(&[0.5, -1.25, 2.0]);
        for gradient in gradients {
            let (optimizer, owns) = (&mut optimizer, &|_: &str| true);
            let mut update = UpdateParameters { optimizer, learning_rate: 0.05, scale: 1.0, owns };
            parameter = update.map("w", parameter, Some(tensor(gradient)));
        }
        parameter.into_data().to_vec().unwrap()
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
