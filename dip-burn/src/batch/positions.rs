//! Positions of the tokens of a sequence.

use dip_core::{ModelSpec, VitSpec};

use super::image::ImageLayout;

/// How the tokens of a document get their positions: time, row and column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PositionRule {
    /// Every token is one further than the last; all three coordinates are equal.
    Sequence,
    /// As in Qwen2-VL. All tokens of a frame of an image have the same time; rows and columns count from the start of the image. The
    /// text after an image continues after its last row or column, whatever its time.
    Grid {
        /// Side of the square of patches that becomes one token.
        merge: u32,
        /// Steps of the time per second of a video; one step per patch of frames if it is absent.
        steps_per_second: Option<u32>,
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
        match model.modules.iter().find_map(|m| m.kind.get::<VitSpec>()) {
            Some(vit) if has_sections => {
                Self::Grid { merge: vit.merge, steps_per_second: vit.positions_per_second }
            }
            _ => Self::Sequence,
        }
    }

    /// The positions of a document of `length` tokens, which begins at 0. Images are in the order of the document.
    pub fn document<'a>(
        self,
        length: usize,
        images: impl IntoIterator<Item = ImagePlace<'a>>,
    ) -> Vec<[u32; 3]> {
        let Self::Grid { merge, steps_per_second } = self else {
            return text_positions(length).collect();
        };
        let (mut positions, mut next) = (Vec::with_capacity(length), 0);
        for ImagePlace { offset, layout } in images {
            extend_with_text(&mut positions, &mut next, (offset as usize).min(length));
            let step = steps_per_second.map_or(1.0, |steps| steps as f32 * layout.frame_seconds);
            let end = positions.len() + layout.tokens as usize;
            let place = |[frame, row, column]: [u32; 3]| {
                [(frame as f32 * step) as u32, row, column].map(|p| next.saturating_add(p))
            };
            positions.extend(grid_of_tokens(layout, merge).map(place));
            positions.truncate(end);
            next += layout
                .views
                .iter()
                .map(|v| v.rows.max(v.columns) / merge.max(1))
                .max()
                .unwrap_or(0);
            extend_with_text(&mut positions, &mut next, end);
        }
        extend_with_text(&mut positions, &mut next, length);
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

/// Adds text up to `length` tokens; `next` is the position of its first token, and then of the token after it.
fn extend_with_text(positions: &mut Vec<[u32; 3]>, next: &mut u32, length: usize) {
    let missing = length.saturating_sub(positions.len()) as u32;
    positions.extend((*next..*next + missing).map(|p| [p; 3]));
    *next += missing;
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
    fn text_continues_after_the_last_row_or_column_of_an_image() {
        let layout = |frames, rows, columns| ImageLayout {
            views: vec![ViewGrid { frames, rows: 2 * rows, columns: 2 * columns }],
            tokens: frames * rows * columns,
            frame_seconds: 0.75,
            ..ImageLayout::default()
        };
        let (wide, video) = (layout(1, 1, 3), layout(2, 2, 1));
        let rule = |steps_per_second| PositionRule::Grid { merge: 2, steps_per_second };
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
        assert_eq!(rule(None).document(10, images), expected);
        // Four steps per second are three from frame to frame.
        let fast = rule(Some(4)).document(10, images);
        assert_eq!(fast[7..], [[8, 5, 5], [8, 6, 5], [7, 7, 7]]);
        let plain: Vec<[u32; 3]> = (0..10).map(|p| [p; 3]).collect();
        assert_eq!(PositionRule::Sequence.document(10, images), plain);
        // A document that is cut inside an image has as many positions as tokens.
        assert_eq!(rule(None).document(3, images), expected[..3]);
    }
}
