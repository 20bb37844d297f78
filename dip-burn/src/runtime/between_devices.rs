//! Tensors on their way from one rank to another that computes elsewhere.
//!
//! Between devices they pass through host memory, which every backend can do. Burn 0.21's own way needs NCCL on CUDA, where two
//! ranks that send to each other at once can wait for each other for ever, and is not implemented on other GPUs.

use std::sync::Arc;
use std::task::Poll;

use burn::tensor::backend::Backend;
use dip_core::{Link, LinkError, Message};

use super::link::ChannelLink;
use crate::model::HostCopy;
use crate::stage::Payload;

/// The end of one rank of a mesh of channels; payloads arrive on its device.
pub(super) struct DeviceLink<B: Backend> {
    link: ChannelLink<Sent<B>>,
    device: B::Device,
    /// Those of all ranks.
    devices: Arc<[B::Device]>,
}

/// A payload between two ranks.
enum Sent<B: Backend> {
    /// On the device that both share.
    Shared(Payload<B>),
    /// Copied as soon as it was sent: behind what computes it, and beside whatever its sender computes next.
    Copied(Vec<HostCopy>),
}

impl<B: Backend> DeviceLink<B> {
    /// Connects ranks, each on its own of `devices`, for one iteration.
    pub fn mesh(devices: &Arc<[B::Device]>) -> Vec<Self> {
        let links = ChannelLink::mesh(devices.len()).into_iter().zip(devices.iter());
        let end = |(link, device): (_, &B::Device)| Self {
            link,
            device: device.clone(),
            devices: devices.clone(),
        };
        links.map(end).collect()
    }

    fn sent(&self, payload: Payload<B>, to: Option<&B::Device>) -> Sent<B> {
        match to {
            Some(device) if *device != self.device => {
                Sent::Copied(payload.0.into_iter().map(HostCopy::of).collect())
            }
            _ => Sent::Shared(payload),
        }
    }

    fn arrived(&self, sent: Sent<B>) -> Payload<B> {
        match sent {
            Sent::Shared(payload) => payload,
            Sent::Copied(copies) => {
                Payload(copies.into_iter().map(|copy| copy.on(&self.device)).collect())
            }
        }
    }
}

impl<B: Backend> Link for DeviceLink<B> {
    type Payload = Payload<B>;

    fn isend(&mut self, message: &Message, payload: Payload<B>) -> Result<(), LinkError> {
        let sent = self.sent(payload, self.devices.get(message.to.index()));
        self.link.isend(message, sent)
    }

    fn irecv(&mut self, message: &Message) -> Result<(), LinkError> {
        self.link.irecv(message)
    }

    fn wait_isend(&mut self, message: &Message) -> Result<Poll<()>, LinkError> {
        self.link.wait_isend(message)
    }

    fn wait_irecv(&mut self, message: &Message) -> Result<Poll<Payload<B>>, LinkError> {
        let sent = self.link.wait_irecv(message)?;
        Ok(sent.map(|sent| self.arrived(sent)))
    }
}
