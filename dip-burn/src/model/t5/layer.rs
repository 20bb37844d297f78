//! One layer: attention over the whole caption, with a learned value for every distance in its scores, and a feed-forward network.
//!
//! Shape legend: c tokens of all captions, s tokens of one, l of the longest, m width, h heads, b buckets of distances.

use burn::module::{Module, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, IndexingUpdateOp, Int, Tensor};
use dip_core::{ModuleSpec, T5Spec};

use crate::model::block::attention::{Attention, AttentionGiven, AttentionKept};
use crate::model::block::feed_forward::{FeedForward, FeedForwardKept};
use crate::model::block::geometry::Geometry;
use crate::model::block::layer::Block;
use crate::model::block::norm::{Norm, NormKept};
use crate::model::gradients::{Gradients, bytes_of};
use crate::model::offload::{KeptTensors, TensorVisitor};
use crate::model::{Init, to_f32};
use crate::uploads::ints;

/// The values that all layers of a chunk share.
#[derive(Debug, Clone)]
pub struct T5Shared<B: Backend> {
    /// Tokens of every caption.
    lengths: Vec<usize>,
    /// Tokens of the longest caption.
    longest: usize,
    /// The bucket of every query and key of the longest caption, `[l * l]`.
    buckets: Tensor<B, 1, Int>,
}

impl<B: Backend> T5Shared<B> {
    /// The values for captions of these lengths.
    pub(super) fn of(lengths: Vec<usize>, spec: &T5Spec, device: &B::Device) -> Self {
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let side = longest as u32;
        let pairs = (0..side).flat_map(|query| (0..side).map(move |key| (query, key)));
        let buckets: Vec<i32> = pairs.map(|(query, key)| spec.bucket(query, key) as i32).collect();
        let shape = [buckets.len()];
        Self { lengths, longest, buckets: ints(buckets, shape, device) }
    }

    /// The buckets of a caption of `s` tokens, `[s * s]`.
    fn buckets(&self, s: usize) -> Tensor<B, 1, Int> {
        let all = self.buckets.clone().reshape([self.longest, self.longest]);
        all.slice([0..s, 0..s]).reshape([s * s])
    }
}

/// One layer.
#[derive(Module, Debug)]
pub struct T5Layer<B: Backend> {
    attention_norm: Norm<B>,
    attention: Attention<B>,
    /// What each distance adds to the scores of each head, `[b, h]`.
    distances: Param<Tensor<B, 2>>,
    feed_forward_norm: Norm<B>,
    feed_forward: FeedForward<B>,
}

/// The state that the backward of one layer needs.
#[derive(Debug, Clone)]
pub struct T5LayerParts<B: Backend> {
    attention_norm: NormKept<B>,
    attention: AttentionKept<B>,
    feed_forward_norm: NormKept<B>,
    feed_forward: FeedForwardKept<B>,
}

impl<B: Backend> T5Layer<B> {
    pub(super) fn init(spec: &ModuleSpec, t5: &T5Spec, layer: u32, init: &Init<'_, B>) -> Self {
        let norm = || Norm::rms(spec.hidden as usize, init).with_epsilon(spec.options.norm_epsilon);
        let path = format!("layers.{layer}");
        let shape = [t5.buckets as usize, spec.heads as usize];
        Self {
            attention_norm: norm(),
            attention: Attention::init(spec, &path, init).unscaled(),
            distances: init.matrix(&format!("{path}.distances"), shape, 0.02),
            feed_forward_norm: norm(),
            feed_forward: FeedForward::init(spec, &path, false, init),
        }
    }

    fn geometry(&self, shared: &T5Shared<B>) -> Geometry<B> {
        let (l, [_, h]) = (shared.longest, self.distances.dims());
        let all = to_f32(self.distances.val().select(0, shared.buckets.clone()));
        let all = all.reshape([1, l, l, h]).permute([0, 3, 1, 2]);
        let of_caption = |&s: &usize| all.clone().slice([0..1, 0..h, 0..s, 0..s]);
        Geometry::biased(&shared.lengths, shared.lengths.iter().map(of_caption).collect())
    }

    /// The gradient of the distances from the gradients of the scores of every caption, `[1, h, s, s]`.
    fn distances_backward(
        d_scores: Vec<Tensor<B, 4>>,
        shared: &T5Shared<B>,
        shape: [usize; 2],
    ) -> Tensor<B, 2> {
        let device = shared.buckets.device();
        let zeros = Tensor::zeros(shape, (&device, DType::F32));
        d_scores.into_iter().zip(&shared.lengths).fold(zeros, |sum, (d, &s)| {
            let d = to_f32(d).permute([0, 2, 3, 1]).reshape([s * s, shape[1]]);
            sum.select_assign(0, shared.buckets(s), d, IndexingUpdateOp::Add)
        })
    }
}

impl<B: Backend> KeptTensors<B> for T5LayerParts<B> {
    fn each<V: TensorVisitor<B>>(&mut self, visit: &mut V) {
        self.attention_norm.each(visit);
        self.attention.each(visit);
        self.feed_forward_norm.each(visit);
        self.feed_forward.each(visit);
    }
}

impl<B: Backend> Block<B> for T5Layer<B> {
    type Stream = Tensor<B, 2>;
    type Shared = T5Shared<B>;
    type Parts = T5LayerParts<B>;

    fn forward(&self, x_cm: Tensor<B, 2>, shared: &T5Shared<B>) -> (Tensor<B, 2>, T5LayerParts<B>) {
        let (normed, attention_norm) = self.attention_norm.forward(x_cm.clone());
        let (y_cm, attention) = self.attention.forward(normed, &self.geometry(shared));
        let x_cm = x_cm + y_cm;
        let (normed, feed_forward_norm) = self.feed_forward_norm.forward(x_cm.clone());
        let (y_cm, feed_forward) = self.feed_forward.forward(normed);
        (x_cm + y_cm, T5LayerParts { attention_norm, attention, feed_forward_norm, feed_forward })
    }

    fn backward(
        &self,
        parts: T5LayerParts<B>,
        dy: Tensor<B, 2>,
        shared: &T5Shared<B>,
        gradients: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        let normed = self.feed_forward_norm.output(&parts.feed_forward_norm);
        let d = self.feed_forward.backward(normed, parts.feed_forward, dy.clone(), gradients);
        let dx = dy + self.feed_forward_norm.backward(parts.feed_forward_norm, d, gradients);
        let geometry = self.geometry(shared);
        let (attention, kept, shape) =
            (self.attention.clone(), parts.attention.clone(), self.distances.dims());
        let (own, for_scores, shared) = (geometry.clone(), dx.clone(), shared.clone());
        gradients.add(&self.distances, move || {
            let d_scores = attention.score_gradients(kept, for_scores, &own);
            Self::distances_backward(d_scores, &shared, shape)
        });
        let normed = self.attention_norm.output(&parts.attention_norm);
        let given = AttentionGiven { kept: parts.attention, dy: dx.clone(), geometry: &geometry };
        let d = self.attention.backward(normed, given, gradients);
        dx + self.attention_norm.backward(parts.attention_norm, d, gradients)
    }

    fn selective(parts: T5LayerParts<B>) -> T5LayerParts<B> {
        T5LayerParts { attention: parts.attention.selective(), ..parts }
    }

    fn parts_bytes(parts: &T5LayerParts<B>) -> u64 {
        parts.attention_norm.bytes()
            + parts.attention.bytes()
            + parts.feed_forward_norm.bytes()
            + parts.feed_forward.bytes()
    }

    fn shared_bytes(shared: &T5Shared<B>) -> u64 {
        (shared.buckets.dtype().size() * shared.longest * shared.longest) as u64
    }

    fn stream_bytes(x_cm: &Tensor<B, 2>) -> u64 {
        bytes_of(x_cm)
    }
}
