//! Tensors that are copied to the host one by one.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

/// A tensor that is copied to the host when it is read, so that a rank never holds more than one copy.
pub struct LazyTensor {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    read: Box<dyn FnOnce() -> TensorData + Send>,
}

impl LazyTensor {
    /// A tensor on a device, named and shaped as in files.
    pub fn new<B: Backend, const D: usize>(
        name: String,
        shape: Vec<usize>,
        tensor: Tensor<B, D>,
    ) -> Self {
        Self { name, shape, read: Box::new(move || tensor.into_data()) }
    }

    /// A tensor that is on the host already.
    pub fn on_host(name: String, data: TensorData) -> Self {
        Self { name, shape: data.shape.to_vec(), read: Box::new(move || data) }
    }

    /// Its values in f32, with its shape.
    pub fn read(self) -> TensorData {
        let mut data = (self.read)();
        data.shape = self.shape.into();
        data.convert::<f32>()
    }

    /// Its name and its values.
    pub fn named(self) -> (String, TensorData) {
        (self.name.clone(), self.read())
    }
}
