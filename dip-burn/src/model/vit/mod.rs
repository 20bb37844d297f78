//! The vision encoder: of the Qwen2-VL type, or of the CLIP type with a `stem`.
//!
//! Images may have different sizes: their patches are packed one after another, without padding, and attend only to patches of
//! the same frame of the same view.
//!
//! Shape legend: q patches of all images, r rows of all images (their patches, and a class token for each view if there is one),
//! c values of a patch, m width.

mod arrange;
mod end;
mod layer;
mod modality;
mod start;
mod stem;

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::{LayerStrategy, VitSpec};

use super::block::core::HeadSizes;
use super::block::layer::{self as run, Layer, LayersKept};
use super::block::linear::Linear;
use super::block::merger::{Merger, MergerKept};
use super::block::norm::NormKept;
use super::{ChunkSpec, Gradients, Init, Matrix, ModelChunk, ModelError, Slice};
pub use modality::VitModality;
pub use start::PatchShape;
use stem::Stem;

/// Consecutive layers of the encoder, with its patch embedding in the first chunk and its adapter in the last.
#[derive(Module, Debug)]
pub struct VitChunk<B: Backend> {
    patch_embed: Option<Linear<B>>,
    /// The stem, if positions are learned.
    stem: Option<Stem<B>>,
    layers: Vec<Layer<B>>,
    merger: Option<Merger<B>>,
    /// The learned end of a row of tiles, `[1, output width]`, in the last chunk of an encoder with tiles.
    newline: Option<Matrix<B>>,
    patch: PatchShape,
    heads: HeadSizes,
    /// Base of the angles of rotary positions; none if positions are learned.
    #[module(skip)]
    rope_theta: Option<f64>,
    /// True if the first row of a view is dropped before the adapter.
    #[module(skip)]
    drops_first: bool,
    /// True if a class token precedes the patches of a view.
    #[module(skip)]
    class_token: bool,
}

impl<B: Backend> VitChunk<B> {
    /// A chunk of the encoder with settings `vit`.
    ///
    /// # Errors
    /// [`ModelError::Field`] if the head size does not support rotary positions.
    pub fn init(
        chunk: &ChunkSpec<'_>,
        vit: &VitSpec,
        init: &Init<'_, B>,
    ) -> Result<Self, ModelError> {
        let (spec, tower) = (chunk.module(), vit.tower);
        if !tower.learned_positions() && !spec.head_dim().is_multiple_of(4) {
            let limit = "a multiple of 4: rotary positions rotate one half of a head by rows, the other by columns";
            return Err(ModelError::field(spec, "head_dim", spec.head_dim(), limit));
        }
        if vit.window.is_some() {
            let limit = "absent: windows can be planned, but not trained";
            return Err(ModelError::field(spec, "kind.vit.window", "given", limit));
        }
        if vit.position_side.is_some() || !vit.stacked_layers.is_empty() {
            let limit = "absent: such encoders can be planned, but not trained";
            return Err(ModelError::field(spec, "kind.vit.stacked_layers", "given", limit));
        }
        let values = 3 * (tower.frames() * vit.patch_px * vit.patch_px) as usize;
        let patch_embed = || {
            let (width, std) = (spec.hidden as usize, (1.0 / values as f64).sqrt());
            init.linear("patch_embed", values, width, tower.patch_bias(), std)
        };
        let newline = || {
            let width = chunk.output_width();
            init.matrix("newline", [1, width], (1.0 / width as f64).sqrt())
        };
        let first = chunk.is_first();
        Ok(Self {
            patch_embed: first.then(patch_embed),
            stem: (first && tower.learned_positions()).then(|| Stem::init(spec, vit, init)),
            layers: chunk.layers.clone().map(|i| layer::init(spec, i, init)).collect(),
            merger: chunk.is_last().then(|| Merger::init(spec, chunk.output_width(), init)),
            newline: (chunk.is_last() && vit.tiles.is_some()).then(newline),
            patch: PatchShape::of(vit),
            heads: HeadSizes::of(spec),
            rope_theta: (!tower.learned_positions()).then_some(spec.options.rope.theta),
            drops_first: vit.drops_first(),
            class_token: tower.class_token(),
        })
    }
}

/// The state that the backward of a chunk needs.
pub struct VitKept<B: Backend> {
    stem: Option<NormKept<B>>,
    layers: LayersKept<B, Layer<B>>,
    merger: Option<MergerKept<B>>,
}

impl<B: Backend> ModelChunk<B> for VitChunk<B> {
    type Kept = VitKept<B>;

    fn forward(&self, inputs: Vec<Tensor<B, 2>>, on: &Slice<'_>) -> Tensor<B, 2> {
        let (x_rm, _) = self.start(inputs, on);
        let geometry = self.geometry(on, &x_rm);
        self.end(run::forward(&self.layers, x_rm, &geometry), on).0
    }

    fn forward_kept(
        &self,
        inputs: Vec<Tensor<B, 2>>,
        on: &Slice<'_>,
        strategies: &[LayerStrategy],
    ) -> (Tensor<B, 2>, VitKept<B>) {
        let (x_rm, stem) = self.start(inputs, on);
        let geometry = self.geometry(on, &x_rm);
        let (x_rm, layers) = run::forward_kept(&self.layers, x_rm, geometry, strategies);
        let (y, merger) = self.end(x_rm, on);
        (y, VitKept { stem, layers, merger })
    }

    fn backward(
        &self,
        kept: VitKept<B>,
        dy: Tensor<B, 2>,
        on: &Slice<'_>,
        gradients: &mut Gradients<B>,
    ) -> Vec<Tensor<B, 2>> {
        let dy_rm = self.end_backward(kept.merger, dy, on, gradients);
        let dx_rm = run::backward(&self.layers, kept.layers, dy_rm, gradients);
        self.start_backward(kept.stem, dx_rm, on, gradients)
    }

    fn kept_bytes(kept: &VitKept<B>) -> u64 {
        let stem = kept.stem.as_ref().map_or(0, NormKept::bytes);
        stem + kept.layers.bytes() + kept.merger.as_ref().map_or(0, MergerKept::bytes)
    }
}
