//! The state of the optimiser as named tensors: `<parameter>.moment_1`, `.moment_2`, `.velocity` and `.average`.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::moment::{StateError, tensor_like};
use super::muon::MuonRule;
use super::{Average, Moments, Optimizer};
use crate::params::{LazyTensor, NamedTensors, ParameterMap, TensorSource};
use crate::runtime::chunks::Chunks;

const MOMENT_1: &str = ".moment_1";
const MOMENT_2: &str = ".moment_2";
const AVERAGE: &str = ".average";

impl<B: Backend> Optimizer<B> {
    /// The moving averages, by parameter name.
    pub fn averages(&self) -> NamedTensors {
        self.lazy_averages("").map(LazyTensor::named).collect()
    }

    fn lazy_averages(&self, suffix: &'static str) -> impl Iterator<Item = LazyTensor> {
        self.averages.iter().map(move |(name, Average { flat, shape })| {
            LazyTensor::new(format!("{name}{suffix}"), shape.clone(), flat.clone())
        })
    }

    /// The moments and averages in the order of their names: a parameter and a suffix.
    pub fn state(&self) -> Vec<LazyTensor> {
        let mut all: Vec<LazyTensor> = self.lazy_averages(AVERAGE).collect();
        all.extend(self.muon.iter().flat_map(MuonRule::state));
        all.extend(self.moments.iter().flat_map(|(name, moments)| {
            let Moments { flat: [first, second], shape, .. } = moments;
            [(MOMENT_1, first), (MOMENT_2, second)].map(|(suffix, moment)| {
                LazyTensor::new(format!("{name}{suffix}"), shape.clone(), moment.clone())
            })
        }));
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Loads the state of the parameters that `chunks` hold and this replica `owns`; parameters without state start from zero.
    ///
    /// # Errors
    /// [`StateError`] if a tensor cannot be read or has another shape than its parameter, or a parameter has only one of its two
    /// moments.
    pub fn load(
        &mut self,
        chunks: &mut Chunks<B>,
        moments: &dyn TensorSource,
        steps: u64,
        owns: &dyn Fn(&str) -> bool,
    ) -> Result<(), StateError> {
        self.steps = steps;
        self.moments.clear();
        self.averages.clear();
        if let Some(muon) = &mut self.muon {
            muon.clear();
        }
        let mut load = LoadState { optimizer: self, moments, owns, error: None };
        for chunk in chunks.values_mut() {
            chunk.map_parameters(&mut load);
        }
        load.error.map_or(Ok(()), Err)
    }
}

/// Loads the state of every parameter; the parameters stay as they are.
struct LoadState<'a, B: Backend> {
    optimizer: &'a mut Optimizer<B>,
    moments: &'a dyn TensorSource,
    owns: &'a dyn Fn(&str) -> bool,
    error: Option<StateError>,
}

impl<B: Backend> LoadState<'_, B> {
    fn load<const D: usize>(
        &mut self,
        name: &str,
        parameter: &Tensor<B, D>,
    ) -> Result<(), StateError> {
        if let Some(average) = tensor_like(self.moments, format!("{name}{AVERAGE}"), parameter)? {
            let shape = parameter.dims().to_vec();
            let flat = average.reshape([parameter.shape().num_elements()]);
            self.optimizer.averages.insert(name.to_owned(), Average { flat, shape });
        }
        let muon = &mut self.optimizer.muon;
        if let Some(muon) = muon.as_mut().filter(|_| MuonRule::<B>::takes(name, D)) {
            return muon.load(name, parameter, self.moments);
        }
        let moment = |suffix| tensor_like(self.moments, format!("{name}{suffix}"), parameter);
        let (moment_1, moment_2) = match (moment(MOMENT_1)?, moment(MOMENT_2)?) {
            (None, None) => return Ok(()),
            (Some(moment_1), Some(moment_2)) => (moment_1, moment_2),
            (None, _) => return Err(StateError::Missing { tensor: format!("{name}{MOMENT_1}") }),
            (_, None) => return Err(StateError::Missing { tensor: format!("{name}{MOMENT_2}") }),
        };
        let (time, shape) = (self.optimizer.steps as usize, parameter.dims().to_vec());
        let flat = [moment_1, moment_2].map(|m| m.reshape([parameter.shape().num_elements()]));
        self.optimizer.moments.insert(name.to_owned(), Moments { time, flat, shape });
        Ok(())
    }
}

impl<B: Backend> ParameterMap<B> for LoadState<'_, B> {
    fn map<const D: usize>(
        &mut self,
        name: &str,
        parameter: Tensor<B, D>,
        _: Option<Tensor<B, D>>,
    ) -> Tensor<B, D> {
        if (self.owns)(name)
            && let Err(error) = self.load(name, &parameter)
        {
            self.error.get_or_insert(error);
        }
        parameter
    }
}
