//! Channels whose payloads arrive on the device of the receiver.
//!
//! Between devices tensors pass through host memory, which every backend supports. Burn 0.21's own way needs NCCL on CUDA, where
//! two ranks that send to each other at once can deadlock, and is not implemented on other GPUs.

use std::io;
use std::sync::Arc;
use std::task::Poll;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::{Link, LinkError, Message};

use super::payload::InTransit;
use super::remote::{KEY_BYTES, RemoteEnd, RemoteLinks};
use super::{ChannelLink, LinkFactory, RankLink, ReplicaRanks};
use crate::model::HostCopy;
use crate::runtime::group::ProcessGrid;
use crate::runtime::transport::{Transport, tensors};
use crate::stage::Payload;

/// Connects ranks that are threads of this process by channels, and ranks of other processes over a transport.
#[derive(Clone)]
pub struct DeviceLinks<B: Backend>(Option<Arc<RemoteLinks<B>>>);

impl<B: Backend> DeviceLinks<B> {
    /// Connects ranks of all processes.
    pub fn over(transport: Arc<dyn Transport>, grid: ProcessGrid) -> Self {
        Self(Some(RemoteLinks::new(transport, grid)))
    }
}

impl<B: Backend> Default for DeviceLinks<B> {
    /// Connects ranks of one process.
    fn default() -> Self {
        Self(None)
    }
}

impl<B: Backend> LinkFactory<B> for DeviceLinks<B> {
    fn connect(&self, replica: &ReplicaRanks<'_, B>) -> io::Result<Vec<RankLink<B>>> {
        let ReplicaRanks { replica, ranks, hosted } = replica;
        let mut devices = vec![None; *ranks];
        hosted.iter().for_each(|(rank, device)| devices[rank.index()] = Some(device.clone()));
        let devices: Arc<[Option<B::Device>]> = devices.into();
        let numbers: Vec<usize> = hosted.iter().map(|(rank, _)| rank.index()).collect();
        let links = ChannelLink::among(*ranks, &numbers);
        let is_spread = numbers.len() < *ranks;
        let remote = self.0.as_ref().filter(|_| is_spread).map(|remote| {
            let inlets = links.iter().map(ChannelLink::inlet);
            Arc::new(remote.begin(*replica, numbers.iter().copied().zip(inlets).collect()))
        });
        let link = |(rank, link)| -> RankLink<B> {
            Box::new(DeviceLink { link, rank, devices: devices.clone(), remote: remote.clone() })
        };
        Ok(numbers.into_iter().zip(links).map(link).collect())
    }
}

/// One rank's end.
struct DeviceLink<B: Backend> {
    link: ChannelLink<InTransit<B>>,
    rank: usize,
    /// Device of each rank of this process.
    devices: Arc<[Option<B::Device>]>,
    /// The way to ranks of other processes, shared by the ranks of the replica.
    remote: Option<Arc<RemoteEnd<B>>>,
}

impl<B: Backend> DeviceLink<B> {
    fn pack(&self, payload: Payload<B>, receiver: usize) -> InTransit<B> {
        match self.devices.get(receiver) {
            Some(device) if *device != self.devices[self.rank] => {
                InTransit::Copied(payload.0.into_iter().map(HostCopy::of).collect())
            }
            _ => InTransit::Shared(payload),
        }
    }

    fn unpack(&self, message: &Message, payload: InTransit<B>) -> Result<Payload<B>, LinkError> {
        let device = self.devices[self.rank].clone().unwrap_or_default();
        Ok(match payload {
            InTransit::Shared(payload) => payload,
            InTransit::Copied(copies) => {
                Payload(copies.into_iter().map(|copy| copy.on(&device)).collect())
            }
            InTransit::Remote(bytes) => {
                let matrices = tensors::decode(&bytes, KEY_BYTES).ok_or_else(|| {
                    let what = "damaged: its parts do not fit its length".into();
                    LinkError::Protocol { message: *message, what }
                })?;
                let on_device = |data: burn::tensor::TensorData| {
                    let dtype = data.dtype;
                    Tensor::from_data(data, (&device, dtype))
                };
                Payload(matrices.into_iter().map(on_device).collect())
            }
        })
    }
}

impl<B: Backend> Link for DeviceLink<B> {
    type Payload = Payload<B>;

    fn isend(&mut self, message: &Message, payload: Payload<B>) -> Result<(), LinkError> {
        if let Some(remote) = self.remote.as_ref().filter(|remote| remote.is_remote(message.to)) {
            remote.send(message, payload);
            return Ok(());
        }
        let payload = self.pack(payload, message.to.index());
        self.link.isend(message, payload)
    }

    fn irecv(&mut self, message: &Message) -> Result<(), LinkError> {
        self.link.irecv(message)
    }

    fn wait_isend(&mut self, message: &Message) -> Result<Poll<()>, LinkError> {
        self.link.wait_isend(message)
    }

    fn try_irecv(&mut self, message: &Message) -> Result<Poll<Payload<B>>, LinkError> {
        Ok(match self.link.try_irecv(message)? {
            Poll::Ready(payload) => Poll::Ready(self.unpack(message, payload)?),
            Poll::Pending => Poll::Pending,
        })
    }

    fn wait_any(&mut self, messages: &[Message]) -> Result<(), LinkError> {
        match &self.remote {
            Some(remote) => remote.transport().waiting(|| self.link.wait_any(messages)),
            None => self.link.wait_any(messages),
        }
    }
}
