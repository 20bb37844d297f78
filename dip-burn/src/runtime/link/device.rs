//! Channels whose payloads arrive on the device of the receiver.
//!
//! Between devices tensors pass through host memory, which every backend supports. Burn 0.21's own way needs NCCL on CUDA, where
//! two ranks that send to each other at once can deadlock, and is not implemented on other GPUs.

use std::io;
use std::sync::Arc;
use std::task::Poll;

use burn::tensor::backend::Backend;
use dip_core::{Link, LinkError, Message};

use super::{ChannelLink, LinkFactory, RankLink, ReplicaRanks};
use crate::model::HostCopy;
use crate::stage::Payload;

/// Connects ranks that are threads of one process, by channels.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeviceLinks;

impl<B: Backend> LinkFactory<B> for DeviceLinks {
    fn connect(&self, replica: &ReplicaRanks<'_, B>) -> io::Result<Vec<RankLink<B>>> {
        let devices: Arc<[B::Device]> = replica.devices.into();
        let links = ChannelLink::mesh(devices.len()).into_iter().enumerate();
        let link = |(rank, link)| -> RankLink<B> {
            Box::new(DeviceLink { link, rank, devices: devices.clone() })
        };
        Ok(links.map(link).collect())
    }
}

/// One rank's end.
struct DeviceLink<B: Backend> {
    link: ChannelLink<InTransit<B>>,
    rank: usize,
    /// Device of each rank.
    devices: Arc<[B::Device]>,
}

/// A payload between two ranks.
enum InTransit<B: Backend> {
    /// Both ranks use one device.
    Shared(Payload<B>),
    /// The copy starts as soon as the sender has enqueued the tensor, and overlaps with the sender's next stages.
    Copied(Vec<HostCopy>),
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

    fn unpack(&self, payload: InTransit<B>) -> Payload<B> {
        match payload {
            InTransit::Shared(payload) => payload,
            InTransit::Copied(copies) => {
                let device = &self.devices[self.rank];
                Payload(copies.into_iter().map(|copy| copy.on(device)).collect())
            }
        }
    }
}

impl<B: Backend> Link for DeviceLink<B> {
    type Payload = Payload<B>;

    fn isend(&mut self, message: &Message, payload: Payload<B>) -> Result<(), LinkError> {
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
        let payload = self.link.try_irecv(message)?;
        Ok(payload.map(|payload| self.unpack(payload)))
    }

    fn wait_any(&mut self, messages: &[Message]) -> Result<(), LinkError> {
        self.link.wait_any(messages)
    }
}
