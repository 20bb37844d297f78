//! The links of dip, with every message counted.

use std::io;
use std::task::Poll;

use dip::train::runtime::{DeviceLinks, LinkFactory, RankLink, ReplicaRanks};
use dip::train::stage::Payload;
use dip::train::{Backend, Link, LinkError, Message};

use crate::uses::Uses;

pub struct CountedLinks(pub Uses);

impl<B: Backend> LinkFactory<B> for CountedLinks {
    fn connect(&self, replica: &ReplicaRanks<'_, B>) -> io::Result<Vec<RankLink<B>>> {
        let counted = |inner| -> RankLink<B> { Box::new(Counted { inner, uses: self.0.clone() }) };
        Ok(DeviceLinks::default().connect(replica)?.into_iter().map(counted).collect())
    }
}

struct Counted<B: Backend> {
    inner: RankLink<B>,
    uses: Uses,
}

impl<B: Backend> Link for Counted<B> {
    type Payload = Payload<B>;

    fn isend(&mut self, message: &Message, payload: Payload<B>) -> Result<(), LinkError> {
        self.uses.add("link");
        self.inner.isend(message, payload)
    }

    fn irecv(&mut self, message: &Message) -> Result<(), LinkError> {
        self.inner.irecv(message)
    }

    fn wait_isend(&mut self, message: &Message) -> Result<Poll<()>, LinkError> {
        self.inner.wait_isend(message)
    }

    fn try_irecv(&mut self, message: &Message) -> Result<Poll<Payload<B>>, LinkError> {
        self.inner.try_irecv(message)
    }

    fn wait_any(&mut self, messages: &[Message]) -> Result<(), LinkError> {
        self.inner.wait_any(messages)
    }
}
