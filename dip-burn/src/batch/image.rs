//! Images of the vision encoder: grids of patches, and their pixels.

use dip_core::{ImageSize, VitSpec};

use super::arrangement::{Arrangement, PromptPiece};

/// The patches of one view along each axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ViewGrid {
    /// Patches in time: 1 for a still picture. Patches attend only to patches of their own frame.
    pub frames: u32,
    /// Patches from top to bottom.
    pub rows: u32,
    /// Patches from left to right.
    pub columns: u32,
}

/// The grids and tokens of a picture. They follow from its width and height, before any pixel is decoded.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ImageLayout {
    /// The views: one, or the tiles of a picture that is cut up; none in a model without a vision encoder.
    pub views: Vec<ViewGrid>,
    /// How the tokens of the views are arranged in the sequence.
    pub arrangement: Arrangement,
    /// Its tokens in the decoder, newlines included.
    pub tokens: u32,
    /// Seconds from one patch of frames of a video to the next; 0 for a picture.
    pub frame_seconds: f32,
}

/// One picture, or a run of frames of a video, for the vision encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// The views: one, or the tiles of a picture that is cut up. At least one.
    pub views: Vec<View>,
    /// How the tokens of the views are arranged in the sequence.
    pub arrangement: Arrangement,
    /// Its tokens in the decoder, newlines included.
    pub tokens: u32,
    /// As [`ImageLayout::frame_seconds`].
    pub frame_seconds: f32,
}

/// One view of a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// Its patches.
    pub grid: ViewGrid,
    /// Normalised values, `[frames, 3, rows * patch_px, columns * patch_px]`. A still picture has one frame of pixels, which fills
    /// all frames of a patch; a video has the frames of all its patches.
    pub pixels: Vec<f32>,
}

impl ViewGrid {
    /// The grid of a still picture.
    pub const fn still(rows: u32, columns: u32) -> Self {
        Self { frames: 1, rows, columns }
    }

    /// Patches of one frame.
    pub fn patches_per_frame(&self) -> usize {
        self.rows as usize * self.columns as usize
    }

    /// Patches of all frames.
    pub fn patches(&self) -> usize {
        self.frames as usize * self.patches_per_frame()
    }

    /// Row and column of every patch of a frame. The `merge * merge` patches that become one token follow each other; tokens go row
    /// by row.
    pub fn places(&self, merge: u32) -> Vec<(u32, u32)> {
        let merge = merge.max(1);
        let (block_rows, block_columns) = (self.rows / merge, self.columns / merge);
        let mut places = Vec::with_capacity(self.patches_per_frame());
        for block in 0..block_rows * block_columns {
            for inner in 0..merge * merge {
                let row = block / block_columns * merge + inner / merge;
                let column = block % block_columns * merge + inner % merge;
                places.push((row, column));
            }
        }
        places
    }
}

impl ImageLayout {
    /// The layout of a picture scaled to the square of `vit`.
    pub fn square(vit: &VitSpec) -> Self {
        let side = vit.image_px / vit.patch_px.max(1);
        Self {
            views: vec![ViewGrid::still(side, side)],
            tokens: vit.tokens_per_image(),
            ..Self::default()
        }
    }

    /// Patches of all views.
    pub fn patches(&self) -> u64 {
        self.views.iter().map(|view| view.patches() as u64).sum()
    }

    /// Its size for the planner.
    pub fn size(&self) -> ImageSize {
        let sequences: u32 = self.views.iter().map(|view| view.frames).sum();
        let patches = u32::try_from(self.patches()).unwrap_or(u32::MAX);
        ImageSize { patches, tokens: self.tokens, views: sequences }
    }

    /// What stands for the picture in the text of a document, in order: mostly its image tokens alone.
    pub fn prompt(&self) -> Vec<PromptPiece> {
        self.arrangement.prompt(self.tokens, self.views.len() as u32)
    }

    /// The image with the pixels of every view.
    pub fn with_pixels(&self, pixels: impl IntoIterator<Item = Vec<f32>>) -> Image {
        let views = self.views.iter().zip(pixels);
        let views = views.map(|(&grid, pixels)| View { grid, pixels }).collect();
        Image {
            views,
            arrangement: self.arrangement,
            tokens: self.tokens,
            frame_seconds: self.frame_seconds,
        }
    }

    /// The image for those who only need to know its size: it has no pixels.
    pub fn unseen(&self) -> Image {
        self.with_pixels(self.views.iter().map(|_| Vec::new()))
    }

    /// The image of a picture that cannot be decoded. All values are 0, the mean colour of the training data.
    pub fn blank(&self, patch_px: u32) -> Image {
        let values = |grid: &ViewGrid| 3 * grid.patches_per_frame() * (patch_px as usize).pow(2);
        self.with_pixels(self.views.iter().map(|grid| vec![0.0; values(grid)]))
    }
}

impl Image {
    /// Its layout.
    pub fn layout(&self) -> ImageLayout {
        let views = self.views.iter().map(|view| view.grid).collect();
        ImageLayout {
            views,
            arrangement: self.arrangement,
            tokens: self.tokens,
            frame_seconds: self.frame_seconds,
        }
    }
}
