//! What is trained: a directed acyclic graph of modality modules.

mod options;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::spec::error::{FieldError, SpecError};
use crate::spec::ids::ModuleId;

pub use options::{
    Activation, AttentionBias, LayerOptions, Lora, LoraTarget, Rope, RopeStretch, Tower,
};

/// Most modules a model may have; bounds every table that is sized by modules.
pub const MAX_MODULES: usize = 64;
/// Most layers a module may have.
pub const MAX_LAYERS: u32 = 65_536;

/// A large multimodal model: modules joined by their `inputs`, any directed acyclic graph of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Name in reports and plans.
    pub name: String,
    /// Tokens of one packed sequence, images and audio included.
    pub sequence_tokens: u32,
    /// Most images packed into one microbatch; 0 where the model takes none.
    #[serde(default)]
    pub max_images: u32,
    /// Most clips packed into one microbatch; 0 where the model takes none.
    #[serde(default)]
    pub max_clips: u32,
    /// Microbatches of one iteration and pipeline replica, where the caller says nothing else.
    #[serde(default = "default_microbatches")]
    pub microbatches: u32,
    /// How the model is spread over devices by default.
    #[serde(default)]
    pub parallel: Parallelism,
    /// The modules, in any order.
    #[serde(rename = "module")]
    pub modules: Vec<ModuleSpec>,
}

const fn default_microbatches() -> u32 {
    8
}

/// Degrees of data, tensor and pipeline parallelism.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parallelism {
    /// Replicas of the whole pipeline.
    pub data: u32,
    /// Devices that share each layer.
    pub tensor: u32,
    /// Pipeline ranks.
    pub pipeline: u32,
}

impl Default for Parallelism {
    fn default() -> Self {
        Self { data: 1, tensor: 1, pipeline: 2 }
    }
}

/// One modality module: a stack of equal transformer layers with its own ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleSpec {
    /// Name in reports, graphs and plans; unique in the model.
    pub name: String,
    /// Number of transformer layers.
    pub layers: u32,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Width of the feed-forward network.
    pub ffn: u32,
    /// Attention heads.
    pub heads: u32,
    /// Key-value heads (groups); `heads` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_heads: Option<u32>,
    /// Width of one head; `hidden / heads` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<u32>,
    /// Whether the feed-forward network is gated (three matrices); decoders are where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gated_ffn: Option<bool>,
    /// Inner width of the adapter of an encoder; the width of its merged tokens, as in Qwen2-VL, where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter_hidden: Option<u32>,
    /// Whether its weights are trained.
    #[serde(default = "default_trainable")]
    pub trainable: bool,
    /// Low-rank adapters, which are trained in the place of its weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<Lora>,
    /// Names of the modules whose outputs it consumes.
    #[serde(default)]
    pub inputs: Vec<String>,
    /// How its layers differ from those of the presets.
    #[serde(default, skip_serializing_if = "is_default")]
    pub options: LayerOptions,
    /// The modality, with what only it needs.
    pub kind: ModuleKind,
}

fn is_default(options: &LayerOptions) -> bool {
    *options == LayerOptions::default()
}

const fn default_trainable() -> bool {
    true
}

/// The modality of a module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ModuleKind {
    /// Vision encoder with a spatial-merge adapter at its end.
    Vit {
        /// Side of the square input image, in pixels.
        image_px: u32,
        /// Side of a patch, in pixels.
        patch_px: u32,
        /// Side of the square of patches merged into one token of the backbone.
        merge: u32,
        /// How it begins and ends.
        #[serde(default, skip_serializing_if = "Tower::is_native")]
        tower: Tower,
    },
    /// Audio encoder.
    Audio {
        /// Encoder frames for a second of sound.
        frames_per_second: u32,
        /// Frames merged into one token of the backbone.
        merge: u32,
    },
    /// Causal language model: a backbone with a head, or a text encoder without.
    Decoder {
        /// Tokens in the vocabulary.
        vocab: u32,
        /// Whether it ends in a head and a loss.
        #[serde(default = "default_head")]
        head: bool,
        /// Whether the head is the token table; both ends then learn from the sum of their gradients.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        tied: bool,
    },
    /// Diffusion transformer with cross attention to its inputs.
    Dit {
        /// Latent frames for a second of video.
        latent_frames_per_second: f64,
        /// Tokens of one latent frame after patchifying.
        tokens_per_frame: u32,
        /// Values of one token at its input and output.
        token_channels: u32,
    },
}

const fn default_head() -> bool {
    true
}

impl ModuleSpec {
    /// Key-value heads.
    pub fn kv_heads(&self) -> u32 {
        self.kv_heads.unwrap_or(self.heads)
    }

    /// Width of one attention head.
    pub fn head_dim(&self) -> u32 {
        self.head_dim.unwrap_or(self.hidden / self.heads.max(1))
    }

    /// Whether the feed-forward network has a gate.
    pub fn gated_ffn(&self) -> bool {
        self.gated_ffn.unwrap_or(matches!(self.kind, ModuleKind::Decoder { .. }))
    }

    /// Patches of one image in the encoder, its class token among them; 0 for other modalities.
    pub fn patches_per_image(&self) -> u32 {
        let class = u32::from(self.tower().class_token());
        self.patches().saturating_add(class)
    }

    fn patches(&self) -> u32 {
        match self.kind {
            ModuleKind::Vit { image_px, patch_px, .. } => {
                (image_px / patch_px.max(1)).saturating_pow(2)
            }
            _ => 0,
        }
    }

    /// Tokens that one image takes in the backbone; 0 for other modalities.
    pub fn tokens_per_image(&self) -> u32 {
        match self.kind {
            ModuleKind::Vit { merge, .. } => self.patches() / merge.max(1).saturating_pow(2),
            _ => 0,
        }
    }
}

impl ModelSpec {
    /// Reads a model from TOML and validates it.
    ///
    /// # Errors
    /// [`SpecError`] names the field, its value, the limit and the remedy.
    pub fn from_toml(text: &str) -> Result<Self, SpecError> {
        let spec: Self = toml::from_str(text).map_err(|e| SpecError::Syntax(e.to_string()))?;
        spec.validate()?;
        Ok(spec)
    }

    /// The module of that name.
    pub fn module(&self, name: &str) -> Option<(ModuleId, &ModuleSpec)> {
        self.modules
            .iter()
            .position(|m| m.name == name)
            .map(|i| (ModuleId::from(i), &self.modules[i]))
    }

    /// Upstream modules of `module`.
    pub fn inputs_of(&self, module: ModuleId) -> Vec<ModuleId> {
        let inputs = &self.modules[module.index()].inputs;
        inputs.iter().filter_map(|name| self.module(name).map(|(id, _)| id)).collect()
    }

    /// Modules that consume the output of `module`.
    pub fn consumers_of(&self, module: ModuleId) -> Vec<ModuleId> {
        let name = &self.modules[module.index()].name;
        (0..self.modules.len())
            .filter(|&i| self.modules[i].inputs.contains(name))
            .map(ModuleId::from)
            .collect()
    }

    /// Modules in an order in which every module comes after its inputs; of those that are free to go, the first declared.
    ///
    /// A validated model has no cycle; modules on a cycle of one that was not validated are left out.
    pub fn topological_order(&self) -> Vec<ModuleId> {
        let mut done: BTreeSet<&str> = BTreeSet::new();
        let mut order = Vec::with_capacity(self.modules.len());
        while let Some(i) = (0..self.modules.len()).find(|&i| {
            let m = &self.modules[i];
            !done.contains(m.name.as_str()) && m.inputs.iter().all(|n| done.contains(n.as_str()))
        }) {
            done.insert(&self.modules[i].name);
            order.push(ModuleId::from(i));
        }
        order
    }

    /// Whether each module runs a backward: it is trained, or something upstream of it is.
    pub fn runs_backward(&self) -> Vec<bool> {
        let mut runs = vec![false; self.modules.len()];
        for id in self.topological_order() {
            let upstream = self.inputs_of(id).iter().any(|m| runs[m.index()]);
            runs[id.index()] = self.modules[id.index()].trainable || upstream;
        }
        runs
    }

    /// Checks every field and the shape of the module graph.
    ///
    /// # Errors
    /// [`SpecError::Field`] or [`SpecError::Cycle`], the first that is found.
    pub fn validate(&self) -> Result<(), SpecError> {
        if self.modules.is_empty() || self.modules.len() > MAX_MODULES {
            return Err(FieldError::new(
                "module",
                format_args!("{} modules", self.modules.len()),
                format!("1 to {MAX_MODULES} modules"),
                "give one [[module]] table for each modality",
            )
            .into());
        }
        if self.sequence_tokens == 0 {
            let remedy = "give the packed sequence length in tokens";
            return Err(FieldError::new("sequence_tokens", 0, "at least 1", remedy).into());
        }
        let remedy = "give the microbatches of one iteration and pipeline replica";
        FieldError::check_range("microbatches", self.microbatches, 1..=1 << 20, remedy)?;
        let p = self.parallel;
        if !(1..=65_536).contains(&p.data)
            || !(1..=65_536).contains(&p.tensor)
            || !(1..=65_536).contains(&p.pipeline)
        {
            return Err(FieldError::new(
                "parallel",
                format_args!("data {}, tensor {}, pipeline {}", p.data, p.tensor, p.pipeline),
                "1 to 65536 each",
                "give the number of replicas, of devices per layer and of pipeline ranks",
            )
            .into());
        }
        let mut names: BTreeMap<&str, usize> = BTreeMap::new();
        for (i, m) in self.modules.iter().enumerate() {
            if m.name.is_empty() || names.insert(&m.name, i).is_some() {
                return Err(FieldError::new(
                    format!("module[{i}].name"),
                    format_args!("{:?}", m.name),
                    "non-empty and unique",
                    "rename the module",
                )
                .into());
            }
            m.validate()?;
        }
        for m in &self.modules {
            let repeated = m.inputs.iter().enumerate().find(|(i, n)| m.inputs[..*i].contains(n));
            if let Some((i, name)) = repeated {
                return Err(FieldError::new(
                    format!("module {:?}.inputs[{i}]", m.name),
                    format_args!("{name:?}"),
                    "listed once",
                    "remove the repetition",
                )
                .into());
            }
            if let Some(name) = m.inputs.iter().find(|n| !names.contains_key(n.as_str())) {
                return Err(FieldError::new(
                    format!("module {:?}.inputs", m.name),
                    format_args!("{name:?}"),
                    "the name of a module of this model",
                    "correct the name or add the module",
                )
                .into());
            }
        }
        if self.topological_order().len() != self.modules.len() {
            let done = self.topological_order();
            let stuck = (0..self.modules.len())
                .filter(|&i| !done.contains(&ModuleId::from(i)))
                .map(|i| self.modules[i].name.clone())
                .collect();
            return Err(SpecError::Cycle { modules: stuck });
        }
        Ok(())
    }
}

impl ModuleSpec {
    fn validate(&self) -> Result<(), FieldError> {
        let path = |name: &str| format!("module {:?}.{name}", self.name);
        let bounded = |name: &str, value: u32, max: u32| {
            let remedy = format!("set {name} within the limit");
            FieldError::check_range(path(name), value, 1..=max, remedy)
        };
        bounded("layers", self.layers, MAX_LAYERS)?;
        self.validate_options()?;
        for (name, value) in [
            ("hidden", self.hidden),
            ("ffn", self.ffn),
            ("heads", self.heads),
            ("kv_heads", self.kv_heads()),
            ("head_dim", self.head_dim()),
            ("adapter_hidden", self.adapter_hidden.unwrap_or(1)),
        ] {
            bounded(name, value, 1 << 20)?;
        }
        if self.head_dim.is_none() && !self.hidden.is_multiple_of(self.heads) {
            let limit = format!("a multiple of heads = {}", self.heads);
            let remedy = "change one of them or give head_dim";
            return Err(FieldError::new(path("hidden"), self.hidden, limit, remedy));
        }
        if !self.heads.is_multiple_of(self.kv_heads()) {
            let limit = format!("a divisor of heads = {}", self.heads);
            let remedy = "choose kv_heads so that all groups have the same number of heads";
            return Err(FieldError::new(path("kv_heads"), self.kv_heads(), limit, remedy));
        }
        match self.kind {
            ModuleKind::Vit { image_px, patch_px, merge, .. } => {
                bounded("kind.vit.image_px", image_px, 1 << 16)?;
                bounded("kind.vit.patch_px", patch_px, image_px)?;
                bounded("kind.vit.merge", merge, image_px / patch_px)?;
                if !image_px.is_multiple_of(patch_px * merge) {
                    let limit = format!("a multiple of patch_px * merge = {}", patch_px * merge);
                    let remedy = "change the image side so that whole merged patches cover it";
                    return Err(FieldError::new(
                        path("kind.vit.image_px"),
                        image_px,
                        limit,
                        remedy,
                    ));
                }
            }
            ModuleKind::Audio { frames_per_second, merge } => {
                bounded("kind.audio.frames_per_second", frames_per_second, 1 << 16)?;
                bounded("kind.audio.merge", merge, 1 << 16)?;
            }
            ModuleKind::Decoder { vocab, .. } => bounded("kind.decoder.vocab", vocab, 1 << 24)?,
            ModuleKind::Dit { latent_frames_per_second, tokens_per_frame, token_channels } => {
                if !(latent_frames_per_second > 0.0 && latent_frames_per_second <= 1e4) {
                    return Err(FieldError::new(
                        path("kind.dit.latent_frames_per_second"),
                        latent_frames_per_second,
                        "above 0, at most 10000",
                        "give the frame rate after the autoencoder",
                    ));
                }
                bounded("kind.dit.tokens_per_frame", tokens_per_frame, 1 << 24)?;
                bounded("kind.dit.token_channels", token_channels, 1 << 16)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
