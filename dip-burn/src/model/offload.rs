//! Tensors in host memory: activations that wait for their backward, and tensors on their way to another device.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use burn::tensor::backend::{Backend, ExecutionError};
use burn::tensor::{DType, Tensor, TensorData, read_sync};

/// The tensors that a layer keeps for its backward.
pub(super) trait KeptTensors<B: Backend> {
    /// Shows every tensor to `visit`, always in the same order.
    fn each<V: TensorVisitor<B>>(&mut self, visit: &mut V);
}

/// Visits tensors, and may replace them.
pub(super) trait TensorVisitor<B: Backend> {
    fn tensor<const D: usize>(&mut self, tensor: &mut Tensor<B, D>);
}

/// A kept value without its tensors, and their copies on the host.
pub(super) struct Offloaded<H> {
    empty: H,
    copies: Vec<HostCopy>,
}

type Reading = Pin<Box<dyn Future<Output = Result<TensorData, ExecutionError>> + Send>>;

/// One tensor in host memory, or on its way there. Copies overlap with computation: nothing waits for them until they are needed.
pub(crate) struct HostCopy {
    copying: Option<Copying>,
    /// The type of the tensor. Some backends read 16 bits back as f32.
    dtype: DType,
}

enum Copying {
    Running(Reading),
    Done(Result<TensorData, ExecutionError>),
}

impl<H> Offloaded<H> {
    /// Starts the copies and frees the device memory.
    pub fn new<B: Backend>(mut held: H) -> Self
    where
        H: KeptTensors<B>,
    {
        let mut leave = Leave(Vec::new());
        held.each(&mut leave);
        Self { empty: held, copies: leave.0 }
    }

    /// Moves the value back to the device.
    pub fn back<B: Backend>(self) -> H
    where
        H: KeptTensors<B>,
    {
        let Self { mut empty, copies } = self;
        empty.each(&mut Return(copies.into_iter()));
        empty
    }
}

struct Leave(Vec<HostCopy>);

impl<B: Backend> TensorVisitor<B> for Leave {
    fn tensor<const D: usize>(&mut self, tensor: &mut Tensor<B, D>) {
        let nothing = Tensor::empty([1; D], (&tensor.device(), tensor.dtype()));
        let leaving = std::mem::replace(tensor, nothing);
        self.0.push(HostCopy::of(leaving));
    }
}

struct Return(std::vec::IntoIter<HostCopy>);

impl<B: Backend> TensorVisitor<B> for Return {
    fn tensor<const D: usize>(&mut self, tensor: &mut Tensor<B, D>) {
        let copy = self.0.next().expect("every offloaded tensor returns");
        *tensor = copy.on(&tensor.device());
    }
}

impl HostCopy {
    /// Starts to copy `tensor` and frees its device memory.
    pub fn of<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Self {
        let dtype = tensor.dtype();
        let mut reading: Reading = Box::pin(tensor.into_data_async());
        // Polled once, which starts the copy.
        let copying = Some(match reading.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(data) => Copying::Done(data),
            Poll::Pending => Copying::Running(reading),
        });
        Self { copying, dtype }
    }

    /// The tensor on `device`.
    ///
    /// # Panics
    /// If the device fails, which is final: the rank ends with its message.
    pub fn on<B: Backend, const D: usize>(self, device: &B::Device) -> Tensor<B, D> {
        let dtype = self.dtype;
        Tensor::from_data(self.data(), (device, dtype))
    }

    /// The values of the tensor.
    ///
    /// # Panics
    /// As [`on`](Self::on).
    pub fn data(mut self) -> TensorData {
        let data = match self.copying.take().expect("a copy is taken once") {
            Copying::Running(reading) => read_sync(reading),
            Copying::Done(data) => data,
        };
        data.unwrap_or_else(|e| panic!("a tensor cannot be read back: {e}"))
    }
}

impl Drop for HostCopy {
    /// Waits for a copy that is still running: the device may still write to host memory, which backends reuse.
    fn drop(&mut self) {
        let copying = self.copying.take();
        if let (Some(Copying::Running(reading)), false) = (copying, std::thread::panicking()) {
            let _ = read_sync(reading);
        }
    }
}

/// Returns `x` on `device`, copied through host memory if it is on another device.
pub(crate) fn to_device<B: Backend, const D: usize>(
    x: Tensor<B, D>,
    device: &B::Device,
) -> Tensor<B, D> {
    if x.device() == *device { x } else { HostCopy::of(x).on(device) }
}
