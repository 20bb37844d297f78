//! Decoders: language models and text encoders.

use serde::{Deserialize, Serialize};

use super::{
    AttentionBias, Filling, InstanceSpace, MicrobatchMeta, Modality, ModuleSlice, ModuleSpec,
    Workload, add, causal_block_pairs, document_pairs, triangle, window_block_pairs, window_pairs,
};
use crate::spec::error::FieldError;

/// Causal language model: a backbone with a head, or a text encoder without.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DecoderSpec {
    /// Tokens in the vocabulary.
    pub vocab: u32,
    /// True if it ends in a head and a loss.
    #[serde(default = "default_head")]
    pub head: bool,
    /// True if the head is the token table; both then learn from the sum of their gradients.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tied: bool,
    /// Weight of the squared logarithm of the softmax's denominator in the loss of a token (z-loss); 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub z_loss: f64,
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

const fn default_head() -> bool {
    true
}

impl DecoderSpec {
    /// True if the head is the token table.
    pub fn is_tied(&self) -> bool {
        self.head && self.tied
    }
}

/// A decoder reads the packed sequence, or one caption for each clip in microbatches without a sequence.
impl Modality for DecoderSpec {
    fn name(&self) -> &str {
        "decoder"
    }

    fn validate(&self, module: &ModuleSpec) -> Result<(), FieldError> {
        let path = module.path("kind.decoder.z_loss");
        FieldError::check_range(path, self.z_loss, 0.0..=1e3, "try 1e-4")?;
        module.check("kind.decoder.vocab", self.vocab, 1 << 24)
    }

    fn instances(&self, _: &ModuleSpec, microbatch: &MicrobatchMeta) -> (InstanceSpace, u32) {
        match microbatch.has_sequence() {
            true => (InstanceSpace::Sequence, 1),
            false => (InstanceSpace::Clips, microbatch.clips.len() as u32),
        }
    }

    fn workload(&self, slice: &ModuleSlice<'_>) -> Workload {
        let mut work = slice.empty_workload();
        let microbatch = slice.microbatch;
        if microbatch.has_sequence() {
            let (tokens, documents) =
                (slice.model.sequence_length(microbatch), &microbatch.documents);
            work.tokens = tokens;
            let pairs = PairsOfLayers::of(slice.module);
            work.attention_pairs = document_pairs(tokens, documents, |length| {
                pairs.mean(triangle(length), |window| window_pairs(length, window))
            });
            work.computed_pairs = document_pairs(tokens, documents, |length| {
                pairs.mean(causal_block_pairs(length), |window| window_block_pairs(length, window))
            });
            work.trained_tokens = microbatch.text_tokens;
        } else {
            let range = slice.instances.start as usize..slice.instances.end as usize;
            for clip in &microbatch.clips[range] {
                work.tokens += clip.caption_tokens;
                add(&mut work.attention_pairs, triangle(clip.caption_tokens));
                add(&mut work.computed_pairs, causal_block_pairs(clip.caption_tokens));
            }
        }
        work.output_tokens = work.tokens;
        work
    }

    fn sequence_tokens(&self, _: &ModuleSpec, _: &MicrobatchMeta) -> u64 {
        0
    }

    fn start_parameters(&self, module: &ModuleSpec, _: u64) -> u64 {
        u64::from(self.vocab) * u64::from(module.hidden)
    }

    /// A tied head counts, too: the rank that ends the module holds a copy of the table.
    fn end_parameters(&self, module: &ModuleSpec, _: u64) -> u64 {
        u64::from(self.head) * u64::from(self.vocab) * u64::from(module.hidden)
    }

    fn has_adapter(&self) -> bool {
        false
    }

    fn has_loss(&self) -> bool {
        self.head
    }

    fn gated_ffn(&self) -> bool {
        true
    }

    fn attention_bias(&self) -> AttentionBias {
        AttentionBias::None
    }

    /// The text of a sequence is what other modalities leave room for.
    fn fill(&self, _: &Filling<'_>, _: &mut MicrobatchMeta) {}

    fn microbatch_of(&self, _: &ModuleSpec, tokens: u64) -> MicrobatchMeta {
        MicrobatchMeta { text_tokens: tokens, ..MicrobatchMeta::default() }
    }
}

/// The layers of a decoder with and without a window. A workload has one number of pairs for all layers: their mean.
struct PairsOfLayers {
    layers: u64,
    windowed: u64,
    /// Tokens of a window; 0 if no layer has one.
    window: u64,
}

impl PairsOfLayers {
    fn of(module: &ModuleSpec) -> Self {
        let layers = u64::from(module.layers);
        let window = module.options.window.as_ref();
        let windowed = window.map_or(0, |w| layers.saturating_sub(w.full_layers.len() as u64));
        Self { layers, windowed, window: window.map_or(0, |w| u64::from(w.tokens)) }
    }

    fn mean(&self, whole: u64, of_window: impl Fn(u64) -> u64) -> u64 {
        if self.windowed == 0 {
            return whole;
        }
        let (layers, windowed) = (u128::from(self.layers), u128::from(self.windowed));
        let sum =
            u128::from(whole) * (layers - windowed) + u128::from(of_window(self.window)) * windowed;
        u64::try_from(sum / layers).unwrap_or(u64::MAX)
    }
}

impl ModuleSpec {
    /// True if this is a decoder whose head is its token table.
    pub fn is_tied(&self) -> bool {
        self.kind.get::<DecoderSpec>().is_some_and(DecoderSpec::is_tied)
    }
}
