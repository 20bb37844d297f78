//! The model: a directed acyclic graph of modality modules.

mod options;
mod parts;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::spec::batch::MAX_ITEMS;
use crate::spec::error::{FieldError, SpecError};
use crate::spec::ids::ModuleId;
use crate::spec::modality::{DecoderSpec, ModuleKind, VitSpec};
use crate::spec::strict;

pub use options::{
    Activation, AttentionBias, AttentionWindow, LayerOptions, Lora, LoraTarget, QueryKeyNorm, Rope,
    RopeScaling, YarnScaling,
};
pub use parts::{name_covers, part_covers};

/// Maximum number of modules of a model. It bounds the tables with one entry per module.
pub const MAX_MODULES: usize = 64;
/// Maximum number of layers of a module.
pub const MAX_LAYERS: u32 = 65_536;

/// Maximum number of tokens of one packed sequence.
pub const MAX_SEQUENCE_TOKENS: u32 = 1 << 24;
/// Maximum number of clips of one microbatch.
pub const MAX_CLIPS: u32 = 1 << 16;
/// Maximum number of microbatches of one iteration and pipeline replica.
pub const MAX_MICROBATCHES: u32 = 1 << 20;
/// Maximum number of tokens of one iteration and pipeline replica.
pub const MAX_BATCH_TOKENS: u64 = 1 << 30;

/// A large multimodal model: a directed acyclic graph of modules, connected by their `inputs`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Name in reports and plans.
    pub name: String,
    /// Tokens of one packed sequence, images and audio included.
    pub sequence_tokens: u32,
    /// Maximum number of images in one microbatch; 0 if the model takes none.
    #[serde(default)]
    pub max_images: u32,
    /// Maximum number of patches of all images in one microbatch. Defaults to those of `max_images` images of the model's own size,
    /// and at least to those of the largest picture in tiles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_patches: Option<u64>,
    /// Maximum number of clips in one microbatch; 0 if the model takes none.
    #[serde(default)]
    pub max_clips: u32,
    /// Default number of microbatches per iteration and pipeline replica.
    #[serde(default = "default_microbatches")]
    pub microbatches: u32,
    /// Default degrees of parallelism.
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Parallelism {
    /// Number of pipeline replicas.
    pub data: u32,
    /// Number of devices that share each layer.
    pub tensor: u32,
    /// Number of pipeline ranks.
    pub pipeline: u32,
}

impl Parallelism {
    /// The devices of all replicas.
    pub fn devices(&self) -> u64 {
        [self.tensor, self.pipeline]
            .into_iter()
            .fold(self.data.into(), |devices: u64, degree| devices.saturating_mul(degree.into()))
    }
}

impl Default for Parallelism {
    fn default() -> Self {
        Self { data: 1, tensor: 1, pipeline: 2 }
    }
}

/// One modality module: a stack of equal transformer layers with a start and an end of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
    /// Number of attention heads.
    pub heads: u32,
    /// Number of key-value heads (groups). Defaults to `heads`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_heads: Option<u32>,
    /// Width of one head. Defaults to `hidden / heads`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<u32>,
    /// True if the feed-forward network is gated (three matrices). Defaults to true in decoders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gated_ffn: Option<bool>,
    /// Inner width of the adapter of an encoder. Defaults to the width of its merged tokens, as in Qwen2-VL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter_hidden: Option<u32>,
    /// True if its weights are trained.
    #[serde(default = "default_trainable")]
    pub trainable: bool,
    /// Parts that are not trained although the module is: `projector`, `tower`, or the beginning of a parameter's path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frozen: Vec<String>,
    /// Low-rank adapters, which are trained instead of its weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<Lora>,
    /// Names of the modules whose outputs it consumes.
    #[serde(default)]
    pub inputs: Vec<String>,
    /// Layer options of published models.
    #[serde(default, skip_serializing_if = "is_default")]
    pub options: LayerOptions,
    /// The modality with its settings.
    pub kind: ModuleKind,
}

fn is_default(options: &LayerOptions) -> bool {
    *options == LayerOptions::default()
}

const fn default_trainable() -> bool {
    true
}

impl ModuleSpec {
    /// Number of key-value heads.
    pub fn kv_heads(&self) -> u32 {
        self.kv_heads.unwrap_or(self.heads)
    }

    /// Width of one attention head.
    pub fn head_dim(&self) -> u32 {
        self.head_dim.unwrap_or(self.hidden / self.heads.max(1))
    }

    /// True if the feed-forward network has a gate.
    pub fn gated_ffn(&self) -> bool {
        self.gated_ffn.unwrap_or(self.kind.modality().gated_ffn())
    }
}

impl ModelSpec {
    /// Reads a model from TOML and validates it.
    ///
    /// # Errors
    /// [`SpecError`] names the field, its value, the limit and the remedy.
    pub fn from_toml(text: &str) -> Result<Self, SpecError> {
        let spec: Self = strict::from_toml(text)?;
        spec.validate()?;
        Ok(spec)
    }

    /// The module with this name.
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

    /// Modules in topological order: every module comes after its inputs. Among modules that are ready, the first declared is
    /// next.
    ///
    /// Leaves out modules on a cycle, which a validated model does not have.
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

    /// Returns, for each module, whether it runs a backward: it is trained, or a module upstream of it is.
    pub fn runs_backward(&self) -> Vec<bool> {
        let mut runs = vec![false; self.modules.len()];
        for id in self.topological_order() {
            let upstream = self.inputs_of(id).iter().any(|m| runs[m.index()]);
            runs[id.index()] = self.modules[id.index()].trainable || upstream;
        }
        runs
    }

    /// Maximum number of patches of all images in one microbatch; 0 without a vision encoder.
    pub fn patch_limit(&self) -> u64 {
        let vit = self.modules.iter().find_map(|module| module.kind.get::<VitSpec>());
        let own = vit.map_or(0, |vit| u64::from(vit.image_size().patches));
        let tiled =
            vit.filter(|vit| vit.tiles.is_some()).map_or(0, |vit| vit.largest_size().patches);
        self.max_patches.unwrap_or_else(|| (u64::from(self.max_images) * own).max(tiled.into()))
    }

    /// The first module whose heads `tensor` devices cannot share equally.
    pub fn indivisible(&self, tensor: u32) -> Option<&ModuleSpec> {
        self.modules.iter().find(|module| !module.heads.is_multiple_of(tensor))
    }

    /// Writes TOML that [`ModelSpec::from_toml`] reads.
    ///
    /// # Errors
    /// [`SpecError::Syntax`] if a figure has no TOML form, such as a number above 2^63.
    pub fn to_toml(&self) -> Result<String, SpecError> {
        toml::to_string(self).map_err(|e| SpecError::Syntax(e.to_string()))
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
        self.validate_sizes()?;
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
        (0..self.modules.len()).try_for_each(|m| self.validate_stacked(m.into()))?;
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

impl ModelSpec {
    /// Checks the sizes of a microbatch and of a batch. They bound what is drawn, planned and measured.
    fn validate_sizes(&self) -> Result<(), FieldError> {
        let Self { sequence_tokens, microbatches, .. } = *self;
        let remedy = "give the packed sequence length in tokens";
        let range = 1..=MAX_SEQUENCE_TOKENS;
        FieldError::check_range("sequence_tokens", sequence_tokens, range, remedy)?;
        let remedy = "give the images that fit into a sequence";
        FieldError::check_range("max_images", self.max_images, 0..=MAX_ITEMS, remedy)?;
        let remedy = "give the clips that a device trains at once";
        FieldError::check_range("max_clips", self.max_clips, 0..=MAX_CLIPS, remedy)?;
        let remedy = "give the microbatches of one iteration and pipeline replica";
        FieldError::check_range("microbatches", microbatches, 1..=MAX_MICROBATCHES, remedy)?;
        let tokens = u64::from(microbatches) * u64::from(sequence_tokens);
        if tokens > MAX_BATCH_TOKENS {
            let value = format!(
                "{microbatches}, with {sequence_tokens} tokens each {tokens} tokens in a batch"
            );
            let limit = format!("so few that a batch has at most {MAX_BATCH_TOKENS} tokens");
            let remedy = "plan fewer microbatches at a time, or shorter sequences";
            return Err(FieldError::new("microbatches", value, limit, remedy));
        }
        Ok(())
    }

    /// Checks that the consumers of a module have a layer for each of its features, and that features can be split over rows.
    fn validate_stacked(&self, module: ModuleId) -> Result<(), FieldError> {
        let spec = &self.modules[module.index()];
        let (layers, rows) =
            (spec.kind.modality().stacked_layers().len(), spec.kind.modality().merged_rows());
        let wrong = |limit: String, remedy: &str| {
            let path = spec.path("kind.vit.stacked_layers");
            Err(FieldError::new(path, format_args!("{layers} layers"), limit, remedy))
        };
        for consumer in self.consumers_of(module).into_iter().map(|m| &self.modules[m.index()]) {
            if layers > 0 && consumer.kind.get::<DecoderSpec>().is_none() {
                let limit = format!("none: {:?} is no decoder", consumer.name);
                return wrong(limit, "connect the encoder to a decoder, or leave them out");
            }
            if layers > consumer.layers as usize {
                let limit =
                    format!("at most the {} layers of {:?}", consumer.layers, consumer.name);
                return wrong(limit, "leave some out");
            }
            if layers > 0 && !u64::from(consumer.hidden).is_multiple_of(rows.max(1)) {
                let limit = format!(
                    "none, unless merge * merge = {rows} divides the width of {:?}",
                    consumer.name
                );
                return wrong(limit, "leave them out, or change the width");
            }
        }
        Ok(())
    }
}

impl ModuleSpec {
    /// The path of one of its fields in messages.
    pub fn path(&self, field: &str) -> String {
        format!("module {:?}.{field}", self.name)
    }

    /// Checks that a field is from 1 to `max`.
    ///
    /// # Errors
    /// [`FieldError`] if it is not.
    pub fn check(&self, field: &str, value: u32, max: u32) -> Result<(), FieldError> {
        let remedy = format!("set {field} within the limit");
        FieldError::check_range(self.path(field), value, 1..=max, remedy)
    }

    fn validate(&self) -> Result<(), FieldError> {
        self.check("layers", self.layers, MAX_LAYERS)?;
        self.validate_options()?;
        for (field, value) in [
            ("hidden", self.hidden),
            ("ffn", self.ffn),
            ("heads", self.heads),
            ("kv_heads", self.kv_heads()),
            ("head_dim", self.head_dim()),
            ("adapter_hidden", self.adapter_hidden.unwrap_or(1)),
        ] {
            self.check(field, value, 1 << 20)?;
        }
        if self.head_dim.is_none() && !self.hidden.is_multiple_of(self.heads) {
            let limit = format!("a multiple of heads = {}", self.heads);
            let remedy = "change one of them or give head_dim";
            return Err(FieldError::new(self.path("hidden"), self.hidden, limit, remedy));
        }
        if !self.heads.is_multiple_of(self.kv_heads()) {
            let limit = format!("a divisor of heads = {}", self.heads);
            let remedy = "choose kv_heads so that all groups have the same number of heads";
            return Err(FieldError::new(self.path("kv_heads"), self.kv_heads(), limit, remedy));
        }
        self.kind.modality().validate(self)
    }
}

#[cfg(test)]
mod tests;
