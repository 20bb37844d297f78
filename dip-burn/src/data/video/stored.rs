//! Stored latents of an autoencoder: a safetensors file with a tensor `latents`, `[frames, rows, columns, values]`,
//! of `F32`, `F16` or `BF16`.

use safetensors::tensor::SafeTensors;

use super::VideoError;
use super::grid::{LatentShape, Latents};
use crate::batch::ClipGrid;
use crate::floats::floats;

const NAME: &str = "latents";

pub(super) fn latents(bytes: &[u8], shape: &LatentShape, most: u32) -> Result<Latents, VideoError> {
    let broken = |what: String| VideoError::broken(what);
    let file = SafeTensors::deserialize(bytes).map_err(VideoError::broken)?;
    let view = file.tensor(NAME).map_err(|e| broken(format!("tensor {NAME:?}: {e}")))?;
    let wrong = || VideoError::Shape {
        found: view.shape().to_vec(),
        values: shape.values,
        tokens: shape.tokens_per_frame,
    };
    let &[frames, rows, columns, values] = view.shape() else { return Err(wrong()) };
    let side = |n: usize| u32::try_from(n).ok().filter(|&n| n > 0).ok_or_else(wrong);
    let (frames, rows, columns) = (side(frames)?, side(rows)?, side(columns)?);
    let fits = rows.checked_mul(columns).is_some_and(|n| n <= shape.tokens_per_frame);
    if values != shape.values as usize || !fits {
        return Err(wrong());
    }
    let grid = ClipGrid { frames: frames.min(most), rows, columns };
    let mut values = floats(view.data(), view.dtype()).ok_or_else(|| {
        broken(format!("{NAME:?} is {:?}, but F32, F16 or BF16 is read", view.dtype()))
    })?;
    values.truncate(grid.tokens() * shape.values as usize);
    if !values.iter().all(|v| v.is_finite()) {
        return Err(broken(format!("{NAME:?} has values that are not finite")));
    }
    Ok(Latents { grid, values })
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::{Dtype, TensorView};

    const SHAPE: LatentShape =
        LatentShape { frames_per_second: 2.0, tokens_per_frame: 4, values: 2 };

    fn file(dtype: Dtype, shape: &[usize], data: &[u8]) -> Vec<u8> {
        let view = TensorView::new(dtype, shape.to_vec(), data).unwrap();
        safetensors::serialize([(NAME, view)], None).unwrap()
    }

    #[test]
    fn every_dtype_is_read() {
        let expected = vec![1.0, -0.5, 3.0, 0.0];
        let f32s: Vec<u8> = [1.0f32, -0.5, 3.0, 0.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let bf16s = [0x80, 0x3f, 0x00, 0xbf, 0x40, 0x40, 0, 0];
        let f16s = [0x00, 0x3c, 0x00, 0xb8, 0x00, 0x42, 0, 0];
        for (dtype, data) in [(Dtype::F32, &f32s[..]), (Dtype::BF16, &bf16s), (Dtype::F16, &f16s)] {
            let latents = latents(&file(dtype, &[2, 1, 1, 2], data), &SHAPE, 9).unwrap();
            assert_eq!(latents.values, expected, "{dtype:?}");
            assert_eq!(latents.grid, ClipGrid { frames: 2, rows: 1, columns: 1 });
        }
        assert_eq!(
            latents(&file(Dtype::F32, &[2, 1, 1, 2], &f32s), &SHAPE, 1).unwrap().values.len(),
            2
        );
    }

    #[test]
    fn other_shapes_and_infinite_values_are_refused() {
        let zeros = [0u8; 80];
        for shape in [&[2, 1, 1, 10][..], &[10, 2], &[1, 5, 2, 2], &[0, 1, 1, 2]] {
            let bytes = 4 * shape.iter().product::<usize>();
            let error = latents(&file(Dtype::F32, shape, &zeros[..bytes]), &SHAPE, 9).unwrap_err();
            assert!(error.to_string().contains("[frames, rows, columns, 2]"), "{error}");
        }
        let nan: Vec<u8> = [f32::NAN, 0.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert!(latents(&file(Dtype::F32, &[1, 1, 1, 2], &nan), &SHAPE, 9).is_err());
        assert!(latents(b"nothing", &SHAPE, 9).is_err());
    }
}
