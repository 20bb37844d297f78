//! Links between ranks that are threads of one process: a channel for each pair of ranks.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::Poll;

use dip_core::{Link, LinkError, Message};

/// The end of one rank: a channel to and from every other.
///
/// Sends never block, so no order of sends can deadlock. A rank that ends closes its channels, which tells the ranks that wait
/// for it.
pub struct ChannelLink<P> {
    to: Vec<Sender<(Message, P)>>,
    from: Vec<Receiver<(Message, P)>>,
    /// Messages that arrived before this rank waited for them.
    early: HashMap<Message, P>,
}

impl<P> ChannelLink<P> {
    /// Connects `ranks` ranks with each other, themselves included, for one iteration.
    pub fn mesh(ranks: usize) -> Vec<Self> {
        let mut links: Vec<Self> = (0..ranks)
            .map(|_| Self { to: Vec::new(), from: Vec::new(), early: HashMap::new() })
            .collect();
        for sender in 0..ranks {
            for receiver in 0..ranks {
                let (to, from) = channel();
                links[sender].to.push(to);
                links[receiver].from.push(from);
            }
        }
        links
    }
}

impl<P> Link for ChannelLink<P> {
    type Payload = P;

    fn isend(&mut self, message: &Message, payload: P) -> Result<(), LinkError> {
        let gone = LinkError::PeerGone { peer: message.to };
        let sender = self.to.get(message.to.index()).ok_or_else(|| gone.clone())?;
        sender.send((*message, payload)).map_err(|_| gone)
    }

    fn irecv(&mut self, _: &Message) -> Result<(), LinkError> {
        Ok(())
    }

    fn wait_isend(&mut self, _: &Message) -> Result<Poll<()>, LinkError> {
        Ok(Poll::Ready(()))
    }

    fn wait_irecv(&mut self, message: &Message) -> Result<Poll<P>, LinkError> {
        let gone = LinkError::PeerGone { peer: message.from };
        loop {
            if let Some(payload) = self.early.remove(message) {
                return Ok(Poll::Ready(payload));
            }
            let receiver = self.from.get(message.from.index()).ok_or_else(|| gone.clone())?;
            let (other, payload) = receiver.recv().map_err(|_| gone.clone())?;
            self.early.insert(other, payload);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dip_core::{RankId, TaskId};

    fn message(producer: u32, from: u32, to: u32) -> Message {
        Message {
            producer: TaskId(producer),
            consumer: TaskId(100),
            from: RankId(from),
            to: RankId(to),
        }
    }

    #[test]
    fn messages_are_matched_in_any_order_of_sending() {
        let mut links = ChannelLink::mesh(3);
        links[0].isend(&message(1, 0, 2), "one").unwrap();
        links[0].isend(&message(2, 0, 2), "two").unwrap();
        links[1].isend(&message(3, 1, 2), "three").unwrap();
        for (producer, from, text) in [(3, 1, "three"), (2, 0, "two"), (1, 0, "one")] {
            let got = links[2].wait_irecv(&message(producer, from, 2)).unwrap();
            assert_eq!(got, Poll::Ready(text));
        }
    }

    #[test]
    fn waiting_for_a_rank_that_is_gone_is_an_error() {
        let mut links = ChannelLink::<()>::mesh(2);
        drop(links.pop());
        let error = links[0].wait_irecv(&message(1, 1, 0)).unwrap_err();
        assert_eq!(error, LinkError::PeerGone { peer: RankId(1) });
        assert!(links[0].isend(&message(1, 0, 1), ()).is_err());
    }
}
