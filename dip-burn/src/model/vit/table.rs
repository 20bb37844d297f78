//! Learned positions of a square, interpolated to the grid of every image.
//!
//! Shape legend: q patches of all images, m width, n entries of the table, which has `side * side` of them.

use burn::module::{Module, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, IndexingUpdateOp, Int, Tensor};
use dip_core::ModuleSpec;

use crate::batch::ViewGrid;
use crate::model::gradients::Gradients;
use crate::model::{Init, cast, to_f32};
use crate::uploads::{floats, ints};

/// Entries of the table around a place.
const CORNERS: usize = 4;

/// A table of positions, which reaches from edge to edge of every image.
#[derive(Module, Debug)]
pub struct PositionTable<B: Backend> {
    /// `[n, m]`
    weight: Param<Tensor<B, 2>>,
    #[module(skip)]
    side: u32,
}

/// Entries and their weights for the places of patches: first those of corner 0 for all patches, then those of corner 1, and so on.
struct Corners<B: Backend> {
    /// `[4 * q]`
    entries: Tensor<B, 1, Int>,
    /// `[4 * q, 1]`
    weights: Tensor<B, 2>,
}

impl<B: Backend> PositionTable<B> {
    /// A table of `side * side` positions.
    pub fn init(spec: &ModuleSpec, side: u32, init: &Init<'_, B>) -> Self {
        let shape = [(side * side) as usize, spec.hidden as usize];
        Self { weight: init.matrix("positions", shape, 0.02), side }
    }

    /// Adds to every patch `[q, m]` the position of its place. `places` has a grid and row and column for each patch.
    pub(super) fn forward(&self, x_qm: Tensor<B, 2>, places: &[Place]) -> Tensor<B, 2> {
        let ([q, m], dtype) = (x_qm.dims(), x_qm.dtype());
        let Corners { entries, weights } = self.corners(places);
        let table = to_f32(self.weight.val());
        let sums = (table.select(0, entries) * weights).reshape([CORNERS, q, m]).sum_dim(0);
        x_qm + cast(sums.reshape([q, m]), dtype)
    }

    /// Adds the gradient of the table from the gradient of the result, which is also the gradient of the patches.
    pub(super) fn backward(
        &self,
        dy_qm: &Tensor<B, 2>,
        places: &[Place],
        gradients: &mut Gradients<B>,
    ) {
        let Corners { entries, weights } = self.corners(places);
        let (dy_qm, table) = (dy_qm.clone(), self.weight.val());
        gradients.add(&self.weight, move || {
            let values = to_f32(dy_qm).repeat_dim(0, CORNERS) * weights;
            let zeros = Tensor::zeros(table.dims(), (&table.device(), DType::F32));
            zeros.select_assign(0, entries, values, IndexingUpdateOp::Add)
        });
    }

    fn corners(&self, places: &[Place]) -> Corners<B> {
        let device = self.weight.val().device();
        let mut entries = Vec::with_capacity(CORNERS * places.len());
        let mut weights = Vec::with_capacity(CORNERS * places.len());
        for corner in 0..CORNERS {
            for place in places {
                let (row, column) = (
                    along(place.row, place.grid.rows, self.side)[corner / 2],
                    along(place.column, place.grid.columns, self.side)[corner % 2],
                );
                entries.push((row.entry * self.side + column.entry) as i32);
                weights.push(row.weight * column.weight);
            }
        }
        let rows = entries.len();
        Corners {
            entries: ints(entries, [rows], &device),
            weights: floats(weights, [rows, 1], &device),
        }
    }
}

/// The place of a patch in the grid of its frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub grid: ViewGrid,
    pub row: u32,
    pub column: u32,
}

/// One of the two entries around a place along one axis.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Neighbour {
    entry: u32,
    weight: f32,
}

/// The entries around place `index` of `length`, where the first place is on the first entry and the last on the last.
fn along(index: u32, length: u32, side: u32) -> [Neighbour; 2] {
    let at = index as f32 * (side - 1) as f32 / length.saturating_sub(1).max(1) as f32;
    let low = at.floor();
    let above = at - low;
    let entry = (low as u32).min(side - 1);
    [
        Neighbour { entry, weight: 1.0 - above },
        Neighbour { entry: (entry + 1).min(side - 1), weight: above },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_reaches_from_edge_to_edge() {
        let entry = |index, length, side| along(index, length, side).map(|n| (n.entry, n.weight));
        assert_eq!(entry(0, 7, 4), [(0, 1.0), (1, 0.0)]);
        assert_eq!(entry(6, 7, 4), [(3, 1.0), (3, 0.0)]);
        assert_eq!(entry(1, 7, 4), [(0, 0.5), (1, 0.5)]);
        assert_eq!(entry(0, 1, 4), [(0, 1.0), (1, 0.0)]);
        assert_eq!(entry(3, 9, 1), [(0, 1.0), (0, 0.0)]);
    }
}
