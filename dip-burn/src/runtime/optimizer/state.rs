//! The state of the optimiser as named tensors: `<parameter>.moment_1`, `.moment_2`, `.velocity` and `.average`.

use burn::backend::Autodiff;
use burn::optim::record::AdaptorRecord;
use burn::optim::{AdamW, AdamWState, AdaptiveMomentumState};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

use super::moment::{StateError, tensor_like};
use super::muon::MuonRule;
use super::{Average, Optimizer};
use crate::params::{NamedTensors, ParameterMap};
use crate::runtime::chunks::Chunks;

const MOMENT_1: &str = ".moment_1";
const MOMENT_2: &str = ".moment_2";
const AVERAGE: &str = ".average";

impl<B: Backend> Optimizer<B> {
    /// The moving averages, by parameter name.
    pub fn averages(&self) -> NamedTensors {
        let data = |average: &Average<B>| {
            let mut data = average.flat.clone().into_data();
            data.shape = average.shape.clone().into();
            data
        };
        self.averages.iter().map(|(name, average)| (name.clone(), data(average))).collect()
    }

    /// The moments and averages, by parameter name and suffix.
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
        self.states.clear();
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
        let time = self.optimizer.steps as usize;
        let momentum = AdaptiveMomentumState::new(time, moment_1, moment_2);
        let record = AdaptorRecord::from_state::<D>(AdamWState::new(momentum));
        self.optimizer.states.insert(name.to_owned(), record);
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

/// First and second moment of a record of any rank.
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
