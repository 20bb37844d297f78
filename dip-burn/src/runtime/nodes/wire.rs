//! What stands in the messages between two nodes.
//!
//! A connection begins with a [`Hello`]. Frames follow: parts of messages, signs of life, and at the end a goodbye. A message is
//! cut into parts, since the receiving end takes no frame above 16 MiB.

use serde::{Deserialize, Serialize};

/// Name and version of this protocol.
pub(super) const PROTOCOL: &str = "dip.nodes/v1";
/// Most payload of a frame.
const PART_BYTES: usize = 4 << 20;
/// Largest message: far above the weights and moments of any model that fits a machine.
const MAX_MESSAGE_BYTES: usize = 1 << 40;
/// Kind, channel, and whether it is the last part.
const HEADER_BYTES: usize = 6;

const ALIVE: u8 = 0;
const PART: u8 = 1;
const GOODBYE: u8 = 2;

/// Who opens a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hello {
    pub protocol: String,
    pub node: usize,
    pub addresses: Vec<String>,
}

/// What a node is told by another.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// Part of a message that is not whole yet, or a sign of life.
    Nothing,
    Message {
        channel: u32,
        bytes: Vec<u8>,
    },
    /// The node ends; with an error where there is a text.
    Goodbye(String),
}

/// A sign of life.
pub(super) fn alive() -> Vec<u8> {
    vec![ALIVE]
}

/// The end of a node.
pub(super) fn goodbye(error: &str) -> Vec<u8> {
    [&[GOODBYE], error.as_bytes()].concat()
}

/// The frames of a message.
pub(super) fn parts(channel: u32, bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let count = bytes.len().div_ceil(PART_BYTES).max(1);
    (0..count).map(move |i| {
        let payload = &bytes[i * PART_BYTES..bytes.len().min((i + 1) * PART_BYTES)];
        let mut frame = Vec::with_capacity(HEADER_BYTES + payload.len());
        frame.push(PART);
        frame.extend(channel.to_le_bytes());
        frame.push(u8::from(i + 1 == count));
        frame.extend(payload);
        frame
    })
}

/// Joins the frames of one connection.
#[derive(Default)]
pub(super) struct Assembly {
    bytes: Vec<u8>,
}

impl Assembly {
    /// Takes a frame. The parts of two messages never mix. An error says what is wrong with the frame.
    pub fn take(&mut self, frame: &[u8]) -> Result<Incoming, &'static str> {
        match frame {
            [ALIVE] => Ok(Incoming::Nothing),
            [GOODBYE, error @ ..] => {
                Ok(Incoming::Goodbye(String::from_utf8_lossy(error).into_owned()))
            }
            [PART, a, b, c, d, last, payload @ ..] => {
                if self.bytes.len() + payload.len() > MAX_MESSAGE_BYTES {
                    return Err("has sent a message above 1 TiB");
                }
                self.bytes.extend(payload);
                if *last == 0 {
                    return Ok(Incoming::Nothing);
                }
                let channel = u32::from_le_bytes([*a, *b, *c, *d]);
                Ok(Incoming::Message { channel, bytes: std::mem::take(&mut self.bytes) })
            }
            _ => Err("has sent a frame of no known kind"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_any_size_come_back_whole() {
        let mut assembly = Assembly::default();
        for size in [0, 1, PART_BYTES, 2 * PART_BYTES + 7] {
            let message: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            let frames: Vec<_> = parts(3, &message).collect();
            assert_eq!(frames.len(), size.div_ceil(PART_BYTES).max(1));
            let (last, first) = frames.split_last().unwrap();
            assert!(first.iter().all(|f| assembly.take(f) == Ok(Incoming::Nothing)));
            assert_eq!(assembly.take(&alive()), Ok(Incoming::Nothing));
            let whole = Incoming::Message { channel: 3, bytes: message };
            assert!(assembly.take(last) == Ok(whole), "{size} bytes");
        }
        assert_eq!(assembly.take(&goodbye("why")), Ok(Incoming::Goodbye("why".into())));
    }

    #[test]
    fn frames_that_no_node_sends_are_refused() {
        for frame in [&[] as &[u8], &[PART, 0, 0], &[ALIVE, 1], &[9; 40]] {
            assert!(Assembly::default().take(frame).is_err(), "{frame:?}");
        }
    }
}
