//! One layer: self-attention inside every clip, cross attention to its caption, and a feed-forward network.
//!
//! Shape legend: n clips, r their tokens, c tokens of their captions, m width.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::ModuleSpec;

use super::modulation::{Modulation, PARTS, modulation_std, own_backward};
use crate::kernels::{ClipRows, ClipTables};
use crate::model::Init;
use crate::model::block::attention::{Attention, AttentionGiven, AttentionKept};
use crate::model::block::feed_forward::{FeedForward, FeedForwardKept};
use crate::model::block::geometry::Geometry;
use crate::model::block::layer::Block;
use crate::model::block::norm::{Norm, NormKept};
use crate::model::gradients::{Gradients, bytes_of};
use crate::model::offload::{KeptTensors, TensorVisitor};

/// The tensors that pass from layer to layer: the clips, and their conditions, which layers only read.
#[derive(Debug, Clone)]
pub struct DitStream<B: Backend> {
    /// `[r, m]`
    pub x_rm: Tensor<B, 2>,
    /// Captions, `[c, m]`; in Wan with one row of padding after each.
    pub context_cm: Tensor<B, 2>,
    /// Tables of the diffusion steps and whole captions, `[n, 6 * m]`; in Wan of the steps alone, with their embedding as a seventh
    /// part.
    pub steps: Tensor<B, 2>,
}

/// The values that all layers of a chunk share.
pub struct DitShared<B: Backend> {
    /// Self-attention inside every clip.
    pub own: Geometry<B>,
    /// Attention of every clip to its caption.
    pub cross: Geometry<B>,
    /// Which rows belong to which clip.
    pub(super) clips: ClipRows<B>,
}

/// One layer. The diffusion step modulates self-attention and feed-forward network.
#[derive(Module, Debug)]
pub struct DitLayer<B: Backend> {
    modulation: Param<Tensor<B, 2>>,
    attention_norm: Norm<B>,
    attention: Attention<B>,
    cross_norm: Norm<B>,
    cross: Attention<B>,
    feed_forward_norm: Norm<B>,
    feed_forward: FeedForward<B>,
    /// True if gates are the values of their table.
    plain_gates: bool,
}

/// The state that the backward of one layer needs.
pub struct DitLayerParts<B: Backend> {
    steps: Tensor<B, 2>,
    context_cm: Tensor<B, 2>,
    attention_norm: NormKept<B>,
    attention: AttentionKept<B>,
    /// Before its gate.
    attended: Tensor<B, 2>,
    cross_norm: NormKept<B>,
    cross: AttentionKept<B>,
    feed_forward_norm: NormKept<B>,
    feed_forward: FeedForwardKept<B>,
    /// Before its gate.
    feed_forward_output: Tensor<B, 2>,
}

impl<B: Backend> DitLayer<B> {
    pub(super) fn init(spec: &ModuleSpec, is_wan: bool, layer: u32, init: &Init<'_, B>) -> Self {
        let (width, path) = (spec.hidden as usize, format!("layers.{layer}"));
        let epsilon = spec.options.norm_epsilon;
        let norm = || match is_wan {
            true => Norm::layer_without_weights().with_epsilon(epsilon),
            false => Norm::rms(width, init).with_epsilon(epsilon),
        };
        let cross_norm = match is_wan {
            true => Norm::layer(width, init).with_epsilon(epsilon),
            false => Norm::rms(width, init).with_epsilon(epsilon),
        };
        let std = modulation_std(is_wan, width);
        Self {
            modulation: init.matrix(&format!("{path}.modulation"), [1, PARTS * width], std),
            attention_norm: norm(),
            attention: Attention::init(spec, &path, init),
            cross_norm,
            cross: Attention::init(spec, &format!("{path}.cross"), init),
            feed_forward_norm: norm(),
            feed_forward: FeedForward::init(spec, &path, true, init),
            plain_gates: is_wan,
        }
    }

    fn modulation<'a>(
        &self,
        steps_na: &'a Tensor<B, 2>,
        own_1k: &'a Tensor<B, 2>,
        shared: &'a DitShared<B>,
    ) -> Modulation<'a, B> {
        let modulation = Modulation::new(ClipTables { steps_na, own_1k, clips: &shared.clips });
        if self.plain_gates { modulation.with_plain_gates() } else { modulation }
    }
}

/// Diffusion steps and captions stay on the device: all layers share them.
impl<B: Backend> KeptTensors<B> for DitLayerParts<B> {
    fn each<V: TensorVisitor<B>>(&mut self, visit: &mut V) {
        self.attention_norm.each(visit);
        self.attention.each(visit);
        visit.tensor(&mut self.attended);
        self.cross_norm.each(visit);
        self.cross.each(visit);
        self.feed_forward_norm.each(visit);
        self.feed_forward.each(visit);
        visit.tensor(&mut self.feed_forward_output);
    }
}

impl<B: Backend> Block<B> for DitLayer<B> {
    type Stream = DitStream<B>;
    type Shared = DitShared<B>;
    type Parts = DitLayerParts<B>;

    fn forward(
        &self,
        stream: DitStream<B>,
        shared: &DitShared<B>,
    ) -> (DitStream<B>, DitLayerParts<B>) {
        let DitStream { x_rm, context_cm, steps } = stream;
        let own = self.modulation.val();
        let modulation = self.modulation(&steps, &own, shared);
        let (normed, attention_norm) = self.attention_norm.forward(x_rm.clone());
        let (attended, attention) =
            self.attention.forward(modulation.scaled(normed, 0), &shared.own);
        let x_rm = modulation.gated(x_rm, attended.clone(), 2);
        let (normed, cross_norm) = self.cross_norm.forward(x_rm.clone());
        let (y_rm, cross) = self.cross.forward_over([normed, context_cm.clone()], &shared.cross);
        let x_rm = x_rm + y_rm;
        let (normed, feed_forward_norm) = self.feed_forward_norm.forward(x_rm.clone());
        let (feed_forward_output, feed_forward) =
            self.feed_forward.forward(modulation.scaled(normed, 3));
        let x_rm = modulation.gated(x_rm, feed_forward_output.clone(), 5);
        let (context, tables) = (context_cm.clone(), steps.clone());
        let parts = DitLayerParts {
            steps: tables,
            context_cm: context,
            attention_norm,
            attention,
            attended,
            cross_norm,
            cross,
            feed_forward_norm,
            feed_forward,
            feed_forward_output,
        };
        (DitStream { x_rm, context_cm, steps }, parts)
    }

    fn backward(
        &self,
        parts: DitLayerParts<B>,
        dy: DitStream<B>,
        shared: &DitShared<B>,
        gradients: &mut Gradients<B>,
    ) -> DitStream<B> {
        let own = self.modulation.val();
        let modulation = self.modulation(&parts.steps, &own, shared);
        let d_steps = dy.steps.zeros_like();
        let dx = dy.x_rm;
        // The feed-forward network.
        let (d, d_steps) =
            modulation.gated_backward(parts.feed_forward_output, dx.clone(), 5, d_steps);
        let normed = self.feed_forward_norm.output(&parts.feed_forward_norm);
        let input = modulation.scaled(normed.clone(), 3);
        let d = self.feed_forward.backward(input, parts.feed_forward, d, gradients);
        let (d, d_steps) = modulation.scaled_backward(normed, d, 3, d_steps);
        let dx = dx + self.feed_forward_norm.backward(parts.feed_forward_norm, d, gradients);
        // Cross attention.
        let inputs = [self.cross_norm.output(&parts.cross_norm), parts.context_cm];
        let (kept, geometry) = (parts.cross, &shared.cross);
        let given = AttentionGiven { kept, dy: dx.clone(), geometry };
        let [d, d_context] = self.cross.backward_over(inputs, given, gradients);
        let dx = dx + self.cross_norm.backward(parts.cross_norm, d, gradients);
        // Self-attention.
        let (d, d_steps) = modulation.gated_backward(parts.attended, dx.clone(), 2, d_steps);
        let normed = self.attention_norm.output(&parts.attention_norm);
        let input = modulation.scaled(normed.clone(), 0);
        let given = AttentionGiven { kept: parts.attention, dy: d, geometry: &shared.own };
        let d = self.attention.backward(input, given, gradients);
        let (d, d_steps) = modulation.scaled_backward(normed, d, 0, d_steps);
        let dx = dx + self.attention_norm.backward(parts.attention_norm, d, gradients);
        own_backward(&self.modulation, &d_steps, gradients);
        DitStream { x_rm: dx, context_cm: dy.context_cm + d_context, steps: dy.steps + d_steps }
    }

    fn selective(parts: DitLayerParts<B>) -> DitLayerParts<B> {
        let (attention, cross) = (parts.attention.selective(), parts.cross.selective());
        DitLayerParts { attention, cross, ..parts }
    }

    fn parts_bytes(p: &DitLayerParts<B>) -> u64 {
        let norms = [&p.attention_norm, &p.cross_norm, &p.feed_forward_norm];
        norms.into_iter().map(NormKept::bytes).sum::<u64>()
            + p.attention.bytes()
            + p.cross.bytes()
            + p.feed_forward.bytes()
            + bytes_of(&p.attended)
            + bytes_of(&p.feed_forward_output)
    }

    fn shared_bytes(shared: &DitShared<B>) -> u64 {
        shared.own.bytes() + shared.cross.bytes() + shared.clips.bytes()
    }

    fn stream_bytes(x: &DitStream<B>) -> u64 {
        bytes_of(&x.x_rm)
    }
}
