//! Converts frames to tokens and back.

use dip_core::ModelSpec;
use image::{Rgb, RgbImage};

use crate::batch::ClipGrid;

/// The format in which a model represents clips as tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatentShape {
    /// Latent frames per second.
    pub frames_per_second: f64,
    /// Most tokens of one frame.
    pub tokens_per_frame: u32,
    /// Values of a token.
    pub values: u32,
    /// Latent frames, rows and columns of a token of an autoencoder's latents; absent where frames, or stored latents, are tokens.
    pub patch: Option<[u32; 3]>,
}

/// The tokens of one clip.
#[derive(Debug, Clone, PartialEq)]
pub struct Latents {
    /// Tokens along each axis.
    pub grid: ClipGrid,
    /// Their values, token by token; pixels are ordered by colour, row and column of the patch, in -1..=1. Latents are ordered by
    /// channel, frame, row and column of the patch.
    pub values: Vec<f32>,
}

impl LatentShape {
    /// The shape for the diffusion transformer of a model; `None` if it has none.
    pub fn of(model: &ModelSpec) -> Option<Self> {
        model.video().map(|video| Self {
            frames_per_second: video.latent_frames_per_second,
            tokens_per_frame: video.tokens_per_frame,
            values: video.token_channels,
            patch: video.wan.map(|wan| wan.patch),
        })
    }

    /// Side of the square patch of pixels in a token; `None` if tokens do not hold pixels.
    pub fn patch_px(&self) -> Option<u32> {
        if self.patch.is_some() {
            return None;
        }
        let side = (self.values / 3).isqrt();
        (side > 0 && 3 * side * side == self.values).then_some(side)
    }

    /// Latent frames of a video, rounded up; at least one.
    pub fn frames(&self, seconds: f64) -> u32 {
        (seconds * self.frames_per_second - 1e-6).ceil().clamp(1.0, f64::from(u32::MAX)) as u32
    }

    /// Length of `frames` latent frames.
    pub fn seconds(&self, frames: u32) -> f64 {
        f64::from(frames) / self.frames_per_second
    }

    /// The tokens of frames of `(width, height)` pixels: their whole patches, scaled down to the model's limit with the same
    /// proportion.
    pub fn grid(&self, (width, height): (u32, u32), frames: u32, patch_px: u32) -> ClipGrid {
        let (most, patch) = (f64::from(self.tokens_per_frame), f64::from(patch_px));
        let (columns, rows) = (f64::from(width) / patch, f64::from(height) / patch);
        let scale = (most / (columns.floor().max(1.0) * rows.floor().max(1.0))).sqrt().min(1.0);
        let whole = |count: f64| (count * scale).floor().clamp(1.0, most) as u32;
        let rows = whole(rows);
        let columns = whole(columns).min(self.tokens_per_frame / rows);
        ClipGrid { frames, rows, columns }
    }
}

impl Latents {
    /// The tokens of frames whose sides are whole patches.
    pub(super) fn of_frames(frames: &[RgbImage], grid: ClipGrid, patch_px: u32) -> Self {
        let mut values = Vec::with_capacity(grid.tokens() * 3 * (patch_px * patch_px) as usize);
        for [frame, row, column] in grid.places() {
            let frame = &frames[frame as usize];
            for colour in 0..3 {
                for i in 0..patch_px * patch_px {
                    let (x, y) = (column * patch_px + i % patch_px, row * patch_px + i / patch_px);
                    values.push(f32::from(frame.get_pixel(x, y).0[colour]) / 127.5 - 1.0);
                }
            }
        }
        Self { grid, values }
    }

    /// The frames of tokens that are patches of pixels.
    pub fn frames(&self, patch_px: u32) -> Vec<RgbImage> {
        let (width, height) = (self.grid.columns * patch_px, self.grid.rows * patch_px);
        let mut frames = vec![RgbImage::new(width, height); self.grid.frames as usize];
        let area = (patch_px * patch_px) as usize;
        for ([frame, row, column], patch) in self.grid.places().zip(self.values.chunks(3 * area)) {
            for i in 0..area {
                let (x, y) = (i as u32 % patch_px, i as u32 / patch_px);
                let byte = |v: f32| ((v + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8;
                let pixel = Rgb([0, 1, 2].map(|colour| byte(patch[colour * area + i])));
                let at = (column * patch_px + x, row * patch_px + y);
                frames[frame as usize].put_pixel(at.0, at.1, pixel);
            }
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: LatentShape =
        LatentShape { frames_per_second: 3.0, tokens_per_frame: 48, values: 48, patch: None };

    #[test]
    fn frames_survive_the_round_trip_through_tokens() {
        let frame = |n: u8| RgbImage::from_fn(12, 8, move |x, y| Rgb([x as u8, y as u8, n]));
        let frames = vec![frame(0), frame(9), frame(200)];
        let grid = SHAPE.grid((12, 8), 3, 4);
        assert_eq!((grid.rows, grid.columns, grid.tokens()), (2, 3, 18));
        assert_eq!(Latents::of_frames(&frames, grid, 4).frames(4), frames);
    }

    #[test]
    fn large_frames_keep_their_proportion_within_the_limit_of_the_model() {
        for size in [(1920, 1080), (1080, 1920), (4, 4000), (1, 1), (33, 25)] {
            let grid = SHAPE.grid(size, 1, 4);
            assert!((1..=48).contains(&grid.tokens_per_frame()), "{size:?}: {grid:?}");
        }
        let wide = SHAPE.grid((1920, 1080), 1, 4);
        assert_eq!((wide.columns, wide.rows), (9, 5));
    }

    #[test]
    fn a_token_is_a_square_patch_or_no_pixels_at_all() {
        assert_eq!(SHAPE.patch_px(), Some(4));
        assert_eq!(LatentShape { values: 64, ..SHAPE }.patch_px(), None);
        assert_eq!((SHAPE.frames(1.0), SHAPE.frames(1.01), SHAPE.frames(0.0)), (3, 4, 1));
        assert!((1..100).all(|n| SHAPE.frames(SHAPE.seconds(n)) == n));
    }
}
