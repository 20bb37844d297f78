//! Where parameters and their state come from: memory or files.

use burn::tensor::TensorData;

use super::NamedTensors;

/// Tensors by name. A source may read each one from a file when it is asked for it.
pub trait TensorSource {
    /// The tensor `name` in f32; `None` if there is no such tensor.
    ///
    /// # Errors
    /// The reason why it cannot be read.
    fn tensor(&self, name: &str) -> Result<Option<TensorData>, String>;
}

impl TensorSource for NamedTensors {
    fn tensor(&self, name: &str) -> Result<Option<TensorData>, String> {
        Ok(self.get(name).cloned())
    }
}
