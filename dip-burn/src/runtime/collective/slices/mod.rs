//! Buckets cut into a slice for each process, and the messages that carry slices.
//!
//! The concatenated tensors of a bucket are cut into slices of equal length, so a slice may end inside a tensor. A slice consists
//! of pieces, each a range of one tensor.

use std::ops::Range;

use burn::tensor::TensorData;

use super::{Layout, in_blocks};

/// Kind of a message with one member's part of a slice.
pub(super) const PART: u8 = 0;
/// Kind of a message with the sum of a slice over all members.
pub(super) const SUM: u8 = 1;
const ABSENT: u8 = 0;
const PRESENT: u8 = 1;
/// Kind, bucket, and number of pieces.
const HEADER_BYTES: usize = 1 + 8 + 8;
/// Presence of a piece, and its length.
const PIECE_BYTES: usize = 1 + 8;
const VALUE_BYTES: usize = size_of::<f32>();

/// The slices of all buckets; they are the same on all members.
pub(super) struct Slices {
    layout: Layout,
    /// By bucket and member.
    pieces: Vec<Vec<Vec<SlicePiece>>>,
}

/// Consecutive values of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SlicePiece {
    tensor: usize,
    values: Range<usize>,
}

/// A message that fits its slice.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SliceMessage {
    pub kind: u8,
    pub bucket: usize,
}

impl Slices {
    pub fn new(layout: Layout, members: usize) -> Self {
        let of_bucket =
            |lengths: &Vec<usize>| (0..members).map(|k| slice_of(lengths, k, members)).collect();
        Self { pieces: layout.iter().map(of_bucket).collect(), layout }
    }

    /// Length of the longest message, in bytes.
    pub fn max_message_bytes(&self) -> usize {
        self.pieces.iter().flatten().map(|pieces| message_bytes(pieces)).max().unwrap_or(0)
    }

    /// A member's slice of this member's part of a bucket, whose tensors are in f32.
    ///
    /// # Panics
    /// If the tensors have other lengths than the layout.
    pub fn part(&self, bucket: usize, member: usize, tensors: &[Option<TensorData>]) -> Vec<u8> {
        for (i, (tensor, &length)) in tensors.iter().zip(&self.layout[bucket]).enumerate() {
            let own = tensor.as_ref().map_or(length, TensorData::num_elements);
            assert!(
                own == length,
                "tensor {i} of bucket {bucket} has {own} values, but its parameter {length}"
            );
        }
        let of_piece = |piece: &SlicePiece| {
            let Range { start, end } = piece.values;
            let bytes = tensors[piece.tensor].as_ref()?.as_bytes();
            Some(&bytes[start * VALUE_BYTES..end * VALUE_BYTES])
        };
        let pieces = &self.pieces[bucket][member];
        let mut message = begin(PART, bucket, pieces);
        pieces.iter().for_each(|piece| push(&mut message, of_piece(piece)));
        message
    }

    /// The sum of the parts of a slice, each of a block of `2^level` replicas, in the order of replicas. [`Slices::read`] must have
    /// accepted all of them.
    pub fn sum<'a>(
        &self,
        bucket: usize,
        member: usize,
        parts: impl Iterator<Item = (u32, &'a Vec<u8>)>,
    ) -> Vec<u8> {
        let values = parts.map(|(level, part)| {
            let pieces = pieces_of(part).map(|piece| piece.map(|bytes| floats(bytes).collect()));
            (level, pieces.collect())
        });
        let add = |a: Vec<Option<Vec<f32>>>, b| a.into_iter().zip(b).map(add_piece).collect();
        let mut message = begin(SUM, bucket, &self.pieces[bucket][member]);
        for piece in in_blocks(values, add).unwrap_or_default() {
            let data = piece.map(|values| {
                let length = values.len();
                TensorData::new(values, [length])
            });
            push(&mut message, data.as_ref().map(TensorData::as_bytes));
        }
        message
    }

    /// The tensors of a bucket, joined from the sums of all its slices in the order of members. [`Slices::read`] must have accepted
    /// all of them.
    ///
    /// # Errors
    /// Names a tensor that only some slices contain.
    pub fn join(&self, bucket: usize, sums: &[Vec<u8>]) -> Result<Vec<Option<Vec<f32>>>, String> {
        let lengths = &self.layout[bucket];
        let mut tensors: Vec<Option<Vec<f32>>> = vec![None; lengths.len()];
        for (pieces, sum) in self.pieces[bucket].iter().zip(sums) {
            for (piece, bytes) in pieces.iter().zip(pieces_of(sum)) {
                let Some(bytes) = bytes else { continue };
                let empty = || Vec::with_capacity(lengths[piece.tensor]);
                tensors[piece.tensor].get_or_insert_with(empty).extend(floats(bytes));
            }
        }
        for (i, (tensor, &length)) in tensors.iter().zip(lengths).enumerate() {
            if let Some(short) = tensor.as_ref().map(Vec::len).filter(|&own| own != length) {
                return Err(format!(
                    "has sent a sum of bucket {bucket} whose slices differ: {short} of {length} values of tensor {i} are there"
                ));
            }
        }
        Ok(tensors)
    }

    /// Checks a message from one member to another, without allocating memory.
    ///
    /// # Errors
    /// Says what does not fit the slice.
    pub fn read(&self, bytes: &[u8], from: usize, to: usize) -> Result<SliceMessage, String> {
        let short = || "has sent a message that is cut short".to_owned();
        let mut rest = bytes;
        let kind = take(&mut rest, 1).ok_or_else(short)?[0];
        let bucket = take_number(&mut rest).ok_or_else(short)?;
        let count = take_number(&mut rest).ok_or_else(short)?;
        let member = match kind {
            PART => to,
            SUM => from,
            _ => return Err(format!("has sent neither a part nor a sum, but kind {kind}")),
        };
        let Some(members) = self.pieces.get(bucket) else {
            return Err(format!("has sent bucket {bucket}, but there are {}", self.pieces.len()));
        };
        let pieces = &members[member];
        if count != pieces.len() {
            let own = pieces.len();
            return Err(format!(
                "has sent {count} pieces of slice {member} of bucket {bucket}, which has {own}"
            ));
        }
        for piece in pieces {
            let (i, own) = (piece.tensor, piece.values.len());
            match take(&mut rest, 1).ok_or_else(short)?[0] {
                ABSENT => continue,
                PRESENT => {}
                mark => {
                    return Err(format!("has marked tensor {i} of bucket {bucket} with {mark}"));
                }
            }
            let length = take_number(&mut rest).ok_or_else(short)?;
            if length != own {
                return Err(format!(
                    "has sent {length} values of tensor {i} of bucket {bucket}, whose slice has {own}"
                ));
            }
            take(&mut rest, length.saturating_mul(VALUE_BYTES)).ok_or_else(short)?;
        }
        match rest.len() {
            0 => Ok(SliceMessage { kind, bucket }),
            more => Err(format!("has sent {more} bytes after bucket {bucket}")),
        }
    }
}

/// The pieces of slice `k` of `count`; none is empty.
fn slice_of(lengths: &[usize], k: usize, count: usize) -> Vec<SlicePiece> {
    let total: usize = lengths.iter().sum();
    let begin_of = |k: usize| total / count * k + (total % count).min(k);
    let (from, to) = (begin_of(k), begin_of(k + 1));
    let (mut pieces, mut begin) = (Vec::new(), 0);
    for (tensor, &length) in lengths.iter().enumerate() {
        let (first, last) = (from.max(begin), to.min(begin + length));
        if first < last {
            pieces.push(SlicePiece { tensor, values: first - begin..last - begin });
        }
        begin += length;
    }
    pieces
}

/// Adds two pieces; if only one of them exists, it is the sum.
fn add_piece((a, b): (Option<Vec<f32>>, Option<Vec<f32>>)) -> Option<Vec<f32>> {
    match (a, b) {
        (Some(mut a), Some(b)) => {
            a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
            Some(a)
        }
        (one, other) => one.or(other),
    }
}

/// Length of a message with all its pieces, in bytes.
fn message_bytes(pieces: &[SlicePiece]) -> usize {
    let of_piece = |piece: &SlicePiece| PIECE_BYTES + piece.values.len() * VALUE_BYTES;
    HEADER_BYTES + pieces.iter().map(of_piece).sum::<usize>()
}

/// A message with its header: kind, bucket, and number of pieces.
fn begin(kind: u8, bucket: usize, pieces: &[SlicePiece]) -> Vec<u8> {
    let mut message = Vec::with_capacity(message_bytes(pieces));
    message.push(kind);
    message.extend((bucket as u64).to_le_bytes());
    message.extend((pieces.len() as u64).to_le_bytes());
    message
}

/// Appends a piece to a message: its presence, its length, and its values in f32.
fn push(message: &mut Vec<u8>, values: Option<&[u8]>) {
    let Some(values) = values else { return message.push(ABSENT) };
    message.push(PRESENT);
    message.extend(((values.len() / VALUE_BYTES) as u64).to_le_bytes());
    message.extend_from_slice(values);
}

/// The values of the pieces of a message that [`Slices::read`] has accepted.
fn pieces_of(message: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let mut rest = message.get(HEADER_BYTES..).unwrap_or_default();
    std::iter::from_fn(move || {
        if take(&mut rest, 1)?[0] == ABSENT {
            return Some(None);
        }
        let length = take_number(&mut rest)?;
        take(&mut rest, length.checked_mul(VALUE_BYTES)?).map(Some)
    })
}

fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
    let (values, _) = bytes.as_chunks::<VALUE_BYTES>();
    values.iter().map(|value| f32::from_le_bytes(*value))
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
mod tests;
