//! Positions of the tokens of a sequence.

use dip_core::{ModelSpec, VitSpec};

use super::image::ImageLayout;

/// How the tokens of a document get their positions: time, row and column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PositionRule {
    /// Every token is one further than the last; all three coordinates are equal.
    Sequence,
    /// As in Qwen2-VL. All tokens of a frame of an image have the same time; rows and columns count from the start of the image. The
    /// text after an image continues after its largest coordinate.
    Grid {
        /// Side of the square of patches that becomes one token.
        merge: u32,
    },
}

/// The tokens of an image in a document.
#[derive(Debug, Clone, Copy)]
pub struct ImagePlace<'a> {
    /// Offset of its first token.
    pub offset: u32,
    /// Its grids and tokens.
    pub layout: &'a ImageLayout,
}

impl PositionRule {
    /// The rule of a model: a grid if the rotary positions of its decoder have sections.
    pub fn of(model: &ModelSpec) -> Self {
        let has_sections = model.modules.iter().any(|m| m.options.rope.sections.is_some());
        let merge = model.modules.iter().find_map(|m| m.kind.get::<VitSpec>()).map(|vit| vit.merge);
        match merge {
            Some(merge) if has_sections => Self::Grid { merge },
            _ => Self::Sequence,
        }
    }

    /// The positions of a document of `length` tokens, which begins at 0. Images are in the order of the document.
    pub fn document<'a>(
        self,
        length: usize,
        images: impl IntoIterator<Item = ImagePlace<'a>>,
    ) -> Vec<[u32; 3]> {
        let Self::Grid { merge } = self else { return text_positions(length).collect() };
        let mut positions = Vec::with_capacity(length);
        for image in images {
            extend_with_text(&mut positions, (image.offset as usize).min(length));
            let start = next_position(&positions);
            let end = positions.len() + image.layout.tokens as usize;
            let tokens = grid_of_tokens(image.layout, merge);
            positions.extend(tokens.map(|place| place.map(|p| start + p)));
            positions.truncate(end);
            extend_with_text(&mut positions, end);
        }
        extend_with_text(&mut positions, length);
        positions.truncate(length);
        positions
    }
}

/// Positions of a text: all coordinates increase by one with each token.
pub fn text_positions(length: usize) -> impl Iterator<Item = [u32; 3]> {
    (0..length as u32).map(|p| [p; 3])
}

/// The position of the token after `positions`, which end in text or in the last token of an image.
pub fn next_position(positions: &[[u32; 3]]) -> u32 {
    positions.last().map_or(0, |last| 1 + last.iter().max().copied().unwrap_or(0))
}

fn extend_with_text(positions: &mut Vec<[u32; 3]>, length: usize) {
    let next = next_position(positions);
    let missing = length.saturating_sub(positions.len()) as u32;
    positions.extend((next..next + missing).map(|p| [p; 3]));
}

/// Frame, row and column of every token of an image, view by view.
fn grid_of_tokens(layout: &ImageLayout, merge: u32) -> impl Iterator<Item = [u32; 3]> {
    let merge = merge.max(1);
    layout.views.iter().flat_map(move |view| {
        let (rows, columns) = (view.rows / merge, view.columns / merge);
        let frame = (rows * columns).max(1);
        (0..view.frames * rows * columns)
            .map(move |i| [i / frame, i % frame / columns.max(1), i % columns.max(1)])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::ViewGrid;

    #[test]
    fn text_continues_after_the_largest_coordinate_of_an_image() {
        let layout = |frames, rows, columns| ImageLayout {
            views: vec![ViewGrid { frames, rows: 2 * rows, columns: 2 * columns }],
            tokens: frames * rows * columns,
            ..ImageLayout::default()
        };
        let (wide, video) = (layout(1, 1, 3), layout(2, 2, 1));
        let images =
            [ImagePlace { offset: 1, layout: &wide }, ImagePlace { offset: 5, layout: &video }];
        let expected = [
            [0, 0, 0],
            [1, 1, 1],
            [1, 1, 2],
            [1, 1, 3],
            [4, 4, 4],
            [5, 5, 5],
            [5, 6, 5],
            [6, 5, 5],
            [6, 6, 5],
            [7, 7, 7],
        ];
        assert_eq!(PositionRule::Grid { merge: 2 }.document(10, images), expected);
        let plain: Vec<[u32; 3]> = (0..10).map(|p| [p; 3]).collect();
        assert_eq!(PositionRule::Sequence.document(10, images), plain);
        // A document that is cut inside an image has as many positions as tokens.
        assert_eq!(PositionRule::Grid { merge: 2 }.document(3, images), expected[..3]);
    }
}
