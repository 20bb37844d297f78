//! Sums over nodes: each bucket has an owner that is sent the parts of all nodes and sends back their sum.
//!
//! Whole buckets take owners in turn. What a node sends and receives is even where a rank has many chunks of like size; with
//! fewer chunks than nodes some nodes own none. Parts of other nodes wait in the memory of the host, and the device has one
//! tensor of them at a time.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

use super::{Bucket, Layout, add_to};
use crate::runtime::nodes::NodeTransport;

const PART: u8 = 0;
const SUM: u8 = 1;
const ABSENT: u8 = 0;
const PRESENT: u8 = 1;
/// Kind, number of the bucket, number of tensors.
const HEADER_BYTES: usize = 1 + 8 + 8;

/// One rank of this node among the same ranks of the others.
pub(crate) struct Across<B: Backend> {
    pub transport: Arc<dyn NodeTransport>,
    rank: usize,
    /// Where sums over nodes are made.
    device: B::Device,
    layout: Layout,
    /// The parts of buckets that this node owns, by node.
    parts: HashMap<usize, Vec<Option<Part<B>>>>,
    /// Buckets whose owners have this node's part, and owe their sum.
    owed: HashSet<usize>,
}

/// What a node adds to a bucket.
enum Part<B: Backend> {
    Own(Bucket<B>),
    /// A message that has passed [`Message::read`].
    Remote(Vec<u8>),
}

impl<B: Backend> Across<B> {
    pub fn new(
        transport: Arc<dyn NodeTransport>,
        rank: usize,
        device: B::Device,
        layout: Layout,
    ) -> Self {
        let (parts, owed) = (HashMap::new(), HashSet::new());
        let across = Self { transport, rank, device, layout, parts, owed };
        let longest = across.layout.iter().map(|lengths| message_bytes(lengths)).max();
        across.transport.allow(across.channel(), longest.unwrap_or(0));
        across
    }

    /// The channel of this rank; the group of nodes has the first one.
    pub fn channel(&self) -> u32 {
        1 + self.rank as u32
    }

    /// Whether sums are not complete without what other nodes have not sent yet.
    pub fn is_waiting(&self) -> bool {
        !self.parts.is_empty() || !self.owed.is_empty()
    }

    /// The node that sums a bucket. Gradients and parameters of a chunk, two buckets, have the same.
    fn owner(&self, bucket: usize) -> usize {
        (bucket / 2 + self.rank) % self.transport.count()
    }

    /// Takes this node's own part of a bucket; gives the sum where it was the last that was missing.
    pub fn own(&mut self, bucket: usize, part: Bucket<B>) -> Option<(usize, Bucket<B>)> {
        let (own, owner) = (self.transport.number(), self.owner(bucket));
        if owner != own {
            self.owed.insert(bucket);
            self.transport.send(&[owner], self.channel(), encode(PART, bucket, part));
            return None;
        }
        self.add(own, bucket, Part::Own(part))
    }

    /// Takes what another node has sent; gives the sum of a bucket where it is complete.
    ///
    /// # Errors
    /// Where the message is none that a node of this run sends now; says what is wrong.
    pub fn received(
        &mut self,
        from: usize,
        bytes: Vec<u8>,
    ) -> Result<Option<(usize, Bucket<B>)>, String> {
        let Message { kind, bucket, body } = Message::read(&bytes, &self.layout)?;
        let owner = self.owner(bucket);
        match kind {
            PART if owner == self.transport.number() => {
                if self.parts.get(&bucket).is_some_and(|parts| parts[from].is_some()) {
                    return Err(format!("has sent its part of bucket {bucket} twice"));
                }
                Ok(self.add(from, bucket, Part::Remote(bytes)))
            }
            SUM if owner == from => {
                if !self.owed.remove(&bucket) {
                    return Err(format!(
                        "has sent the sum of bucket {bucket} before all parts of it"
                    ));
                }
                Ok(Some((bucket, tensors(body, &self.device).collect())))
            }
            _ => Err(format!("has mistaken the owner of bucket {bucket}, which is node {owner}")),
        }
    }

    fn add(&mut self, node: usize, bucket: usize, part: Part<B>) -> Option<(usize, Bucket<B>)> {
        let count = self.transport.count();
        let parts = self.parts.entry(bucket).or_insert_with(|| (0..count).map(|_| None).collect());
        parts[node] = Some(part);
        if parts.iter().any(Option::is_none) {
            return None;
        }
        let mut sum: Bucket<B> = vec![None; self.layout[bucket].len()];
        for part in self.parts.remove(&bucket).into_iter().flatten().flatten() {
            match part {
                Part::Own(part) => self.add_all(&mut sum, part.into_iter()),
                Part::Remote(bytes) => {
                    self.add_all(&mut sum, tensors(&bytes[HEADER_BYTES..], &self.device));
                }
            }
        }
        let own = self.transport.number();
        let others: Vec<usize> = (0..count).filter(|&to| to != own).collect();
        self.transport.send(&others, self.channel(), encode(SUM, bucket, sum.clone()));
        Some((bucket, sum))
    }

    fn add_all(&self, sum: &mut Bucket<B>, part: impl Iterator<Item = Option<Tensor<B, 1>>>) {
        sum.iter_mut().zip(part).for_each(|(sum, x)| add_to(sum, x, &self.device));
    }
}

/// A message that fits the layout.
struct Message<'a> {
    kind: u8,
    bucket: usize,
    /// Tensors, as [`encode`] writes them.
    body: &'a [u8],
}

impl<'a> Message<'a> {
    /// Looks through a message without taking any memory. An error says what does not fit.
    fn read(bytes: &'a [u8], layout: &Layout) -> Result<Self, String> {
        let cut = || "has sent a sum that is cut short".to_owned();
        let mut rest = bytes;
        let kind = take(&mut rest, 1).ok_or_else(cut)?[0];
        let bucket = take_number(&mut rest).ok_or_else(cut)?;
        let count = take_number(&mut rest).ok_or_else(cut)?;
        let Some(lengths) = layout.get(bucket) else {
            return Err(format!("has sent bucket {bucket}, but there are {}", layout.len()));
        };
        if count != lengths.len() {
            let own = lengths.len();
            return Err(format!("has sent {count} tensors of bucket {bucket}, which has {own}"));
        }
        let body = rest;
        for (i, &own) in lengths.iter().enumerate() {
            match take(&mut rest, 1).ok_or_else(cut)?[0] {
                ABSENT => continue,
                PRESENT => {}
                mark => {
                    return Err(format!("has marked tensor {i} of bucket {bucket} with {mark}"));
                }
            }
            let length = take_number(&mut rest).ok_or_else(cut)?;
            if length != own {
                return Err(format!(
                    "has sent {length} values of tensor {i} of bucket {bucket}, which has {own}"
                ));
            }
            take(&mut rest, length.saturating_mul(4)).ok_or_else(cut)?;
        }
        match rest.len() {
            0 => Ok(Self { kind, bucket, body }),
            more => Err(format!("has sent {more} bytes behind bucket {bucket}")),
        }
    }
}

/// The length of the message with all tensors of a bucket.
fn message_bytes(lengths: &[usize]) -> usize {
    lengths.iter().fold(HEADER_BYTES, |sum, length| {
        sum.saturating_add(length.saturating_mul(4)).saturating_add(1 + 8)
    })
}

/// Kind, number of the bucket, number of tensors, and each tensor: whether it is there, its length, its values in f32.
fn encode<B: Backend>(kind: u8, bucket: usize, tensors: Bucket<B>) -> Vec<u8> {
    let lengths: Vec<usize> = tensors.iter().flatten().map(|tensor| tensor.dims()[0]).collect();
    let mut bytes = Vec::with_capacity(message_bytes(&lengths) + tensors.len());
    bytes.push(kind);
    bytes.extend((bucket as u64).to_le_bytes());
    bytes.extend((tensors.len() as u64).to_le_bytes());
    for tensor in tensors {
        let Some(tensor) = tensor else {
            bytes.push(ABSENT);
            continue;
        };
        bytes.push(PRESENT);
        bytes.extend((tensor.dims()[0] as u64).to_le_bytes());
        bytes.extend_from_slice(tensor.into_data().convert::<f32>().as_bytes());
    }
    bytes
}

/// The tensors of a message that [`Message::read`] has passed, one at a time.
fn tensors<B: Backend>(
    mut body: &[u8],
    device: &B::Device,
) -> impl Iterator<Item = Option<Tensor<B, 1>>> {
    std::iter::from_fn(move || {
        if take(&mut body, 1)?[0] == ABSENT {
            return Some(None);
        }
        let length = take_number(&mut body)?;
        let values = take(&mut body, length.checked_mul(4)?)?.chunks_exact(4);
        let values: Vec<f32> =
            values.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        Some(Some(Tensor::from_data(TensorData::new(values, [length]), device)))
    })
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn take_number(bytes: &mut &[u8]) -> Option<usize> {
    let number = take(bytes, 8)?.try_into().ok()?;
    usize::try_from(u64::from_le_bytes(number)).ok()
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;

    fn message(kind: u8, bucket: usize, values: &[f32]) -> Vec<u8> {
        let tensor = Tensor::<Flex, 1>::from_floats(values, &Default::default());
        encode(kind, bucket, vec![Some(tensor), None])
    }

    #[test]
    fn buckets_come_back_bit_by_bit_and_cut_ones_do_not() {
        let layout = vec![vec![], vec![4, 7]];
        let values = [1.5f32, -0.0, f32::MIN_POSITIVE, 1e30];
        let bytes = message(SUM, 1, &values);
        let Message { kind, bucket, body } = Message::read(&bytes, &layout).unwrap();
        let found: Vec<_> = tensors::<Flex>(body, &Default::default()).collect();
        assert_eq!((kind, bucket, found.len()), (SUM, 1, 2));
        let found = found[0].clone().unwrap().into_data().to_vec::<f32>().unwrap();
        assert_eq!(found.map_bits(), values.to_vec().map_bits());
        for length in 0..bytes.len() {
            let error = Message::read(&bytes[..length], &layout).err().unwrap();
            assert!(error.contains("cut short"), "{length}: {error}");
        }
    }

    #[test]
    fn messages_that_do_not_fit_the_layout_are_named() {
        let layout = vec![vec![2, 3], vec![2]];
        let fails = |bytes: &[u8], part: &str| {
            let error = Message::read(bytes, &layout).err().unwrap();
            assert!(error.contains(part), "{error}");
        };
        for kind in [PART, SUM] {
            fails(&message(kind, 2, &[1.0, 2.0]), "bucket 2, but there are 2");
            fails(&message(kind, 1, &[1.0, 2.0]), "2 tensors of bucket 1, which has 1");
            fails(&message(kind, 0, &[1.0]), "1 values of tensor 0 of bucket 0, which has 2");
            fails(&message(kind, 0, &[1.0; 3]), "3 values of tensor 0 of bucket 0, which has 2");
            let good = message(kind, 0, &[1.0, 2.0]);
            fails(&[&good[..], &[0]].concat(), "1 bytes behind bucket 0");
            let mut marked = good.clone();
            marked[HEADER_BYTES] = 9;
            fails(&marked, "tensor 0 of bucket 0 with 9");
            let huge = [&[kind], &[0; 8][..], &u64::MAX.to_le_bytes()].concat();
            fails(&huge, "18446744073709551615 tensors of bucket 0");
        }
    }

    trait Bits {
        fn map_bits(self) -> Vec<u32>;
    }

    impl Bits for Vec<f32> {
        fn map_bits(self) -> Vec<u32> {
            self.into_iter().map(f32::to_bits).collect()
        }
    }
}
