//! Activations that wait for their backward in host memory.

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

/// A held value without its tensors, and those on their way to host memory, or there.
pub(super) struct Offloaded<H> {
    empty: H,
    copies: Vec<HostCopy>,
}

type Reading = Pin<Box<dyn Future<Output = Result<TensorData, ExecutionError>> + Send>>;

/// One tensor. Copies run beside the computation: nothing waits for them before they are needed.
enum HostCopy {
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
        self.0.push(HostCopy::start(Box::pin(leaving.into_data_async())));
    }
}

struct Return(std::vec::IntoIter<HostCopy>);

impl<B: Backend> Visit<B> for Return {
    fn tensor<const D: usize>(&mut self, tensor: &mut Tensor<B, D>) {
        let copy = self.0.next().expect("as many tensors return as have left");
        let options = (&tensor.device(), tensor.dtype());
        *tensor = Tensor::from_data(copy.wait(), options);
    }
}

impl HostCopy {
    /// Asks once, which starts the copy, and does not wait.
    fn start(mut reading: Reading) -> Self {
        match reading.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(data) => Self::Done(data),
            Poll::Pending => Self::Running(reading),
        }
    }

    /// The data. A device that fails here has failed for good: the rank ends with its message.
    fn wait(self) -> TensorData {
        let data = match self {
            Self::Running(reading) => read_sync(reading),
            Self::Done(data) => data,
        };
        data.unwrap_or_else(|e| panic!("offloaded activations cannot be read back: {e}"))
    }
}
