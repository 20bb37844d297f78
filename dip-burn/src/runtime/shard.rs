//! Optimiser state sharded over replicas (ZeRO-1).

use std::collections::HashSet;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::chunks::Chunks;
use crate::params::ParameterMap;

/// The parameters of a rank that one replica updates for all.
pub(super) struct OptimizerShard(HashSet<String>);

impl OptimizerShard {
    /// The share of `replica`: each parameter goes to the replica that has the fewest elements so far.
    pub fn of<B: Backend>(chunks: &mut Chunks<B>, replica: usize, replicas: usize) -> Self {
        let mut split =
            ShardAssignment { elements: vec![0; replicas], replica, own: HashSet::new() };
        for chunk in chunks.values_mut() {
            chunk.map_parameters(&mut split);
        }
        Self(split.own)
    }

    /// True if this replica updates a parameter.
    pub fn owns(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}

/// Assigns each parameter to a replica; the parameters stay as they are.
struct ShardAssignment {
    /// By replica: elements assigned so far.
    elements: Vec<usize>,
    replica: usize,
    own: HashSet<String>,
}

impl<B: Backend> ParameterMap<B> for ShardAssignment {
    fn map<const D: usize>(
        &mut self,
        name: &str,
        parameter: Tensor<B, D>,
        _: Option<Tensor<B, D>>,
    ) -> Tensor<B, D> {
        let fewest = (0..self.elements.len()).min_by_key(|&r| self.elements[r]).unwrap_or(0);
        self.elements[fewest] += parameter.dims().iter().product::<usize>();
        if fewest == self.replica {
            self.own.insert(name.to_owned());
        }
        parameter
    }
}
