//! A CPU backend that refuses tensors without elements, because GPUs have no kernels for them.

use std::future::Future;
use std::pin::Pin;

use burn::backend::Flex;
use burn::backend::flex::FlexDevice;
use burn::tensor::backend::{BackendTypes, DTypeUsageSet, ExecutionError};
use burn::tensor::{DType, Shape, TensorData};
use burn_ir::{BackendIr, OperationIr, TensorId, TensorIr};
use burn_router::{
    BackendRouter, MultiBackendBridge, RouterTensor, Runner, RunnerChannel, RunnerClient,
};

/// Flex that panics at the first operation with an input or output without elements.
pub type Strict = BackendRouter<Channel>;

#[derive(Clone)]
pub struct Channel;

#[derive(Clone)]
pub struct Client(Runner<Flex>);

/// Moves tensors between devices. There is only one device, so it returns them unchanged.
pub struct Bridge;

type Handle = <Flex as BackendIr>::Handle;

impl MultiBackendBridge for Bridge {
    type TensorHandle = Handle;
    type Device = FlexDevice;

    fn change_backend_float(tensor: Handle, _: Shape, _: &FlexDevice) -> Handle {
        tensor
    }

    fn change_backend_int(tensor: Handle, _: Shape, _: &FlexDevice) -> Handle {
        tensor
    }

    fn change_backend_bool(tensor: Handle, _: Shape, _: &FlexDevice) -> Handle {
        tensor
    }
}

impl RunnerChannel for Channel {
    type Device = FlexDevice;
    type Bridge = Bridge;
    type Client = Client;
    type FloatElem = <Flex as BackendTypes>::FloatElem;
    type IntElem = <Flex as BackendTypes>::IntElem;
    type BoolElem = <Flex as BackendTypes>::BoolElem;

    fn name(_: &FlexDevice) -> String {
        "strict".into()
    }

    fn init_client(device: &FlexDevice) -> Client {
        Client(Runner::new(*device))
    }

    fn get_tensor_handle(tensor: &TensorIr, client: &Client) -> Handle {
        client.0.get_tensor_handle(tensor)
    }

    fn register_tensor(
        client: &Client,
        handle: Handle,
        shape: Shape,
        dtype: DType,
    ) -> RouterTensor<Client> {
        client.0.register_tensor(handle, shape, dtype, client.clone())
    }
}

impl RunnerClient for Client {
    type Device = FlexDevice;

    fn register_op(&self, op: OperationIr) {
        if !matches!(op, OperationIr::Drop(_)) {
            for tensor in op.nodes() {
                assert!(tensor.shape.num_elements() > 0, "a tensor without elements: {op:?}");
            }
        }
        self.0.register_op(op);
    }

    fn register_tensor_data(&self, data: TensorData) -> RouterTensor<Self> {
        assert!(data.shape.num_elements() > 0, "data without elements: {:?}", data.shape);
        let TensorIr { id, shape, dtype, .. } = self.0.register_tensor_data_desc(data);
        RouterTensor::new(id, shape, dtype, self.clone())
    }

    fn read_tensor_async(
        &self,
        tensor: TensorIr,
    ) -> Pin<Box<dyn Future<Output = Result<TensorData, ExecutionError>> + Send>> {
        self.0.read_tensor_async(tensor)
    }

    fn sync(&self) -> Result<(), ExecutionError> {
        self.0.sync()
    }

    fn create_empty_handle(&self) -> TensorId {
        self.0.create_empty_handle()
    }

    fn device(&self) -> FlexDevice {
        self.0.device()
    }

    fn seed(&self, seed: u64) {
        self.0.seed(seed);
    }

    fn dtype_usage(&self, dtype: DType) -> DTypeUsageSet {
        self.0.dtype_usage(dtype)
    }
}
