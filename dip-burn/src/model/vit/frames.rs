//! The sequences of patches of a slice, and their order in the rows of the layers.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::VitChunk;
use super::table::Place;
use super::windows::WindowOrder;
use crate::batch::{Image, ViewGrid};
use crate::kernels::kernels;
use crate::model::Slice;
use crate::uploads::ints;

/// The frames of all views of some images. Patches attend to each other only within a frame.
#[derive(Debug, Clone)]
pub(super) struct Frames {
    /// The grid of each frame.
    pub grids: Vec<ViewGrid>,
    /// The order of tokens that keeps windows together, if the module has windows.
    pub order: Option<WindowOrder>,
}

impl<B: Backend> VitChunk<B> {
    /// The frames of the images of a slice.
    pub(super) fn frames(&self, on: &Slice<'_>) -> Frames {
        let views = images(on).iter().flat_map(|image| &image.views);
        let frames = views.map(|view| (ViewGrid { frames: 1, ..view.grid }, view.grid.frames));
        let grids: Vec<ViewGrid> =
            frames.flat_map(|(grid, frames)| std::iter::repeat_n(grid, frames as usize)).collect();
        let merge = self.patch.merge();
        let order = self.window_side.map(|side| WindowOrder::of(&grids, merge, side));
        Frames { grids, order }
    }

    /// The place of every patch, in the order of the rows.
    pub(super) fn places(&self, frames: &Frames) -> Vec<Place> {
        let of_frame = |&grid: &ViewGrid| {
            let places = grid.places(self.patch.merge());
            places.into_iter().map(move |(row, column)| Place { grid, row, column })
        };
        let places: Vec<Place> = frames.grids.iter().flat_map(of_frame).collect();
        frames.in_order(&places, self.patch.merged())
    }
}

impl Frames {
    /// The values of all tokens in the order of the rows. Each token has `each` values.
    pub fn in_order<T: Clone>(&self, values: &[T], each: usize) -> Vec<T> {
        let Some(order) = &self.order else { return values.to_vec() };
        let mut ordered = Vec::with_capacity(values.len());
        for &token in &order.tokens {
            let start = token as usize * each;
            ordered.extend_from_slice(&values[start..start + each]);
        }
        ordered
    }

    /// The tokens `[t, o]` of rows in their order, in the order of the sequence.
    pub fn restored<B: Backend>(&self, y_to: Tensor<B, 2>) -> Tensor<B, 2> {
        match &self.order {
            Some(order) => selected(y_to, &order.inverse()),
            None => y_to,
        }
    }

    /// The gradient of the argument of [`restored`](Self::restored).
    pub fn restored_backward<B: Backend>(&self, dy_to: Tensor<B, 2>) -> Tensor<B, 2> {
        match &self.order {
            Some(order) => selected(dy_to, &order.tokens),
            None => dy_to,
        }
    }
}

fn selected<B: Backend>(x: Tensor<B, 2>, rows: &[u32]) -> Tensor<B, 2> {
    let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
    let rows = ints(rows, [x.dims()[0]], &x.device());
    kernels().selected_rows(x, rows)
}

/// The images of a slice.
pub(super) fn images<'a>(on: &Slice<'a>) -> &'a [Image] {
    &on.microbatch.images[on.instances.start as usize..on.instances.end as usize]
}
