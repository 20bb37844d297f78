//! Parameters by name.
//!
//! A name consists of the module of the model, the path inside it, and the number of the layer in the whole module:
//! `language.layers.3.attention.query.weight`. It does not depend on the partition. So any two partitions can compare and exchange
//! weights, gradients and optimiser state.

mod any_module;
pub(crate) mod bucket;
mod lazy;
mod source;

pub use any_module::{AnyMapper, AnyModule, AnyVisitor};
pub use bucket::Bucket;
pub use lazy::LazyTensor;
pub use source::TensorSource;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::marker::PhantomData;

use burn::module::{ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::backend::{AutodiffBackend, Backend, ExecutionError};
use burn::tensor::{Tensor, TensorData};
use thiserror::Error;

use crate::kernels::kernels;

/// Tensors on the host, by name.
pub type NamedTensors = BTreeMap<String, TensorData>;

/// Visits every float parameter of a chunk, and may replace it.
pub trait ParameterMap<I: Backend> {
    /// Returns the new value of a parameter.
    fn map<const D: usize>(
        &mut self,
        name: &str,
        parameter: Tensor<I, D>,
        gradient: Option<Tensor<I, D>>,
    ) -> Tensor<I, D>;

    /// Called after the last parameter of a chunk, before anybody reads the new values.
    fn finish(&mut self) {}
}

/// Named tensors that do not fit a model.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum ParameterError {
    /// A parameter is missing.
    #[error("parameter {0} is missing")]
    Missing(String),
    /// A parameter has another shape.
    #[error("parameter {name} has shape {found:?}, but the model needs {expected:?}")]
    Shape {
        /// The parameter.
        name: String,
        /// The shape it has.
        found: Vec<usize>,
        /// The shape it should have.
        expected: Vec<usize>,
    },
    /// A parameter cannot be read.
    #[error("parameter {name} cannot be read: {what}")]
    Read {
        /// The parameter.
        name: String,
        /// The reason.
        what: String,
    },
}

/// A device that has failed: its tensors cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "the device has failed: {reason}; resume the run, with less memory per rank if it ran out of memory"
)]
pub struct ReadError {
    /// The message of the backend.
    reason: String,
}

impl ReadError {
    pub(crate) fn new(error: ExecutionError) -> Self {
        let reason = match error {
            ExecutionError::WithContext { reason } => reason,
            ExecutionError::Generic { reason, .. } => reason,
        };
        Self { reason: reason.trim().to_owned() }
    }
}

/// Makes the name of a parameter from its path inside a chunk.
#[derive(Debug, Clone)]
pub(crate) struct Naming {
    /// The module of the model.
    pub module: String,
    /// The number of the chunk's first layer.
    pub first_layer: usize,
}

impl Naming {
    fn name(&self, path: &[String]) -> String {
        let mut name = self.module.clone();
        for (i, part) in path.iter().enumerate() {
            name.push('.');
            match part.parse::<usize>() {
                Ok(layer) if i == 1 && path[0] == "layers" => {
                    name.push_str(&(layer + self.first_layer).to_string());
                }
                _ => name.push_str(part),
            }
        }
        name
    }
}

/// Layers with parameters that can be replaced.
pub(crate) trait MapParameters<B: Backend> {
    /// Runs `map` over every parameter, and takes the new values.
    fn map_parameters<P: ParameterMap<B>>(&mut self, map: &mut P);
}

/// Runs `map` over every parameter of a module.
pub(crate) fn map_parameters<B: Backend, P: ParameterMap<B>>(
    module: &mut dyn AnyModule<B>,
    naming: &Naming,
    gradients: Option<&GradientsParams>,
    map: &mut P,
) {
    module.map(&mut Mapper { naming, gradients, map, path: Vec::new() });
    map.finish();
}

/// Copies every parameter of a module to the host.
pub(crate) fn parameters<B: Backend>(module: &dyn AnyModule<B>, naming: &Naming) -> NamedTensors {
    lazy_parameters(module, naming).into_iter().map(LazyTensor::named).collect()
}

/// Every parameter of a module, to be copied to the host later.
pub(crate) fn lazy_parameters<B: Backend>(
    module: &dyn AnyModule<B>,
    naming: &Naming,
) -> Vec<LazyTensor> {
    let mut visitor = Exporter { naming, path: Vec::new(), tensors: Vec::new() };
    module.visit(&mut visitor);
    visitor.tensors
}

/// Copies every gradient of a module to the host; gradients are on backend `G`.
pub(crate) fn gradients<B: Backend, G: Backend>(
    module: &dyn AnyModule<B>,
    naming: &Naming,
    gradients: &GradientsParams,
) -> NamedTensors {
    let (path, tensors) = (Vec::new(), NamedTensors::new());
    let mut visitor =
        GradientExporter::<G> { naming, gradients, path, tensors, backend: PhantomData };
    module.visit(&mut visitor);
    visitor.tensors
}

/// The parameters of a module whose paths `select` accepts.
pub(crate) fn selected<B: Backend>(
    module: &dyn AnyModule<B>,
    naming: &Naming,
    select: impl Fn(&str) -> bool,
) -> HashSet<ParamId> {
    let mut visitor = Selection { naming, select, path: Vec::new(), found: HashSet::new() };
    module.visit(&mut visitor);
    visitor.found
}

/// The names of the parameters of a module.
pub(crate) fn names<B: Backend>(module: &dyn AnyModule<B>, naming: &Naming) -> Vec<String> {
    let names = RefCell::new(Vec::new());
    selected(module, naming, |name| {
        names.borrow_mut().push(name.to_owned());
        false
    });
    names.into_inner()
}

/// Takes the gradients of a module out of the gradients of a whole graph of Burn's autodiff.
pub(crate) fn graph_gradients<B: AutodiffBackend>(
    module: &dyn AnyModule<B>,
    graph: &mut B::Gradients,
) -> GradientsParams {
    let mut visitor = GraphGradients::<B> { graph, sums: GradientsParams::new() };
    module.visit(&mut visitor);
    visitor.sums
}

/// The sum of the squares of all gradients of a module. The parameter `except` is left out, because it counts elsewhere.
///
/// # Errors
/// [`ReadError`] if the device has failed.
pub(crate) fn squared_norm<B: Backend>(
    module: &dyn AnyModule<B>,
    gradients: &GradientsParams,
    except: Option<ParamId>,
) -> Result<f64, ReadError> {
    let mut visitor = FlatGradients { gradients, except, flat: Vec::new() };
    module.visit(&mut visitor);
    match visitor.flat.is_empty() {
        true => Ok(0.0),
        false => sum_on_host(vec![kernels().squares(visitor.flat)]),
    }
}

/// The sum of tensors of one value each, in one read: every read waits until the device is idle.
///
/// # Errors
/// [`ReadError`] if the device has failed.
pub(crate) fn sum_on_host<B: Backend, const D: usize>(
    values: Vec<Tensor<B, D>>,
) -> Result<f64, ReadError> {
    if values.is_empty() {
        return Ok(0.0);
    }
    let data = Tensor::cat(values, 0).try_into_data().map_err(ReadError::new)?;
    Ok(data.iter::<f64>().sum())
}

struct Mapper<'a, P> {
    naming: &'a Naming,
    gradients: Option<&'a GradientsParams>,
    map: &'a mut P,
    path: Vec<String>,
}

impl<B: Backend, P: ParameterMap<B>> ModuleMapper<B> for Mapper<'_, P> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (id, tensor, mapper) = param.consume();
        let gradient = self.gradients.and_then(|g| g.get::<B, D>(id));
        let tracked = tensor.is_require_grad();
        let name = self.naming.name(&self.path);
        let mapped = self.map.map(&name, tensor.detach(), gradient);
        let mapped = if tracked { mapped.require_grad() } else { mapped };
        Param::from_mapped_value(id, mapped, mapper)
    }
}

struct Exporter<'a> {
    naming: &'a Naming,
    path: Vec<String>,
    tensors: Vec<LazyTensor>,
}

impl<B: Backend> ModuleVisitor<B> for Exporter<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let (name, tensor) = (self.naming.name(&self.path), param.val());
        self.tensors.push(LazyTensor::new(name, tensor.dims().to_vec(), tensor));
    }
}

struct Selection<'a, F> {
    naming: &'a Naming,
    select: F,
    path: Vec<String>,
    found: HashSet<ParamId>,
}

impl<B: Backend, F: Fn(&str) -> bool> ModuleVisitor<B> for Selection<'_, F> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if (self.select)(&self.naming.name(&self.path)) {
            self.found.insert(param.id);
        }
    }
}

struct GradientExporter<'a, G> {
    naming: &'a Naming,
    gradients: &'a GradientsParams,
    path: Vec<String>,
    tensors: NamedTensors,
    backend: PhantomData<G>,
}

impl<B: Backend, G: Backend> ModuleVisitor<B> for GradientExporter<'_, G> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if let Some(gradient) = self.gradients.get::<G, D>(param.id) {
            self.tensors.insert(self.naming.name(&self.path), gradient.into_data());
        }
    }
}

struct GraphGradients<'a, B: AutodiffBackend> {
    graph: &'a mut B::Gradients,
    sums: GradientsParams,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for GraphGradients<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if let Some(gradient) = param.val().grad_remove(self.graph) {
            self.sums.register::<B::InnerBackend, D>(param.id, gradient);
        }
    }
}

struct FlatGradients<'a, B: Backend> {
    gradients: &'a GradientsParams,
    except: Option<ParamId>,
    flat: Vec<Tensor<B, 1>>,
}

impl<B: Backend> ModuleVisitor<B> for FlatGradients<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if self.except == Some(param.id) {
            return;
        }
        if let Some(gradient) = self.gradients.get::<B, D>(param.id) {
            self.flat.push(gradient.flatten(0, D - 1));
        }
    }
}

/// Replaces every parameter by the tensor of its name.
pub(crate) struct LoadParameters<'a> {
    pub tensors: &'a dyn TensorSource,
    /// The first error, if any.
    pub error: Option<ParameterError>,
}

impl LoadParameters<'_> {
    fn read(&self, name: &str, expected: &[usize]) -> Result<TensorData, ParameterError> {
        match self.tensors.tensor(name) {
            Ok(Some(data)) if data.shape.as_slice() == expected => Ok(data),
            Ok(Some(data)) => {
                let (found, expected) = (data.shape.to_vec(), expected.to_vec());
                Err(ParameterError::Shape { name: name.into(), found, expected })
            }
            Ok(None) => Err(ParameterError::Missing(name.into())),
            Err(what) => Err(ParameterError::Read { name: name.into(), what }),
        }
    }
}

impl<I: Backend> ParameterMap<I> for LoadParameters<'_> {
    fn map<const D: usize>(
        &mut self,
        name: &str,
        parameter: Tensor<I, D>,
        _: Option<Tensor<I, D>>,
    ) -> Tensor<I, D> {
        if self.error.is_some() {
            return parameter;
        }
        match self.read(name, &parameter.dims()) {
            Ok(data) => Tensor::from_data(data, &parameter.device()),
            Err(error) => {
                self.error = Some(error);
                parameter
            }
        }
    }
}
