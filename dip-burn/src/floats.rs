//! Floats of safetensors files.

use burn::tensor::{bf16, f16};
use safetensors::tensor::Dtype;

/// Little-endian values as f32; `None` for types other than F32, F16 and BF16.
pub(crate) fn floats(bytes: &[u8], dtype: Dtype) -> Option<Vec<f32>> {
    let pairs = || bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
    Some(match dtype {
        Dtype::F32 => {
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        }
        Dtype::F16 => pairs().map(|b| f16::from_le_bytes(b).to_f32()).collect(),
        Dtype::BF16 => pairs().map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_widened_exactly() {
        let numbers = [0.0f32, 1.0, -2.5, 0.099_975_586];
        let halves: Vec<u8> =
            numbers.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect();
        assert_eq!(floats(&halves, Dtype::F16).unwrap(), numbers);
        let brains: Vec<u8> = [0x3f80u16, 0xc020].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(floats(&brains, Dtype::BF16).unwrap(), [1.0, -2.5]);
        assert_eq!(floats(&[0; 4], Dtype::I32), None);
    }
}
