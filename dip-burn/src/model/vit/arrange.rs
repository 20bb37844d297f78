//! The tokens of an image with tiles: the outputs of the adapter in another arrangement, with learned ends of rows.
//!
//! Shape legend: r outputs of the adapter, t tokens, m width.

use burn::tensor::backend::Backend;
use burn::tensor::{DType, IndexingUpdateOp, Int, Tensor};

use crate::batch::{Arrangement, Image, JoinedTiles, ViewGrid};
use crate::model::{cast, to_f32};
use crate::uploads::{floats, ints};

/// The sources of the tokens of some images. Each token is a weighted sum of outputs of the adapter.
pub(super) struct TokenSources {
    terms: Vec<Term>,
    /// Outputs of the adapter, r. The newline has this index.
    outputs: usize,
}

/// One summand of every token.
struct Term {
    /// Its output, `[t]`.
    rows: Vec<i32>,
    /// Its weight, `[t]`; 1 if there is one term.
    weights: Vec<f32>,
}

/// What one token is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Source {
    /// An output of the adapter, or the newline.
    Row(usize),
    /// Four outputs with their weights.
    Weighted([(usize, f32); 4]),
}

impl TokenSources {
    /// The sources of the tokens of `images`, of whose patches `merged` become one token.
    ///
    /// `None` if the tokens are the outputs, in order.
    pub fn of(images: &[Image], merged: usize) -> Option<Self> {
        let tokens = |grid: &ViewGrid| grid.patches() / merged;
        let views =
            |image: &Image| image.views.iter().map(|view| tokens(&view.grid)).sum::<usize>();
        let in_order = |image: &Image| matches!(image.arrangement, Arrangement::Rows);
        if images.iter().all(in_order) {
            return None;
        }
        let newline = images.iter().map(views).sum();
        let (mut first, mut sources) = (0, Vec::new());
        for image in images {
            let outputs = views(image);
            match image.arrangement {
                Arrangement::Rows | Arrangement::Split(_) => {
                    sources.extend((first..first + outputs).map(Source::Row));
                }
                Arrangement::RowsWithNewline => {
                    sources.extend((first..first + outputs).map(Source::Row));
                    sources.push(Source::Row(newline));
                }
                Arrangement::Tiles(joined) => {
                    let whole = image.views.first().map_or(0, |view| tokens(&view.grid));
                    sources.extend((first..first + whole).map(Source::Row));
                    let grid = TileOutputs { joined, side: whole.isqrt(), first: first + whole };
                    grid.extend(&mut sources, newline);
                }
            }
            first += outputs;
        }
        Some(Self::new(&sources, newline))
    }

    fn new(sources: &[Source], outputs: usize) -> Self {
        let is_weighted = |source: &Source| matches!(source, Source::Weighted(_));
        let terms = if sources.iter().any(is_weighted) { 4 } else { 1 };
        let term = |i: usize| {
            let part = |source: &Source| match source {
                Source::Row(row) => (*row as i32, if i == 0 { 1.0 } else { 0.0 }),
                Source::Weighted(parts) => (parts[i].0 as i32, parts[i].1),
            };
            let (rows, weights) = sources.iter().map(part).unzip();
            Term { rows, weights }
        };
        Self { terms: (0..terms).map(term).collect(), outputs }
    }

    /// The tokens, `[t, m]`, of the outputs `y_rm` and the newline `[1, m]`.
    pub fn forward<B: Backend>(&self, y_rm: Tensor<B, 2>, newline: Tensor<B, 2>) -> Tensor<B, 2> {
        let (dtype, device) = (y_rm.dtype(), y_rm.device());
        let rows = Tensor::cat(vec![y_rm, cast(newline, dtype)], 0);
        if let [only] = self.terms.as_slice() {
            return rows.select(0, only.rows(&device));
        }
        let rows = to_f32(rows);
        let terms = self.terms.iter();
        let terms =
            terms.map(|term| rows.clone().select(0, term.rows(&device)) * term.weights(&device));
        let sum = terms.reduce(|sum, term| sum + term).expect("there are terms");
        cast(sum, dtype)
    }

    /// The gradients of the outputs, `[r, m]`, and of the newline, `[1, m]`, both in f32.
    pub fn backward<B: Backend>(&self, dy_tm: Tensor<B, 2>) -> (Tensor<B, 2>, Tensor<B, 2>) {
        let device = dy_tm.device();
        let dy_tm = to_f32(dy_tm);
        let zeros = Tensor::zeros([self.outputs + 1, dy_tm.dims()[1]], (&device, DType::F32));
        let weighted = |term: &Term| match self.terms.len() {
            1 => dy_tm.clone(),
            _ => dy_tm.clone() * term.weights(&device),
        };
        let sum = self.terms.iter().fold(zeros, |sum: Tensor<B, 2>, term| {
            sum.select_assign(0, term.rows(&device), weighted(term), IndexingUpdateOp::Add)
        });
        (sum.clone().narrow(0, 0, self.outputs), sum.narrow(0, self.outputs, 1))
    }
}

impl Term {
    fn rows<B: Backend>(&self, device: &B::Device) -> Tensor<B, 1, Int> {
        ints(self.rows.clone(), [self.rows.len()], device)
    }

    /// `[t, 1]`
    fn weights<B: Backend>(&self, device: &B::Device) -> Tensor<B, 2> {
        floats(self.weights.clone(), [self.weights.len(), 1], device)
    }
}

/// The outputs of the tiles of one image.
struct TileOutputs {
    joined: JoinedTiles,
    /// Outputs on a side of a tile.
    side: usize,
    /// The first output of the first tile.
    first: usize,
}

impl TileOutputs {
    /// Adds the rows of the joined grid, each with a newline at its end.
    fn extend(&self, sources: &mut Vec<Source>, newline: usize) {
        let JoinedTiles { tiles, cut_rows, cut_columns, rows, columns, interpolated } = self.joined;
        let kept = |tiles: u32, cut: u32| tiles as usize * self.side - 2 * cut as usize;
        let (down, across) = (
            Axis { from: kept(tiles.rows, cut_rows), to: rows as usize },
            Axis { from: kept(tiles.columns, cut_columns), to: columns as usize },
        );
        for row in 0..rows as usize {
            for column in 0..columns as usize {
                sources.push(match interpolated {
                    false => Source::Row(self.output(row, column)),
                    true => self.interpolated(down.neighbours(row), across.neighbours(column)),
                });
            }
            sources.push(Source::Row(newline));
        }
    }

    /// The output at a place of the cut grid.
    fn output(&self, row: usize, column: usize) -> usize {
        let (row, column) =
            (row + self.joined.cut_rows as usize, column + self.joined.cut_columns as usize);
        let side = self.side;
        let tile = row / side * self.joined.tiles.columns as usize + column / side;
        self.first + (tile * side + row % side) * side + column % side
    }

    fn interpolated(&self, down: Neighbours, across: Neighbours) -> Source {
        let part = |row: (usize, f32), column: (usize, f32)| {
            (self.output(row.0, column.0), row.1 * column.1)
        };
        let [top, bottom] = down;
        let [left, right] = across;
        Source::Weighted([
            part(top, left),
            part(top, right),
            part(bottom, left),
            part(bottom, right),
        ])
    }
}

/// Two places with their weights.
type Neighbours = [(usize, f32); 2];

/// One axis of a bilinear interpolation.
#[derive(Debug, Clone, Copy)]
struct Axis {
    from: usize,
    to: usize,
}

impl Axis {
    /// The two places between which the place `i` of the result lies; the centres of both grids coincide.
    fn neighbours(self, i: usize) -> Neighbours {
        let scale = self.from as f32 / self.to as f32;
        let at = (scale * (i as f32 + 0.5) - 0.5).max(0.0);
        let low = (at as usize).min(self.from - 1);
        let high = (low + 1).min(self.from - 1);
        let share = at - low as f32;
        [(low, 1.0 - share), (high, share)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{ImageLayout, TileGrid};

    fn image(views: usize, side: u32, arrangement: Arrangement) -> Image {
        let layout = ImageLayout {
            views: vec![ViewGrid::still(side, side); views],
            arrangement,
            ..ImageLayout::default()
        };
        layout.blank(1)
    }

    fn rows(images: &[Image]) -> Vec<i32> {
        let sources = TokenSources::of(images, 1).unwrap();
        assert_eq!(sources.terms.len(), 1);
        sources.terms[0].rows.clone()
    }

    #[test]
    fn rows_of_tiles_are_joined_and_end_in_a_newline() {
        let tiles = TileGrid { rows: 1, columns: 2 };
        let joined = JoinedTiles {
            tiles,
            cut_rows: 0,
            cut_columns: 1,
            rows: 2,
            columns: 2,
            interpolated: false,
        };
        let plain = image(1, 1, Arrangement::Rows);
        let ended = image(1, 1, Arrangement::RowsWithNewline);
        let tiled = image(3, 2, Arrangement::Tiles(joined));
        // Output 0 is the plain image, 1 to 12 are the tiled one, 13 is the last image, 14 is the newline.
        let expected = [0, 1, 2, 3, 4, 6, 9, 14, 8, 11, 14, 13, 14];
        assert_eq!(rows(&[plain.clone(), tiled, ended]), expected);
        assert!(TokenSources::of(&[plain], 1).is_none());
    }

    #[test]
    fn an_interpolated_token_lies_between_four_outputs_whose_weights_add_up_to_one() {
        let tiles = TileGrid { rows: 2, columns: 2 };
        let joined = JoinedTiles {
            tiles,
            cut_rows: 0,
            cut_columns: 1,
            rows: 3,
            columns: 1,
            interpolated: true,
        };
        let sources = TokenSources::of(&[image(5, 2, Arrangement::Tiles(joined))], 1).unwrap();
        let sum = |token: usize| sources.terms.iter().map(|term| term.weights[token]).sum::<f32>();
        assert!((0..10).all(|token| (sum(token) - 1.0).abs() < 1e-6));
        let parts = |token: usize| -> Vec<(i32, f32)> {
            sources.terms.iter().map(|term| (term.rows[token], term.weights[token])).collect()
        };
        // Four rows become three, and two columns become one, between both.
        assert!((parts(4)[0].1 - 0.5 * 5.0 / 6.0).abs() < 1e-6, "{:?}", parts(4));
        assert_eq!(parts(4).iter().map(|part| part.0).collect::<Vec<_>>(), [5, 8, 7, 10]);
        assert_eq!(parts(5), [(20, 1.0), (20, 0.0), (20, 0.0), (20, 0.0)], "the newline");
    }
}
