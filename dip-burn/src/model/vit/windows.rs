//! The order of patches in layers with windows: the patches of a window follow each other.
//!
//! Windows go row by row through a frame, the larger ones first, so that windows of equal size run as one batch. The order
//! changes no result: the rows of the layers keep their positions, and the adapter puts the tokens back in their places.

use crate::batch::ViewGrid;

/// The order of the tokens of several frames, and the windows that they form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct WindowOrder {
    /// The place of each token in the order of the sequence, counted over all frames.
    pub tokens: Vec<u32>,
    /// Number of patches of each window, in order.
    pub lengths: Vec<usize>,
}

impl WindowOrder {
    /// The order of frames with these grids. `merge` is the side of a token in patches, `side` that of a window in tokens.
    pub fn of(frames: &[ViewGrid], merge: u32, side: u32) -> Self {
        let mut order = Self::default();
        for grid in frames {
            order.add(grid.rows / merge, grid.columns / merge, side, (merge * merge) as usize);
        }
        order
    }

    fn add(&mut self, rows: u32, columns: u32, side: u32, patches: usize) {
        let first = self.tokens.len() as u32;
        let corners = (0..rows)
            .step_by(side as usize)
            .flat_map(|top| (0..columns).step_by(side as usize).map(move |left| (top, left)));
        let window = |(top, left): (u32, u32)| -> Vec<u32> {
            let (bottom, right) = ((top + side).min(rows), (left + side).min(columns));
            let row = |row: u32| (left..right).map(move |column| first + row * columns + column);
            (top..bottom).flat_map(row).collect()
        };
        let mut windows: Vec<Vec<u32>> = corners.map(window).collect();
        windows.sort_by_key(|window| std::cmp::Reverse(window.len()));
        self.lengths.extend(windows.iter().map(|window| window.len() * patches));
        self.tokens.extend(windows.into_iter().flatten());
    }

    /// The place in this order of each token of the sequence.
    pub fn inverse(&self) -> Vec<u32> {
        let mut inverse = vec![0; self.tokens.len()];
        for (place, &token) in (0..).zip(&self.tokens) {
            inverse[token as usize] = place;
        }
        inverse
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_of_equal_size_follow_each_other_and_hold_every_token_once() {
        let frames = [ViewGrid::still(6, 10), ViewGrid::still(4, 2)];
        let order = WindowOrder::of(&frames, 2, 2);
        let first = [0, 1, 5, 6, 2, 3, 7, 8, 4, 9, 10, 11, 12, 13, 14];
        assert_eq!(order.tokens[..15], first);
        assert_eq!(order.tokens[15..], [15, 16]);
        assert_eq!(order.lengths, [16, 16, 8, 8, 8, 4, 8]);
        let inverse = order.inverse();
        assert!((0..17).all(|token| order.tokens[inverse[token] as usize] == token as u32));
    }

    #[test]
    fn an_image_within_one_window_keeps_its_order() {
        let order = WindowOrder::of(&[ViewGrid::still(4, 6)], 2, 8);
        assert_eq!((order.tokens, order.lengths), ((0..6).collect(), vec![24]));
    }
}
