//! Matrices as bytes of a message. The values come first, and then what they are, so that reading copies them once.
//!
//! ```text
//! values of all matrices | for each matrix: type u32, rows u64, columns u64 | number of matrices u32 | key of the message
//! ```

use burn::tensor::{DType, TensorData, bf16, f16};

/// Type, rows and columns.
const SHAPE_BYTES: usize = 4 + 8 + 8;
/// Most matrices of a message.
const MAX_MATRICES: usize = 4096;

/// The message of `matrices`, which have two dimensions, with `key` at its end.
///
/// # Panics
/// If the values are no floats.
pub(crate) fn encode(matrices: &[TensorData], key: &[u8]) -> Vec<u8> {
    let values: usize = matrices.iter().map(|data| data.as_bytes().len()).sum();
    let mut bytes = Vec::with_capacity(values + matrices.len() * SHAPE_BYTES + 4 + key.len());
    matrices.iter().for_each(|data| bytes.extend_from_slice(data.as_bytes()));
    for data in matrices {
        let code: u32 = match data.dtype {
            DType::F32 => 0,
            DType::F16 => 1,
            DType::BF16 => 2,
            other => panic!("values of type {other:?} are not sent between processes"),
        };
        bytes.extend(code.to_le_bytes());
        let [rows, columns] = data.shape.dims();
        [rows, columns].iter().for_each(|&n: &usize| bytes.extend((n as u64).to_le_bytes()));
    }
    bytes.extend((matrices.len() as u32).to_le_bytes());
    bytes.extend_from_slice(key);
    bytes
}

/// The key at the end of a message.
pub(crate) fn key_of<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.last_chunk().copied()
}

/// The matrices of a message whose key has `key_bytes` bytes; `None` if its parts do not fit.
pub(crate) fn decode(bytes: &[u8], key_bytes: usize) -> Option<Vec<TensorData>> {
    let (rest, _) = bytes.split_at_checked(bytes.len().checked_sub(key_bytes)?)?;
    let (rest, count) = rest.split_last_chunk()?;
    let count = usize::try_from(u32::from_le_bytes(*count)).ok().filter(|&n| n <= MAX_MATRICES)?;
    let (mut values, shapes) =
        rest.split_at_checked(rest.len().checked_sub(count * SHAPE_BYTES)?)?;
    let mut matrices = Vec::with_capacity(count);
    for shape in shapes.chunks_exact(SHAPE_BYTES) {
        let (code, sides) = shape.split_first_chunk()?;
        let code = u32::from_le_bytes(*code);
        let ([rows, columns], _) = sides.as_chunks() else { return None };
        let [rows, columns] = [rows, columns].map(|n| usize::try_from(u64::from_le_bytes(*n)).ok());
        let shape = [rows?, columns?];
        let count = shape[0].checked_mul(shape[1])?;
        let own;
        (own, values) =
            values.split_at_checked(count.checked_mul(if code == 0 { 4 } else { 2 })?)?;
        matrices.push(match code {
            0 => TensorData::new(
                own.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect::<Vec<_>>(),
                shape,
            ),
            1 => TensorData::new(
                own.as_chunks().0.iter().map(|x| f16::from_le_bytes(*x)).collect::<Vec<_>>(),
                shape,
            ),
            2 => TensorData::new(
                own.as_chunks().0.iter().map(|x| bf16::from_le_bytes(*x)).collect::<Vec<_>>(),
                shape,
            ),
            _ => return None,
        });
    }
    values.is_empty().then_some(matrices)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_survive_a_message_and_damage_is_refused() {
        let matrices = [
            TensorData::new(vec![1.5f32, -0.0, f32::NAN, 4.0, 5.0, 6.0], [2, 3]),
            TensorData::new(vec![f16::from_f32(0.1)], [1, 1]),
            TensorData::new(vec![bf16::from_f32(0.1); 4], [4, 1]),
        ];
        let bytes = encode(&matrices, b"key");
        assert_eq!(key_of(&bytes), Some(*b"key"));
        let found = decode(&bytes, 3).unwrap();
        for (a, b) in matrices.iter().zip(&found) {
            assert_eq!((a.as_bytes(), &a.shape, a.dtype), (b.as_bytes(), &b.shape, b.dtype));
        }
        assert_eq!(decode(&encode(&[], b""), 0), Some(vec![]));
        for length in 0..bytes.len() {
            assert!(decode(&bytes[bytes.len() - length..], 3).is_none(), "{length}");
        }
        for at in bytes.len() - 3 - 4 - 3 * SHAPE_BYTES..bytes.len() - 3 {
            let mut broken = bytes.clone();
            broken[at] ^= 0x40;
            assert!(decode(&broken, 3).is_none(), "{at}");
        }
    }
}
