//! The stem of CLIP and SigLIP encoders, between the patch embedding and the layers.
//!
//! All views have the grid of the table of positions.
//!
//! Shape legend: n views, q patches of a view, p rows of a view (q, and one more with a class token), m width.

use burn::module::{Module, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};
use dip_core::{ModuleSpec, VitSpec};

use crate::batch::ViewGrid;
use crate::kernels::kernels;
use crate::model::Init;
use crate::model::block::norm::{Norm, NormKept};
use crate::model::gradients::Gradients;
use crate::model::to_f32;
use crate::uploads::ints;

/// A class token before the patches, learned positions, and a norm.
#[derive(Module, Debug)]
pub struct Stem<B: Backend> {
    /// `[1, m]`, only in CLIP.
    class: Option<Param<Tensor<B, 2>>>,
    /// `[p, m]`
    positions: Param<Tensor<B, 2>>,
    /// Only in CLIP.
    norm: Option<Norm<B>>,
    /// The row of the table for each row of a view, `[p]`; none if they are in order. Patches that merge into one token are
    /// neighbours among the rows of a view, but not in the table.
    #[module(skip)]
    order: Option<Vec<i32>>,
}

impl<B: Backend> Stem<B> {
    /// The stem of an encoder with learned positions.
    pub fn init(spec: &ModuleSpec, vit: &VitSpec, init: &Init<'_, B>) -> Self {
        let (width, class) = (spec.hidden as usize, spec.tower().class_token());
        let epsilon = spec.options.norm_epsilon;
        let rows = spec.rows_per_image() as usize;
        Self {
            class: class.then(|| init.matrix("stem.class", [1, width], 0.02)),
            positions: init.matrix("stem.positions", [rows, width], 0.02),
            norm: class.then(|| Norm::layer(width, init).with_epsilon(epsilon)),
            order: (vit.merge > 1).then(|| order(vit)),
        }
    }

    /// `[n * q, m]` to `[n * p, m]`.
    pub(super) fn forward(&self, x: Tensor<B, 2>) -> (Tensor<B, 2>, Option<NormKept<B>>) {
        let [p, m] = self.positions.dims();
        let q = p - usize::from(self.class.is_some());
        let n = x.dims()[0] / q;
        let x_nqm = x.reshape([n, q, m]);
        let x_npm = match &self.class {
            Some(class) => {
                let class = class.val().reshape([1, 1, m]).repeat_dim(0, n);
                Tensor::cat(vec![class, x_nqm], 1)
            }
            None => x_nqm,
        };
        let x = (x_npm + self.positions_in_order().unsqueeze()).reshape([n * p, m]);
        match &self.norm {
            Some(norm) => {
                let (y, kept) = norm.forward(x);
                (y, Some(kept))
            }
            None => (x, None),
        }
    }

    /// The positions of the rows of a view, `[p, m]`.
    fn positions_in_order(&self) -> Tensor<B, 2> {
        let positions = self.positions.val();
        match &self.order {
            Some(order) => {
                let order = indices(order.clone(), &positions.device());
                kernels().selected_rows(positions, order)
            }
            None => positions,
        }
    }

    /// The gradient of the embedded patches.
    pub(super) fn backward(
        &self,
        kept: Option<NormKept<B>>,
        dy: Tensor<B, 2>,
        gradients: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        let dx = match (&self.norm, kept) {
            (Some(norm), Some(kept)) => norm.backward(kept, dy, gradients),
            _ => dy,
        };
        let [p, m] = self.positions.dims();
        let n = dx.dims()[0] / p;
        let d_npm = dx.reshape([n, p, m]);
        let d = d_npm.clone();
        let place = self.order.as_ref().map(|order| indices(inverse(order), &d.device()));
        gradients.add(&self.positions, move || {
            let d = to_f32(d).sum_dim(0).reshape([p, m]);
            match place {
                Some(place) => d.select(0, place),
                None => d,
            }
        });
        let Some(class) = &self.class else { return d_npm.reshape([n * p, m]) };
        let d = d_npm.clone().narrow(1, 0, 1);
        gradients.add(class, move || to_f32(d).sum_dim(0).reshape([1, m]));
        without_first(d_npm.reshape([n * p, m]), n)
    }
}

/// The row of the table of positions for each row of a view.
fn order(vit: &VitSpec) -> Vec<i32> {
    let side = vit.image_px / vit.patch_px;
    let class = u32::from(vit.tower.class_token());
    let places = ViewGrid::still(side, side).places(vit.merge).into_iter();
    let patches = places.map(|(row, column)| (class + row * side + column) as i32);
    (0..class as i32).chain(patches).collect()
}

/// The row of a view for each row of the table.
fn inverse(order: &[i32]) -> Vec<i32> {
    let mut inverse = vec![0; order.len()];
    order.iter().zip(0..).for_each(|(&row, i)| inverse[row as usize] = i);
    inverse
}

fn indices<B: Backend>(values: Vec<i32>, device: &B::Device) -> Tensor<B, 1, Int> {
    let length = values.len();
    ints(values, [length], device)
}

/// The rows of `n` views without the first of each.
pub(super) fn without_first<B: Backend>(x: Tensor<B, 2>, n: usize) -> Tensor<B, 2> {
    let [rows, m] = x.dims();
    let q = rows / n - 1;
    x.reshape([n, q + 1, m]).narrow(1, 1, q).reshape([n * q, m])
}

/// The gradient of `x` where `y = without_first(x)`.
pub(super) fn without_first_backward<B: Backend>(dy: Tensor<B, 2>, n: usize) -> Tensor<B, 2> {
    let [rows, m] = dy.dims();
    let q = rows / n;
    let zeros = Tensor::zeros([n, 1, m], (&dy.device(), dy.dtype()));
    Tensor::cat(vec![zeros, dy.reshape([n, q, m])], 1).reshape([n * (q + 1), m])
}
