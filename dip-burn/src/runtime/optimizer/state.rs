//! The state of the optimiser as named tensors: `<parameter>.moment_1`, `.moment_2`, `.velocity` and `.average`.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

use super::moment::{StateError, tensor_like};
use super::muon::MuonRule;
use super::{Average, Moments, Optimizer};
use crate::params::{NamedTensors, ParameterMap};
use crate::runtime::chunks::Chunks;

const MOMENT_1: &str = ".moment_1";
const MOMENT_2: &str = ".moment_2";
const AVERAGE: &str = ".average";

impl<B: Backend> Optimizer<B> {
    /// The moving averages, by parameter name.
    pub fn averages(&self) -> NamedTensors {
        let data = |average: &Average<B>| shaped(&average.flat, &average.shape);
        self.averages.iter().map(|(name, average)| (name.clone(), data(average))).collect()
    }

    /// The moments and averages, by parameter name and suffix.
    pub fn moments(&self) -> NamedTensors {
        let mut all = NamedTensors::new();
        if let Some(muon) = &self.muon {
            muon.export(&mut all);
        }
        for (name, Moments { flat: [first, second], shape, .. }) in &self.moments {
            all.insert(format!("{name}{MOMENT_1}"), shaped(first, shape));
            all.insert(format!("{name}{MOMENT_2}"), shaped(second, shape));
        }
        for (name, average) in self.averages() {
            all.insert(format!("{name}{AVERAGE}"), average);
        }
        all
    }

    /// Loads the state of the parameters that `chunks` hold and this replica `owns`; parameters without state start from zero.
    ///
    /// # Errors
    /// [`StateError`] if a tensor has another shape than its parameter, or a parameter has only one of its two moments.
    pub fn load(
        &mut self,
        chunks: &mut Chunks<B>,
        moments: &NamedTensors,
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
    moments: &'a NamedTensors,
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

/// A flat tensor on the host, in its shape.
fn shaped<B: Backend>(flat: &Tensor<B, 1>, shape: &[usize]) -> TensorData {
    let mut data = flat.clone().into_data();
    data.shape = shape.to_vec().into();
    data
}
