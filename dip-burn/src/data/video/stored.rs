//! Stored latents of an autoencoder: a safetensors file with a tensor `latents`, of `F32`, `F16` or `BF16`, or a NumPy file.
//!
//! Where tokens are patches of latents, as in Wan, the shape is `[channels, frames, rows, columns]`, with or without a dimension of 1
//! before it. Otherwise latents are tokens, `[frames, rows, columns, values]`.

use safetensors::tensor::SafeTensors;

use super::channels::{ChannelLatents, LatentStatistics};
use super::error::VideoError;
use super::grid::{LatentShape, Latents};
use super::npy;
use crate::batch::ClipGrid;
use crate::floats::floats;

const NAME: &str = "latents";

/// The tokens of stored latents, at most `most` latent frames; latents of channels are normalised if there are statistics.
pub(super) fn latents(
    bytes: &[u8],
    shape: &LatentShape,
    most: u32,
    statistics: Option<&LatentStatistics>,
) -> Result<Latents, VideoError> {
    let (sides, values) = if npy::is_npy(bytes) { npy::read(bytes)? } else { tensor(bytes)? };
    if !values.iter().all(|v| v.is_finite()) {
        return Err(VideoError::broken(format!("{NAME:?} has values that are not finite")));
    }
    match shape.patch {
        Some(_) => of_channels(sides, values, statistics)?.tokens(shape, most),
        None => of_tokens(&sides, values, shape, most),
    }
}

fn tensor(bytes: &[u8]) -> Result<(Vec<usize>, Vec<f32>), VideoError> {
    let file = SafeTensors::deserialize(bytes).map_err(VideoError::broken)?;
    let view = file.tensor(NAME);
    let view = view.map_err(|e| VideoError::broken(format!("tensor {NAME:?}: {e}")))?;
    let values = floats(view.data(), view.dtype()).ok_or_else(|| {
        let dtype = view.dtype();
        VideoError::broken(format!("{NAME:?} is {dtype:?}, but F32, F16 or BF16 is read"))
    })?;
    Ok((view.shape().to_vec(), values))
}

fn of_channels(
    sides: Vec<usize>,
    values: Vec<f32>,
    statistics: Option<&LatentStatistics>,
) -> Result<ChannelLatents, VideoError> {
    let sides = match sides[..] {
        [channels, frames, rows, columns] | [1, channels, frames, rows, columns] => {
            [channels, frames, rows, columns]
        }
        _ => {
            let what =
                format!("the shape is {sides:?}, but must be [channels, frames, rows, columns]");
            return Err(VideoError::broken(what));
        }
    };
    let mut latents = ChannelLatents { sides, values };
    if let Some(statistics) = statistics {
        latents.normalise(statistics);
    }
    Ok(latents)
}

fn of_tokens(
    sides: &[usize],
    mut values: Vec<f32>,
    shape: &LatentShape,
    most: u32,
) -> Result<Latents, VideoError> {
    let wrong = || VideoError::Shape {
        found: sides.to_vec(),
        values: shape.values,
        tokens: shape.tokens_per_frame,
    };
    let &[frames, rows, columns, of_token] = sides else { return Err(wrong()) };
    let side = |n: usize| u32::try_from(n).ok().filter(|&n| n > 0).ok_or_else(wrong);
    let (frames, rows, columns) = (side(frames)?, side(rows)?, side(columns)?);
    let fits = rows.checked_mul(columns).is_some_and(|n| n <= shape.tokens_per_frame);
    if of_token != shape.values as usize || !fits {
        return Err(wrong());
    }
    let grid = ClipGrid { frames: frames.min(most), rows, columns };
    values.truncate(grid.tokens() * shape.values as usize);
    Ok(Latents { grid, values })
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::{Dtype, TensorView};

    const SHAPE: LatentShape =
        LatentShape { frames_per_second: 2.0, tokens_per_frame: 4, values: 2, patch: None };

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
            let latents = latents(&file(dtype, &[2, 1, 1, 2], data), &SHAPE, 9, None).unwrap();
            assert_eq!(latents.values, expected, "{dtype:?}");
            assert_eq!(latents.grid, ClipGrid { frames: 2, rows: 1, columns: 1 });
        }
        assert_eq!(
            latents(&file(Dtype::F32, &[2, 1, 1, 2], &f32s), &SHAPE, 1, None).unwrap().values.len(),
            2
        );
    }

    #[test]
    fn other_shapes_and_infinite_values_are_refused() {
        let zeros = [0u8; 80];
        for shape in [&[2, 1, 1, 10][..], &[10, 2], &[1, 5, 2, 2], &[0, 1, 1, 2]] {
            let bytes = 4 * shape.iter().product::<usize>();
            let error =
                latents(&file(Dtype::F32, shape, &zeros[..bytes]), &SHAPE, 9, None).unwrap_err();
            assert!(error.to_string().contains("[frames, rows, columns, 2]"), "{error}");
        }
        let nan: Vec<u8> = [f32::NAN, 0.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert!(latents(&file(Dtype::F32, &[1, 1, 1, 2], &nan), &SHAPE, 9, None).is_err());
        assert!(latents(b"nothing", &SHAPE, 9, None).is_err());
    }

    #[test]
    fn latents_of_channels_are_cut_into_patches_and_normalised() {
        let shape = LatentShape { values: 8, patch: Some([1, 2, 2]), ..SHAPE };
        let numbers: Vec<u8> = (0..16).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let statistics = LatentStatistics { mean: vec![0.0, 8.0], deviation: vec![1.0, 2.0] };
        for sides in [&[2, 1, 2, 4][..], &[1, 2, 1, 2, 4]] {
            let bytes = file(Dtype::F32, sides, &numbers);
            let raw = latents(&bytes, &shape, 9, None).unwrap();
            assert_eq!(raw.grid, ClipGrid { frames: 1, rows: 1, columns: 2 });
            assert_eq!(raw.values[..8], [0.0, 1.0, 4.0, 5.0, 8.0, 9.0, 12.0, 13.0]);
            let normal = latents(&bytes, &shape, 9, Some(&statistics)).unwrap();
            assert_eq!(normal.values[..8], [0.0, 1.0, 4.0, 5.0, 0.0, 0.5, 2.0, 2.5]);
        }
        for sides in [&[2, 1, 1, 8][..], &[2, 2, 1, 2, 2], &[16], &[]] {
            let count = sides.iter().product::<usize>();
            let bytes = file(Dtype::F32, sides, &numbers[..4 * count]);
            assert!(latents(&bytes, &shape, 9, None).is_err(), "{sides:?}");
        }
    }
}
