//! The format of the messages between two nodes.
//!
//! A connection begins with a [`Hello`], which the other end answers once with an [`Answer`]. Frames follow: parts of messages,
//! heartbeats, and at the end a goodbye. A message is cut into parts, since the receiving end takes no frame above 16 MiB.

use serde::{Deserialize, Serialize};

use crate::runtime::group::quoted;

/// Name and version of this protocol.
pub(super) const PROTOCOL: &str = "dip.nodes/v1";
/// Most payload of a frame.
const PART_BYTES: usize = 4 << 20;
/// Bytes of the kind, the channel, and the mark of the last part.
const HEADER_BYTES: usize = 6;
/// Longest answer that is read, in bytes.
const ANSWER_BYTES: usize = 1 << 16;
/// Longest text of another node that is shown, in characters.
const QUOTED: usize = 2000;

const ALIVE: u8 = 0;
const PART: u8 = 1;
const GOODBYE: u8 = 2;

/// The first message of a connection, from the node that opens it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hello {
    pub protocol: String,
    pub node: usize,
    pub addresses: Vec<String>,
    /// A random number of the process, which tells it from an earlier process of the same node.
    pub life: u64,
}

/// The fields of a hello in every version of the protocol.
#[derive(Deserialize)]
pub(super) struct AnyHello {
    pub protocol: String,
    pub node: usize,
}

/// The answer to a [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// The node takes messages from now on.
    Welcome {
        /// [`Hello::life`] of the process that answers.
        life: u64,
    },
    /// Not now; the text says why.
    Later(String),
    /// The two nodes belong to different runs; the text says why.
    Never(String),
}

impl Answer {
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data has a JSON form")
    }

    /// Reads an answer; `None` if it is not the answer of a node. Its text is safe to print.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > ANSWER_BYTES {
            return None;
        }
        Some(match serde_json::from_slice(bytes).ok()? {
            Self::Later(what) => Self::Later(quoted(&what, QUOTED)),
            Self::Never(what) => Self::Never(quoted(&what, QUOTED)),
            welcome => welcome,
        })
    }
}

/// The content of a frame from another node.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// Part of a message that is not complete yet, or a heartbeat.
    Nothing,
    Message {
        channel: u32,
        bytes: Vec<u8>,
    },
    /// The node ends; with an error if the text is not empty.
    Goodbye(String),
}

/// A heartbeat.
pub(super) fn alive() -> Vec<u8> {
    vec![ALIVE]
}

/// The last message of a node.
pub(super) fn goodbye(error: &str) -> Vec<u8> {
    [&[GOODBYE], quoted(error, QUOTED).as_bytes()].concat()
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
    channel: Option<u32>,
    bytes: Vec<u8>,
}

impl Assembly {
    /// Takes a frame; `most` returns the longest message of a channel, in bytes. The parts of two messages never mix. The error
    /// says what is wrong with the frame.
    pub fn take(
        &mut self,
        frame: &[u8],
        most: impl FnOnce(u32) -> usize,
    ) -> Result<Incoming, String> {
        match frame {
            [ALIVE] => Ok(Incoming::Nothing),
            [GOODBYE, error @ ..] => {
                let error = &error[..error.len().min(4 * QUOTED)];
                Ok(Incoming::Goodbye(quoted(&String::from_utf8_lossy(error), QUOTED)))
            }
            [PART, a, b, c, d, last, payload @ ..] => {
                let channel = u32::from_le_bytes([*a, *b, *c, *d]);
                if self.channel.is_some_and(|begun| begun != channel) {
                    return Err("has sent parts of two messages at once".into());
                }
                let most = most(channel);
                if self.bytes.len() + payload.len() > most {
                    return Err(format!(
                        "has sent a message of more than {most} bytes, the most that channel {channel} takes"
                    ));
                }
                self.bytes.extend(payload);
                if *last == 0 {
                    self.channel = Some(channel);
                    return Ok(Incoming::Nothing);
                }
                self.channel = None;
                Ok(Incoming::Message { channel, bytes: std::mem::take(&mut self.bytes) })
            }
            _ => Err("has sent a frame of no known kind".into()),
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
            let mut take = |frame: &[u8]| assembly.take(frame, |_| size);
            let frames: Vec<_> = parts(3, &message).collect();
            assert_eq!(frames.len(), size.div_ceil(PART_BYTES).max(1));
            let (last, first) = frames.split_last().unwrap();
            assert!(first.iter().all(|f| take(f) == Ok(Incoming::Nothing)));
            assert_eq!(take(&alive()), Ok(Incoming::Nothing));
            let whole = Incoming::Message { channel: 3, bytes: message };
            assert!(take(last) == Ok(whole), "{size} bytes");
        }
        let end = assembly.take(&goodbye("why\n\x1b[2J"), |_| 0);
        assert_eq!(end, Ok(Incoming::Goodbye("why  [2J".into())));
    }

    #[test]
    fn frames_that_no_node_sends_are_refused() {
        for frame in [&[] as &[u8], &[PART, 0, 0], &[ALIVE, 1], &[9; 40]] {
            assert!(Assembly::default().take(frame, |_| 100).is_err(), "{frame:?}");
        }
        let mut assembly = Assembly::default();
        let part = |channel| [PART, channel, 0, 0, 0, 0, 1, 2, 3];
        assert_eq!(assembly.take(&part(1), |_| 5), Ok(Incoming::Nothing));
        assert!(assembly.take(&part(2), |_| 9).unwrap_err().contains("two messages"));
        assert!(assembly.take(&part(1), |_| 5).unwrap_err().contains("more than 5 bytes"));
    }

    #[test]
    fn answers_are_safe_to_print_and_malformed_ones_are_refused() {
        let long = Answer::Later("\u{7}é".repeat(3000));
        assert_eq!(Answer::read(&long.to_bytes()), Some(Answer::Later(" é".repeat(1000))));
        let welcome = Answer::Welcome { life: u64::MAX };
        assert_eq!(Answer::read(&welcome.to_bytes()), Some(welcome));
        let huge = Answer::Never("x".repeat(1 << 17)).to_bytes();
        for bytes in [b"" as &[u8], b"{}", b"\"welcome\"", &huge] {
            assert_eq!(Answer::read(bytes), None);
        }
    }
}
