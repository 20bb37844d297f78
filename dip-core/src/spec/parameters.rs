//! The number of weights of each part of a module.
//!
//! Matrices and tables are counted. Norms and biases are not; they are under 0.1 % of the modules of the paper.

use std::ops::Range;

use crate::spec::ids::ModuleId;
use crate::spec::model::{LoraTarget, ModelSpec, ModuleSpec};

/// Weights of one module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModuleParameters {
    /// Weights of one layer.
    pub layer: u64,
    /// Number of layers.
    pub layers: u32,
    /// Weights before the first layer: embeddings and convolutions.
    pub first: u64,
    /// Weights after the last layer: adapter, head or output projection.
    pub last: u64,
    /// Weights of the adapter after each of [`Modality::stacked_layers`](crate::Modality::stacked_layers).
    pub stacked: u64,
    /// Number of those adapters.
    pub stacked_layers: u32,
}

impl ModuleParameters {
    /// Weights of the whole module.
    pub fn total(&self) -> u64 {
        let layers = self.layer.saturating_mul(self.layers.into());
        let stacked = self.stacked.saturating_mul(self.stacked_layers.into());
        layers.saturating_add(self.first).saturating_add(self.last).saturating_add(stacked)
    }
}

impl ModuleSpec {
    /// Weights of one layer: query, key, value and output projections of each attention block, and the feed-forward network.
    pub fn layer_parameters(&self) -> u64 {
        let hidden = u64::from(self.hidden);
        let query = u64::from(self.heads) * u64::from(self.head_dim());
        let key_value = u64::from(self.kv_heads()) * u64::from(self.head_dim());
        let attention = hidden * (2 * query + 2 * key_value);
        let feed_forward = (if self.gated_ffn() { 3 } else { 2 }) * hidden * u64::from(self.ffn);
        attention * self.kind.modality().attention_blocks() + feed_forward
    }

    /// Width of a merged token before the adapter; the width of the module if nothing is merged.
    pub fn merged_width(&self) -> u64 {
        u64::from(self.hidden) * self.kind.modality().merged_rows()
    }

    /// Inner width of the adapter: `adapter_hidden`, or the merged width as in Qwen2-VL.
    pub fn adapter_width(&self) -> u64 {
        self.adapter_hidden.map_or_else(|| self.merged_width(), u64::from)
    }
}

impl ModelSpec {
    /// Weights of a module. Its adapter has the width of the widest consumer, and its context projection reads every input.
    pub fn parameters(&self, module: ModuleId) -> ModuleParameters {
        let spec = &self.modules[module.index()];
        let modality = spec.kind.modality();
        let inputs = self.inputs_of(module);
        let input: u64 = inputs.iter().map(|m| u64::from(self.modules[m.index()].hidden)).sum();
        let last = modality.end_parameters(spec, self.output_width(module));
        let stacked_layers = modality.stacked_layers().len() as u32;
        ModuleParameters {
            layer: spec.layer_parameters(),
            layers: spec.layers,
            first: modality.start_parameters(spec, input),
            last,
            stacked: if stacked_layers > 0 { last } else { 0 },
            stacked_layers,
        }
    }

    /// Width of the output of a module: the width of its widest consumer if it has an adapter, else its own width.
    pub fn output_width(&self, module: ModuleId) -> u64 {
        let spec = &self.modules[module.index()];
        if !spec.kind.modality().has_adapter() {
            return u64::from(spec.hidden);
        }
        let widths = self.consumers_of(module).into_iter().map(|m| self.modules[m.index()].hidden);
        u64::from(widths.max().unwrap_or(spec.hidden))
    }
}

impl ModelSpec {
    /// Values of a row that a chunk ending before layer `end` of a module passes on: of the residual stream, or of the output of
    /// the module, with the features of [`Modality::stacked_layers`](crate::Modality::stacked_layers) beside them.
    pub fn passed_width(&self, module: ModuleId, end: u32) -> u64 {
        let spec = &self.modules[module.index()];
        let modality = spec.kind.modality();
        let before_end = modality.stacked_layers().iter().filter(|&&layer| layer < end).count();
        if end >= spec.layers {
            return self.output_width(module).saturating_mul(1 + before_end as u64);
        }
        // A feature has one row for the rows that it merges; they pass on equal parts of it.
        let part = self.output_width(module) / modality.merged_rows().max(1);
        let received = self.stacked_features(module).saturating_sub(end);
        let (hidden, own) = (u64::from(spec.hidden), part.saturating_mul(before_end as u64));
        hidden.saturating_mul(1 + u64::from(received)).saturating_add(own)
    }

    /// Number of layers of a module whose outputs get a feature of an encoder added.
    pub fn stacked_features(&self, module: ModuleId) -> u32 {
        let features =
            |m: ModuleId| self.modules[m.index()].kind.modality().stacked_layers().len() as u32;
        self.inputs_of(module).into_iter().map(features).max().unwrap_or(0)
    }
}

impl ModuleSpec {
    /// Weights of the adapters of one layer; 0 without adapters.
    pub fn adapter_parameters(&self) -> u64 {
        let Some(lora) = &self.lora else { return 0 };
        let (hidden, ffn) = (u64::from(self.hidden), u64::from(self.ffn));
        let query = u64::from(self.heads) * u64::from(self.head_dim());
        let key_value = u64::from(self.kv_heads()) * u64::from(self.head_dim());
        let blocks = self.kind.modality().attention_blocks();
        let of = |&target: &LoraTarget| {
            let (input, output, count) = match target {
                LoraTarget::Query => (hidden, query, blocks),
                LoraTarget::Key | LoraTarget::Value => (hidden, key_value, blocks),
                LoraTarget::Output => (query, hidden, blocks),
                LoraTarget::Gate | LoraTarget::Up => (hidden, ffn, 1),
                LoraTarget::Down => (ffn, hidden, 1),
            };
            let magnitudes = if lora.dora { output } else { 0 };
            count * (u64::from(lora.rank) * (input + output) + magnitudes)
        };
        lora.targets.iter().map(of).fold(0, u64::saturating_add)
    }

    /// True if the weights of layer `layer` are trained, in full or by adapters. A layer of which only some parts are frozen is trained.
    pub fn trains_layer(&self, layer: u32) -> bool {
        self.trains(&format!("layers.{layer}"), true)
    }

    /// True if the weights before the first layer are trained.
    pub fn trains_start(&self) -> bool {
        let is_encoder = self.kind.modality().has_adapter();
        self.trains(if is_encoder { "patch_embed" } else { "embed" }, false)
    }

    /// True if the weights after the last layer are trained.
    pub fn trains_end(&self) -> bool {
        let is_encoder = self.kind.modality().has_adapter();
        self.trains(if is_encoder { "projector" } else { "end.head" }, false)
    }
}

impl ModelSpec {
    /// Weights of some layers of a module that are trained, with its start and end if they are among them, and the matrices of
    /// adapters.
    pub fn trained_parameters(&self, module: ModuleId, layers: Range<u32>) -> u64 {
        let (spec, parts) = (&self.modules[module.index()], self.parameters(module));
        let in_full = |layer: u32| spec.trains(&format!("layers.{layer}"), false);
        let each = |layer: u32| match (spec.trains_layer(layer), in_full(layer)) {
            (false, _) => 0,
            (true, false) => spec.adapter_parameters(),
            (true, true) => parts.layer.saturating_add(spec.adapter_parameters()),
        };
        let first = if layers.start == 0 && spec.trains_start() { parts.first } else { 0 };
        let last = if layers.end == spec.layers && spec.trains_end() { parts.last } else { 0 };
        let stacked = spec.kind.modality().stacked_layers();
        let stacked = stacked.iter().filter(|layer| layers.contains(layer) && spec.trains_end());
        let stacked = parts.stacked.saturating_mul(stacked.count() as u64);
        let all = layers.map(each).fold(first, u64::saturating_add);
        all.saturating_add(last).saturating_add(stacked)
    }
}

#[cfg(test)]
mod tests {
    use crate::presets;
    use crate::spec::model::{Lora, LoraTarget};

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

    #[test]
    fn only_adapters_and_trained_parts_count_as_trained() {
        let mut model = presets::model("vlm-tiny").unwrap();
        let (vision, language) =
            (model.module("vision").unwrap().0, model.module("language").unwrap().0);
        let layers = |m: crate::ModuleId| 0..model.modules[m.index()].layers;
        let (of_vision, of_language) = (layers(vision), layers(language));
        let all = |m| model.parameters(m).total();
        assert_eq!(model.trained_parameters(vision, of_vision.clone()), all(vision));
        assert_eq!(model.trained_parameters(language, of_language.clone()), all(language));
        let projector = model.parameters(vision).last;
        model.modules[vision.index()].frozen = vec!["tower".into()];
        assert_eq!(model.trained_parameters(vision, of_vision.clone()), projector);
        assert_eq!(model.trained_parameters(vision, 0..1), 0);
        model.modules[language.index()].lora = Some(Lora {
            rank: 4,
            alpha: 8.0,
            targets: vec![LoraTarget::Query, LoraTarget::Down],
            dora: true,
            ..Lora::default()
        });
        let spec = &model.modules[language.index()];
        let (h, f) = (u64::from(spec.hidden), u64::from(spec.ffn));
        let one = 4 * (h + h) + h + 4 * (f + h) + h;
        let found = model.trained_parameters(language, of_language.clone());
        assert_eq!(found, one * u64::from(spec.layers));
        model.modules[vision.index()].trainable = false;
        assert_eq!(model.trained_parameters(vision, of_vision), 0);
    }
}
