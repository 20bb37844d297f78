//! How many weights a module has, part by part.
//!
//! Matrices and tables are counted; norms and biases, under 0.1 % of the modules of the paper, are not.

use crate::spec::ids::ModuleId;
use crate::spec::model::{ModelSpec, ModuleKind, ModuleSpec};

/// Width of the sinusoidal embedding of a diffusion step.
const STEP_EMBEDDING: u64 = 256;
/// Mel bands of a frame of sound, as in Whisper.
pub const MEL_BANDS: u64 = 128;
/// Width of the two convolutions at the start of an audio encoder, in frames, as in Whisper.
pub const AUDIO_KERNEL: u64 = 3;

/// Weights of one module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModuleParameters {
    /// Of one layer.
    pub layer: u64,
    /// Number of layers.
    pub layers: u32,
    /// Of what stands before the first layer: embeddings and convolutions.
    pub first: u64,
    /// Of what stands behind the last layer: adapter, head, or output projection.
    pub last: u64,
}

impl ModuleParameters {
    /// Of the whole module.
    pub fn total(&self) -> u64 {
        let layers = self.layer.saturating_mul(self.layers.into());
        layers.saturating_add(self.first).saturating_add(self.last)
    }
}

impl ModuleSpec {
    /// Weights of one layer: query, key, value and output projections, the feed-forward network, and in a diffusion
    /// transformer a second attention over its inputs.
    pub fn layer_parameters(&self) -> u64 {
        let hidden = u64::from(self.hidden);
        let query = u64::from(self.heads) * u64::from(self.head_dim());
        let key_value = u64::from(self.kv_heads()) * u64::from(self.head_dim());
        let attention = hidden * (2 * query + 2 * key_value);
        let feed_forward = (if self.gated_ffn() { 3 } else { 2 }) * hidden * u64::from(self.ffn);
        let cross = matches!(self.kind, ModuleKind::Dit { .. });
        attention * if cross { 2 } else { 1 } + feed_forward
    }

    /// Width of a merged token before the adapter; the width of the module where nothing is merged.
    pub fn merged_width(&self) -> u64 {
        let hidden = u64::from(self.hidden);
        match self.kind {
            ModuleKind::Vit { merge, .. } => hidden * u64::from(merge) * u64::from(merge),
            ModuleKind::Audio { merge, .. } => hidden * u64::from(merge),
            ModuleKind::Decoder { .. } | ModuleKind::Dit { .. } => hidden,
        }
    }

    /// Inner width of the adapter: `adapter_hidden`, or the merged width as in Qwen2-VL.
    pub fn adapter_width(&self) -> u64 {
        self.adapter_hidden.map_or_else(|| self.merged_width(), u64::from)
    }

    fn first_parameters(&self, input_width: u64) -> u64 {
        let hidden = u64::from(self.hidden);
        match self.kind {
            ModuleKind::Vit { patch_px, tower, .. } => {
                let frames = u64::from(tower.frames());
                let table =
                    u64::from(tower.learned_positions()) * u64::from(self.patches_per_image());
                (3 * frames * u64::from(patch_px).pow(2) + table) * hidden
            }
            ModuleKind::Audio { .. } => AUDIO_KERNEL * hidden * (MEL_BANDS + hidden),
            ModuleKind::Decoder { vocab, .. } => u64::from(vocab) * hidden,
            // Patch embedding, context projection, two layers for the diffusion step, and one adaptive norm (scale, shift
            // and gate, twice) that all layers share.
            ModuleKind::Dit { token_channels, .. } => {
                let step = hidden * (STEP_EMBEDDING + hidden);
                hidden * (u64::from(token_channels) + input_width + 6 * hidden) + step
            }
        }
    }

    fn last_parameters(&self, output_width: u64) -> u64 {
        let hidden = u64::from(self.hidden);
        match self.kind {
            ModuleKind::Vit { .. } | ModuleKind::Audio { .. } => {
                self.adapter_width().saturating_mul(self.merged_width() + output_width)
            }
            // A tied head counts, too: the rank that ends the module holds a copy of the table.
            ModuleKind::Decoder { vocab, head, .. } => u64::from(head) * u64::from(vocab) * hidden,
            ModuleKind::Dit { token_channels, .. } => hidden * u64::from(token_channels),
        }
    }
}

impl ModelSpec {
    /// Weights of a module. Its adapter is as wide as the widest consumer, its context projection reads every input.
    pub fn parameters(&self, module: ModuleId) -> ModuleParameters {
        let spec = &self.modules[module.index()];
        let inputs = self.inputs_of(module);
        let input: u64 = inputs.iter().map(|m| u64::from(self.modules[m.index()].hidden)).sum();
        ModuleParameters {
            layer: spec.layer_parameters(),
            layers: spec.layers,
            first: spec.first_parameters(input),
            last: spec.last_parameters(self.output_width(module)),
        }
    }

    /// Width of what a module hands on: that of its widest consumer behind an adapter, its own otherwise.
    pub fn output_width(&self, module: ModuleId) -> u64 {
        let spec = &self.modules[module.index()];
        match spec.kind {
            ModuleKind::Vit { .. } | ModuleKind::Audio { .. } => {
                let consumers = self.consumers_of(module);
                let widths = consumers.iter().map(|m| self.modules[m.index()].hidden);
                u64::from(widths.max().unwrap_or(spec.hidden))
            }
            ModuleKind::Decoder { .. } | ModuleKind::Dit { .. } => u64::from(spec.hidden),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::presets;

    #[test]
    fn llama_3_8b_has_its_published_weights() {
        let model = presets::model("vlm-s").unwrap();
        let (id, _) = model.module("language").unwrap();
        // 8,030,261,248 are published, of which 65 norms of 4,096 are not counted here.
        assert_eq!(model.parameters(id).total(), 8_030_261_248 - 65 * 4096);
    }

    #[test]
    fn the_merger_is_square_unless_its_inner_width_is_given() {
        let mut model = presets::model("vlm-tiny").unwrap();
        let (id, _) = model.module("vision").unwrap();
        assert_eq!(model.parameters(id).last, 384 * 384 + 384 * 128);
        model.modules[id.index()].adapter_hidden = Some(64);
        assert_eq!(model.parameters(id).last, 384 * 64 + 64 * 128);
    }

    #[test]
    fn a_text_encoder_has_no_head() {
        let model = presets::model("t2v-tiny").unwrap();
        let (id, text) = model.module("text").unwrap();
        let parameters = model.parameters(id);
        assert_eq!((parameters.first, parameters.last), (260 * 96, 0));
        assert_eq!(text.layer_parameters(), 96 * (2 * 96 + 2 * 48) + 3 * 96 * 256);
    }
}
