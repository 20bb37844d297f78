//! Tensors in host memory: activations that wait for their backward, and what goes to another device.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use burn::tensor::backend::{Backend, ExecutionError};
use burn::tensor::{Tensor, TensorData, read_sync};

/// What a layer holds for its backward, tensor by tensor.
pub(super) trait Held<B: Backend> {
    /// Shows every tensor to `visit`, always in the same order.
    fn each<V: Visit<B>>(&mut self, visit: &mut V);
}

/// Sees tensors, and may replace them.
pub(super) trait Visit<B: Backend> {
    fn tensor<const D: usize>(&mut self, tensor: &mut Tensor<B, D>);
}

/// A held value without its tensors, and those.
pub(super) struct Offloaded<H> {
    empty: H,
    copies: Vec<HostCopy>,
}

type Reading = Pin<Box<dyn Future<Output = Result<TensorData, ExecutionError>> + Send>>;

/// One tensor on its way to host memory, or there. Copies run beside the computation: nothing waits for them before they are
/// needed.
pub(crate) struct HostCopy(Option<Copying>);

enum Copying {
    Running(Reading),
    Done(Result<TensorData, ExecutionError>),
}

impl<H> Offloaded<H> {
    /// Starts the copies and gives the device memory back.
    pub fn new<B: Backend>(mut held: H) -> Self
    where
        H: Held<B>,
    {
        let mut leave = Leave(Vec::new());
        held.each(&mut leave);
        Self { empty: held, copies: leave.0 }
    }

    /// The value on the device again.
    pub fn back<B: Backend>(self) -> H
    where
        H: Held<B>,
    {
        let Self { mut empty, copies } = self;
        empty.each(&mut Return(copies.into_iter()));
        empty
    }
}

struct Leave(Vec<HostCopy>);

impl<B: Backend> Visit<B> for Leave {
    fn tensor<const D: usize>(&mut self, tensor: &mut Tensor<B, D>) {
        let nothing = Tensor::empty([1; D], (&tensor.device(), tensor.dtype()));
        let leaving = std::mem::replace(tensor, nothing);
        self.0.push(HostCopy::of(leaving));
    }
}

struct Return(std::vec::IntoIter<HostCopy>);

impl<B: Backend> Visit<B> for Return {
    fn tensor<const D: usize>(&mut self, tensor: &mut Tensor<B, D>) {
        let copy = self.0.next().expect("as many tensors return as have left");
        *tensor = copy.on(&tensor.device());
    }
}

impl HostCopy {
    /// Starts to copy `tensor` and gives its device memory back.
    pub fn of<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Self {
        let mut reading: Reading = Box::pin(tensor.into_data_async());
        // Asked once, which starts the copy, and not waited for.
        Self(Some(match reading.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(data) => Copying::Done(data),
            Poll::Pending => Copying::Running(reading),
        }))
    }

    /// The tensor on `device`. A device that fails here has failed for good: the rank ends with its message.
    pub fn on<B: Backend, const D: usize>(mut self, device: &B::Device) -> Tensor<B, D> {
        let data = match self.0.take().expect("a copy is taken once") {
            Copying::Running(reading) => read_sync(reading),
            Copying::Done(data) => data,
        };
        let data = data.unwrap_or_else(|e| panic!("a tensor cannot be read back: {e}"));
        let dtype = data.dtype;
        Tensor::from_data(data, (device, dtype))
    }
}

impl Drop for HostCopy {
    /// Waits for a copy that nobody has waited for: the device may still write to host memory, which backends use again.
    fn drop(&mut self) {
        if let (Some(Copying::Running(reading)), false) = (self.0.take(), std::thread::panicking())
        {
            let _ = read_sync(reading);
        }
    }
}

/// `x` on `device`, copied through host memory where it is on another one.
pub(crate) fn to_device<B: Backend, const D: usize>(
    x: Tensor<B, D>,
    device: &B::Device,
) -> Tensor<B, D> {
    if x.device() == *device { x } else { HostCopy::of(x).on(device) }
}
