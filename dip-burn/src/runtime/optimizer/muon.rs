//! Muon over the matrices of the hidden layers; embeddings, heads and vectors stay with AdamW.

use std::collections::HashMap;

use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{
    AdjustLrFn, Muon, MuonConfig, MuonState, SimpleOptimizer, momentum::MomentumState,
};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::moment::{StateError, tensor_like};
use crate::params::{LazyTensor, TensorSource};

/// Momentum of Burn's rule. Burn's velocity is private, so it is computed here again for checkpoints.
const MOMENTUM: f64 = 0.95;
const VELOCITY: &str = ".velocity";

/// Burn's update rule with the velocity of every matrix.
pub(super) struct MuonRule<B: Backend> {
    velocities: HashMap<String, Tensor<B, 2>>,
}

/// The settings of one step of a matrix.
#[derive(Debug, Clone, Copy)]
pub(super) struct MuonStep {
    /// Learning rate.
    pub rate: f64,
    /// Decoupled weight decay.
    pub decay: f32,
}

impl MuonStep {
    /// Burn's rule. Its steps are scaled to the size of AdamW's, so that both use the same learning rates.
    fn rule<B: Backend>(self) -> Muon<B> {
        let momentum = MomentumConfig { momentum: MOMENTUM, dampening: 0.0, nesterov: true };
        MuonConfig::new()
            .with_momentum(momentum)
            .with_weight_decay(Some(WeightDecayConfig::new(self.decay)))
            .with_adjust_lr_fn(AdjustLrFn::MatchRmsAdamW)
            .build()
    }
}

impl<B: Backend> MuonRule<B> {
    /// A rule without velocities.
    pub fn new() -> Self {
        Self { velocities: HashMap::new() }
    }

    /// True if a parameter of `dimensions` dimensions is a matrix of a hidden layer.
    pub fn takes(name: &str, dimensions: usize) -> bool {
        dimensions == 2 && name.contains(".layers.")
    }

    /// The new value of a matrix.
    pub fn step<const D: usize>(
        &mut self,
        name: &str,
        step: MuonStep,
        parameter: Tensor<B, D>,
        gradient: Tensor<B, D>,
    ) -> Tensor<B, D> {
        let shape = parameter.dims();
        let matrix = |x: Tensor<B, D>| x.reshape([shape[0] as i32, -1]);
        let (parameter, gradient) = (matrix(parameter), matrix(gradient));
        let before = self.velocities.remove(name);
        let velocity = match &before {
            Some(velocity) => gradient.clone() + velocity.clone().mul_scalar(MOMENTUM),
            None => gradient.clone(),
        };
        self.velocities.insert(name.to_owned(), velocity);
        let state = before.map(|velocity| MuonState::new(MomentumState::new(velocity)));
        let (parameter, _) = step.rule().step(step.rate, parameter, gradient, state);
        parameter.reshape(shape)
    }

    /// The velocities, named after their parameters.
    pub fn state(&self) -> impl Iterator<Item = LazyTensor> {
        self.velocities.iter().map(|(name, velocity)| {
            let shape = velocity.dims().to_vec();
            LazyTensor::new(format!("{name}{VELOCITY}"), shape, velocity.clone())
        })
    }

    /// Forgets all velocities.
    pub fn clear(&mut self) {
        self.velocities.clear();
    }

    /// Loads the velocity of a parameter, if `moments` has it.
    ///
    /// # Errors
    /// [`StateError`] if it cannot be read, or has another shape than its parameter.
    pub fn load<const D: usize>(
        &mut self,
        name: &str,
        parameter: &Tensor<B, D>,
        moments: &dyn TensorSource,
    ) -> Result<(), StateError> {
        let velocity = tensor_like(moments, format!("{name}{VELOCITY}"), parameter)?;
        if let Some(velocity) = velocity {
            let rows = parameter.dims()[0] as i32;
            self.velocities.insert(name.to_owned(), velocity.reshape([rows, -1]));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::Distribution;

    use super::*;

    fn normal() -> Tensor<Flex, 2> {
        Tensor::random([6, 10], Distribution::Normal(0.0, 1.0), &Default::default())
    }

    fn values(x: Tensor<Flex, 2>) -> Vec<f32> {
        x.into_data().to_vec().unwrap()
    }

    #[test]
    fn steps_equal_the_rule_with_its_own_velocity() {
        let step = MuonStep { rate: 1e-2, decay: 0.05 };
        let mut ours = MuonRule::<Flex>::new();
        let theirs = step.rule();
        let (mut a, mut state) = (normal(), None);
        let mut b = a.clone();
        for _ in 0..4 {
            let gradient = normal();
            a = ours.step("language.layers.0.query", step, a, gradient.clone());
            (b, state) = theirs.step(1e-2, b, gradient, state);
        }
        assert_eq!(values(a), values(b));
    }

    #[test]
    fn a_step_is_as_large_as_one_of_adamw() {
        let start = normal();
        let step = MuonStep { rate: 1.0, decay: 0.0 };
        let step = MuonRule::new().step("x.layers.0.w", step, start.clone(), normal()) - start;
        let rms = step.square().mean().sqrt().into_scalar();
        // AdamW's updates have an RMS of about 0.2 to 0.4 of the learning rate (Liu et al. 2025).
        assert!((0.1..0.4).contains(&rms), "{rms}");
    }

    #[test]
    fn embeddings_heads_and_vectors_stay_with_adamw() {
        assert!(MuonRule::<Flex>::takes("language.layers.3.attention.query.weight", 2));
        assert!(!MuonRule::<Flex>::takes("language.layers.3.attention.query.bias", 1));
        assert!(!MuonRule::<Flex>::takes("language.end.head.weight", 2));
        assert!(!MuonRule::<Flex>::takes("language.embed.weight", 2));
    }
}
