//! Weights from a seed and a name, the same on every rank, partition and backend.

use std::hash::Hasher;

use burn::module::{Param, ParamId};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use dip_core::{DitSpec, LoraTarget, ModuleSpec};
use fnv::FnvHasher;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::block::linear::{Adapter, Linear, output_norms};
use crate::random::normals;

/// Draws the weights of one module of the model.
#[derive(Debug, Clone)]
pub struct Init<'a, B: Backend> {
    /// Seed of the run.
    pub seed: u64,
    /// The module of the model; part of every name.
    pub module: &'a str,
    /// The device of the weights.
    pub device: &'a B::Device,
    /// True if weights are read from files afterwards: then they start at zero, and only adapters are drawn.
    pub read: bool,
}

/// Standard deviation of the weights of a module's layers, before residual branches are scaled down. Layers of diffusion
/// transformers keep the scale of their inputs: with 0.02, attention in narrow layers would stay uniform for many iterations.
pub(super) fn layer_std(spec: &ModuleSpec) -> f64 {
    match spec.kind.get::<DitSpec>() {
        Some(_) => (1.0 / f64::from(spec.hidden)).sqrt(),
        None => 0.02,
    }
}

impl<B: Backend> Init<'_, B> {
    /// A matrix `[rows, columns]` of normal values with standard deviation `std`.
    pub fn matrix(&self, name: &str, shape: [usize; 2], std: f64) -> Param<Tensor<B, 2>> {
        if self.read { self.zeros(shape) } else { self.drawn(name, shape, std) }
    }

    fn drawn(&self, name: &str, [rows, columns]: [usize; 2], std: f64) -> Param<Tensor<B, 2>> {
        let mut rng =
            ChaCha8Rng::seed_from_u64(self.seed ^ hash(&format!("{}.{name}", self.module)));
        let values = normals(&mut rng, std, rows * columns);
        let data = TensorData::new(values, [rows, columns]);
        Param::initialized(ParamId::new(), Tensor::from_data(data, self.device).require_grad())
    }

    /// A linear layer `[input, output]`, with a bias of zero if `bias` is set.
    pub fn linear(
        &self,
        name: &str,
        input: usize,
        output: usize,
        bias: bool,
        std: f64,
    ) -> Linear<B> {
        Linear {
            weight: self.matrix(name, [input, output], std),
            bias: bias.then(|| self.zeros([output])),
            lora: None,
        }
    }

    /// The same layer with an adapter, if the module has one for `target`.
    pub fn adapted(
        &self,
        spec: &ModuleSpec,
        target: LoraTarget,
        path: &str,
        layer: Linear<B>,
    ) -> Linear<B> {
        let Some(lora) = spec.lora.as_ref().filter(|l| l.targets.contains(&target)) else {
            return layer;
        };
        let [input, output] = layer.weight.dims();
        let (rank, std) = (lora.rank as usize, (1.0 / input as f64).sqrt());
        let a = self.drawn(&format!("{path}.lora.a"), [input, rank], std);
        let magnitude = lora.dora.then(|| match self.read {
            // Read with the weights.
            true => self.constant(1.0, output),
            false => {
                let norms = output_norms(layer.weight.val().detach());
                Param::initialized(ParamId::new(), norms.detach().require_grad())
            }
        });
        let adapter = Adapter { a, b: self.zeros([rank, output]), scale: lora.scale(), magnitude };
        Linear { lora: Some(adapter), ..layer }
    }

    /// A tensor of zeros.
    pub fn zeros<const D: usize>(&self, shape: [usize; D]) -> Param<Tensor<B, D>> {
        let zeros = Tensor::zeros(shape, self.device);
        Param::initialized(ParamId::new(), zeros.require_grad())
    }

    /// A vector of equal values.
    pub fn constant(&self, value: f64, width: usize) -> Param<Tensor<B, 1>> {
        let values = Tensor::full([width], value, self.device);
        Param::initialized(ParamId::new(), values.require_grad())
    }
}

/// A hash that is stable over releases, unlike the standard library's.
fn hash(text: &str) -> u64 {
    let mut hasher = FnvHasher::default();
    hasher.write(text.as_bytes());
    hasher.finish()
}
