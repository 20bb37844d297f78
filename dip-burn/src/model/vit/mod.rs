//! The vision encoder: of the Qwen-VL type, or of the CLIP type with a `stem`.
//!
//! Images may have different sizes: their patches are packed one after another, without padding, and attend only to patches of
//! the same frame of the same view, in some layers only to those of the same window.
//!
//! Shape legend: q patches of all images, r rows of all images (their patches, and a class token for each view if there is one),
//! c values of a patch, m width, t tokens after merging, o width of the decoder.

mod arrange;
mod end;
mod frames;
mod layer;
mod modality;
mod segment;
mod start;
mod stem;
mod table;
mod windows;

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::{LayerStrategy, VitSpec};

use super::block::heads::HeadSizes;
use super::block::layer::Layer;
use super::block::linear::Linear;
use super::block::merger::{Merger, MergerKept};
use super::block::norm::NormKept;
use super::chunk::unread_gradients;
use super::{ChunkSpec, Gradients, Init, Matrix, ModelChunk, ModelError, Slice};
pub use modality::VitModality;
use segment::{Segment, SegmentKept, segments};
pub use start::PatchShape;
use stem::Stem;
use table::PositionTable;

/// Consecutive layers of the encoder, with its patch embedding in the first chunk and its adapter in the last.
#[derive(Module, Debug)]
pub struct VitChunk<B: Backend> {
    patch_embed: Option<Linear<B>>,
    /// The stem, if all positions are learned.
    stem: Option<Stem<B>>,
    /// Learned positions beside rotary ones.
    positions: Option<PositionTable<B>>,
    layers: Vec<Layer<B>>,
    /// The adapters of features from inside the encoder, by number, if they follow layers of this chunk.
    stacked: Vec<Option<Merger<B>>>,
    merger: Option<Merger<B>>,
    /// The learned end of a row of tiles, `[1, output width]`, in the last chunk of an encoder with tiles.
    newline: Option<Matrix<B>>,
    patch: PatchShape,
    heads: HeadSizes,
    #[module(skip)]
    segments: Vec<Segment>,
    /// Side of a window in tokens, if some layers of the module have windows.
    #[module(skip)]
    window_side: Option<u32>,
    /// Base of the angles of rotary positions; none if all positions are learned.
    #[module(skip)]
    rope_theta: Option<f64>,
    /// True if the first row of a view is dropped before the adapter.
    #[module(skip)]
    drops_first: bool,
    /// True if a class token precedes the patches of a view.
    #[module(skip)]
    class_token: bool,
    /// Width of the residual stream, and of a token of the decoder.
    #[module(skip)]
    widths: [usize; 2],
    /// True if only the adapter runs a backward.
    #[module(skip)]
    has_frozen_tower: bool,
}

impl<B: Backend> VitChunk<B> {
    /// A chunk of the encoder with settings `vit`.
    ///
    /// # Errors
    /// [`ModelError::Field`] if the head size does not support rotary positions, or the tower does not support windows or features.
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
        let is_plain = vit.window.is_none() && vit.position_side.is_none();
        if tower.learned_positions() && !(is_plain && vit.stacked_layers.is_empty()) {
            let limit = "native, qwen2_vl or qwen3_vl: other towers have no windows, position_side or stacked_layers";
            return Err(ModelError::field(spec, "kind.vit.tower", format!("{tower:?}"), limit));
        }
        let (width, output) = (spec.hidden as usize, chunk.output_width());
        let values = 3 * (tower.frames() * vit.patch_px * vit.patch_px) as usize;
        let patch_embed = || {
            let std = (1.0 / values as f64).sqrt();
            init.linear("patch_embed", values, width, tower.patch_bias(), std)
        };
        let newline = || init.matrix("newline", [1, output], (1.0 / output as f64).sqrt());
        let stacked = |(number, layer): (usize, &u32)| {
            chunk.layers.contains(layer).then(|| Merger::stacked(spec, number, output, init))
        };
        let first = chunk.is_first();
        let table = vit.position_side.filter(|_| first);
        Ok(Self {
            patch_embed: first.then(patch_embed),
            stem: (first && tower.learned_positions()).then(|| Stem::init(spec, vit, init)),
            positions: table.map(|side| PositionTable::init(spec, side, init)),
            layers: chunk.layers.clone().map(|i| layer::init(spec, i, init)).collect(),
            stacked: vit.stacked_layers.iter().enumerate().map(stacked).collect(),
            merger: chunk.is_last().then(|| Merger::init(spec, output, init)),
            newline: (chunk.is_last() && vit.tiles.is_some()).then(newline),
            patch: PatchShape::of(vit),
            heads: HeadSizes::of(spec),
            segments: segments(vit, &chunk.layers),
            window_side: vit.window_side(),
            rope_theta: (!tower.learned_positions()).then_some(spec.options.rope.theta),
            drops_first: vit.drops_first(),
            class_token: tower.class_token(),
            widths: [width, output],
            has_frozen_tower: spec.has_frozen_tower(),
        })
    }
}

/// The state that the backward of a chunk needs.
pub struct VitKept<B: Backend> {
    stem: Option<NormKept<B>>,
    segments: Vec<SegmentKept<B>>,
    /// Bytes of positions and masks, which all segments share.
    geometry_bytes: u64,
    merger: Option<MergerKept<B>>,
}

/// The residual stream, and the features that the chunks before have merged.
struct Stream<B: Backend> {
    /// `[r, m]`
    x_rm: Tensor<B, 2>,
    /// `[t, o]` each.
    features: Vec<Tensor<B, 2>>,
}

impl<B: Backend> ModelChunk<B> for VitChunk<B> {
    type Kept = VitKept<B>;

    fn forward(&self, inputs: Vec<Tensor<B, 2>>, on: &Slice<'_>) -> Tensor<B, 2> {
        let frames = self.frames(on);
        let (stream, _) = self.start(inputs, &frames, on);
        let geometry = self.geometry(&frames, &stream.x_rm.device());
        let stream = self.run(stream, &geometry);
        self.end(stream, (&frames, on)).0
    }

    fn forward_kept(
        &self,
        inputs: Vec<Tensor<B, 2>>,
        on: &Slice<'_>,
        strategies: &[LayerStrategy],
    ) -> (Tensor<B, 2>, VitKept<B>) {
        let frames = self.frames(on);
        let (stream, stem) = self.start(inputs, &frames, on);
        let geometry = self.geometry(&frames, &stream.x_rm.device());
        if self.has_frozen_tower {
            let stream = self.run(stream, &geometry);
            let (y, merger) = self.end(stream, (&frames, on));
            return (y, VitKept { stem: None, segments: Vec::new(), geometry_bytes: 0, merger });
        }
        let (stream, segments) = self.run_kept(stream, &geometry, strategies);
        let (y, merger) = self.end(stream, (&frames, on));
        (y, VitKept { stem, segments, geometry_bytes: geometry.bytes(), merger })
    }

    fn backward(
        &self,
        kept: VitKept<B>,
        dy: Tensor<B, 2>,
        on: &Slice<'_>,
        gradients: &mut Gradients<B>,
    ) -> Vec<Tensor<B, 2>> {
        let frames = self.frames(on);
        if self.has_frozen_tower {
            let unread = unread_gradients(self.patch_embed.is_some(), &dy);
            if kept.merger.is_some() {
                self.end_backward(kept.merger, dy, (&frames, on), gradients);
            }
            return unread;
        }
        let d = self.end_backward(kept.merger, dy, (&frames, on), gradients);
        let d = self.run_backward(kept.segments, d, gradients);
        self.start_backward(kept.stem, d, (&frames, on), gradients)
    }

    fn kept_bytes(kept: &VitKept<B>) -> u64 {
        let stem = kept.stem.as_ref().map_or(0, NormKept::bytes);
        let segments = kept.segments.iter().map(SegmentKept::bytes).sum::<u64>();
        let merger = kept.merger.as_ref().map_or(0, MergerKept::bytes);
        stem + segments + kept.geometry_bytes + merger
    }
}
