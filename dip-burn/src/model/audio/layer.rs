//! The layers of the audio encoder: full attention inside each sound, without rotary positions.

use burn::tensor::backend::Backend;
use dip_core::ModuleSpec;

use crate::model::Init;
use crate::model::block::attention::Attention;
use crate::model::block::feed_forward::FeedForward;
use crate::model::block::layer::Layer;
use crate::model::block::norm::Norm;

/// Layer `number` of an encoder.
pub(super) fn init<B: Backend>(spec: &ModuleSpec, number: u32, init: &Init<'_, B>) -> Layer<B> {
    let norm = || Norm::layer(spec.hidden as usize, init).with_epsilon(spec.options.norm_epsilon);
    let path = format!("layers.{number}");
    Layer {
        attention_norm: norm(),
        attention: Attention::init(spec, &path, init),
        feed_forward_norm: norm(),
        feed_forward: FeedForward::init(spec, &path, true, init),
    }
}
