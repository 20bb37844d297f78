//! Links between ranks that are threads of one process: one inbox for each rank.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::Poll;

use dip_core::{Link, LinkError, Message, RankId};

/// The end of one rank: its own inbox, and the way to every other.
///
/// Sends never block, so no order of sends can deadlock. A rank that ends tells the others, so that none waits for it.
pub struct ChannelLink<P> {
    rank: usize,
    /// The way to each rank of this process.
    to: Vec<Option<Sender<Parcel<P>>>>,
    inbox: Receiver<Parcel<P>>,
    arrived: HashMap<Message, P>,
    /// For each rank, true if it has ended.
    gone: Vec<bool>,
}

/// The content of an inbox.
enum Parcel<P> {
    Message(Message, P),
    /// A rank has ended. It comes after all messages of that rank.
    Gone(usize),
}

/// A way into the inbox of a rank, for messages from other processes.
pub(super) struct Inlet<P>(Sender<Parcel<P>>);

impl<P> Inlet<P> {
    /// A rank that has ended needs no message.
    pub fn deliver(&self, message: Message, payload: P) {
        let _ = self.0.send(Parcel::Message(message, payload));
    }

    /// Tells the rank that another one has ended.
    pub fn gone(&self, rank: usize) {
        let _ = self.0.send(Parcel::Gone(rank));
    }
}

impl<P> ChannelLink<P> {
    /// Connects `ranks` ranks with each other, themselves included, for one iteration.
    pub fn mesh(ranks: usize) -> Vec<Self> {
        Self::among(ranks, &Vec::from_iter(0..ranks))
    }

    /// Connects those of `ranks` ranks that are in `hosted`. The others are in other processes.
    pub(super) fn among(ranks: usize, hosted: &[usize]) -> Vec<Self> {
        let mut to: Vec<_> = (0..ranks).map(|_| None).collect();
        let inboxes: Vec<_> = hosted
            .iter()
            .map(|&rank| {
                let (sender, inbox) = channel();
                to[rank] = Some(sender);
                (rank, inbox)
            })
            .collect();
        let link = |(rank, inbox)| Self {
            rank,
            to: to.clone(),
            inbox,
            arrived: HashMap::new(),
            gone: vec![false; ranks],
        };
        inboxes.into_iter().map(link).collect()
    }

    /// A way into the inbox of this rank.
    pub(super) fn inlet(&self) -> Inlet<P> {
        Inlet(self.to[self.rank].clone().expect("a rank has a way to itself"))
    }

    fn open(&mut self, parcel: Parcel<P>) {
        match parcel {
            Parcel::Message(message, payload) => drop(self.arrived.insert(message, payload)),
            Parcel::Gone(rank) => self.gone[rank] = true,
        }
    }

    /// Checks that a message that has not arrived can still come.
    fn check_peer(&self, message: &Message) -> Result<(), LinkError> {
        match self.gone.get(message.from.index()) {
            Some(false) => Ok(()),
            _ => Err(LinkError::PeerGone { peer: message.from }),
        }
    }
}

impl<P> Drop for ChannelLink<P> {
    fn drop(&mut self) {
        for to in self.to.iter().flatten() {
            // A rank that has ended needs no message.
            let _ = to.send(Parcel::Gone(self.rank));
        }
    }
}

impl<P> Link for ChannelLink<P> {
    type Payload = P;

    fn isend(&mut self, message: &Message, payload: P) -> Result<(), LinkError> {
        let gone = LinkError::PeerGone { peer: message.to };
        let sender = self.to.get(message.to.index()).and_then(Option::as_ref);
        let sender = sender.ok_or_else(|| gone.clone())?;
        sender.send(Parcel::Message(*message, payload)).map_err(|_| gone)
    }

    fn irecv(&mut self, _: &Message) -> Result<(), LinkError> {
        Ok(())
    }

    fn wait_isend(&mut self, _: &Message) -> Result<Poll<()>, LinkError> {
        Ok(Poll::Ready(()))
    }

    fn try_irecv(&mut self, message: &Message) -> Result<Poll<P>, LinkError> {
        while let Ok(parcel) = self.inbox.try_recv() {
            self.open(parcel);
        }
        match self.arrived.remove(message) {
            Some(payload) => Ok(Poll::Ready(payload)),
            None => self.check_peer(message).map(|()| Poll::Pending),
        }
    }

    fn wait_any(&mut self, messages: &[Message]) -> Result<(), LinkError> {
        while !messages.iter().any(|message| self.arrived.contains_key(message)) {
            messages.iter().try_for_each(|message| self.check_peer(message))?;
            // A rank has a way to itself, so its inbox never closes.
            match self.inbox.recv() {
                Ok(parcel) => self.open(parcel),
                Err(_) => return Err(LinkError::PeerGone { peer: RankId::from(self.rank) }),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dip_core::TaskId;

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
            let message = message(producer, from, 2);
            links[2].wait_any(&[message]).unwrap();
            assert_eq!(links[2].try_irecv(&message).unwrap(), Poll::Ready(text));
        }
    }

    #[test]
    fn a_message_that_has_not_arrived_is_pending() {
        let mut links = ChannelLink::mesh(2);
        assert_eq!(links[1].try_irecv(&message(1, 0, 1)).unwrap(), Poll::Pending);
        links[0].isend(&message(2, 0, 1), ()).unwrap();
        links[1].wait_any(&[message(1, 0, 1), message(2, 0, 1)]).unwrap();
        assert_eq!(links[1].try_irecv(&message(1, 0, 1)).unwrap(), Poll::Pending);
        assert_eq!(links[1].try_irecv(&message(2, 0, 1)).unwrap(), Poll::Ready(()));
    }

    #[test]
    fn waiting_for_a_rank_that_is_gone_is_an_error_after_its_last_message() {
        let mut links = ChannelLink::<()>::mesh(2);
        let mut peer = links.pop().unwrap();
        peer.isend(&message(1, 1, 0), ()).unwrap();
        drop(peer);
        links[0].wait_any(&[message(1, 1, 0)]).unwrap();
        assert_eq!(links[0].try_irecv(&message(1, 1, 0)).unwrap(), Poll::Ready(()));
        let error = links[0].wait_any(&[message(2, 1, 0)]).unwrap_err();
        assert_eq!(error, LinkError::PeerGone { peer: RankId(1) });
        assert!(links[0].isend(&message(1, 0, 1), ()).is_err());
    }
}
