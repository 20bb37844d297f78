//! Layer options of published models, and low-rank adapters on frozen modules.

use serde::{Deserialize, Serialize};

use super::ModuleSpec;
use crate::spec::error::FieldError;
use crate::spec::modality::DecoderSpec;

/// Options in which published models differ. The presets use the defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct LayerOptions {
    /// Added to the variance in every norm of the module.
    pub norm_epsilon: f64,
    /// Projections of the attention that have a bias. Defaults to all in encoders and none in decoders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention_bias: Option<AttentionBias>,
    /// True if the feed-forward networks of a decoder have biases.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub feed_forward_bias: bool,
    /// Activation of a feed-forward network without a gate.
    pub activation: Activation,
    /// Activation of the gate of a feed-forward network that has one. Defaults to SiLU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate_activation: Option<Activation>,
    /// Norms of queries and keys before their rotation. Defaults to none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query_key_norm: Option<QueryKeyNorm>,
    /// Attention of a decoder to the latest tokens only. Defaults to whole documents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<AttentionWindow>,
    /// Rotary positions.
    pub rope: Rope,
}

impl Default for LayerOptions {
    fn default() -> Self {
        Self {
            norm_epsilon: 1e-6,
            attention_bias: None,
            feed_forward_bias: false,
            activation: Activation::Gelu,
            gate_activation: None,
            query_key_norm: None,
            window: None,
            rope: Rope::default(),
        }
    }
}

/// Projections of the attention that have a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum AttentionBias {
    /// None, as in Llama.
    None,
    /// Query, key and value, as in Qwen2.
    Qkv,
    /// Query, value and output, as in Whisper.
    AllButKey,
    /// Query, key, value and output, as in vision encoders.
    All,
}

impl AttentionBias {
    /// True if the projection has a bias.
    pub fn of(self, projection: LoraTarget) -> bool {
        match self {
            Self::None => false,
            Self::Qkv => projection != LoraTarget::Output,
            Self::AllButKey => projection != LoraTarget::Key,
            Self::All => true,
        }
    }
}

/// Attention to the latest tokens only, as in Mistral.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AttentionWindow {
    /// Tokens that a token attends to, itself included.
    pub tokens: u32,
    /// Layers that attend to whole documents instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub full_layers: Vec<u32>,
}

/// Root-mean-square norms of queries and keys, each with weights of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum QueryKeyNorm {
    /// Each head by itself; all heads share the weights of one head, as in Qwen3.
    Head,
    /// All heads together, as in Wan.
    AcrossHeads,
}

/// An activation of a feed-forward network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x Phi(x)`, exact.
    Gelu,
    /// `x sigmoid(1.702 x)`, as in CLIP.
    QuickGelu,
    /// The approximation of GELU by a hyperbolic tangent, as in SigLIP.
    GeluTanh,
}

/// Rotary positions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Rope {
    /// Base of the angles.
    pub theta: f64,
    /// Scaling of wave lengths for longer sequences, as in Llama 3.1.
    #[serde(rename = "stretch", skip_serializing_if = "Option::is_none")]
    pub scaling: Option<RopeScaling>,
    /// Factor by which all waves grow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linear: Option<f64>,
    /// Scaling of wave lengths by YaRN, as in Qwen2.5 for long sequences.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub yarn: Option<YarnScaling>,
    /// Numbers of angles of a head that encode time, row and column, as in Qwen2-VL. They add up to half of the head width.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sections: Option<[u32; 3]>,
    /// True if the sections alternate from angle to angle, as in Qwen3-VL; otherwise each section is one run of angles.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub interleaved: bool,
}

impl Default for Rope {
    fn default() -> Self {
        Self {
            theta: 10_000.0,
            scaling: None,
            linear: None,
            yarn: None,
            sections: None,
            interleaved: false,
        }
    }
}

/// Scaling of rotary wave lengths for longer sequences: short waves stay, long waves grow by `factor`, waves between them in
/// part.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RopeScaling {
    /// Factor by which long waves grow.
    pub factor: f64,
    /// Waves longer than `original_positions / low` are long.
    pub low: f64,
    /// Waves shorter than `original_positions / high` are short.
    pub high: f64,
    /// Number of positions in the original training.
    pub original_positions: u32,
}

/// Scaling of rotary wave lengths by YaRN: angles that turn often in the original training stay, angles that turn rarely are
/// divided by `factor`, and a ramp over the angles between them joins both.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct YarnScaling {
    /// Factor by which long waves grow.
    pub factor: f64,
    /// Turns above which an angle stays.
    pub fast: f64,
    /// Turns below which an angle is divided by the factor.
    pub slow: f64,
    /// Number of positions in the original training.
    pub original_positions: u32,
    /// Factor of rotated queries and keys.
    pub amplitude: f64,
    /// True if the ramp begins and ends at whole angles.
    pub whole_angles: bool,
}

/// Low-rank adapters on a frozen module: `y = x W + (alpha / rank) x A B`. A and B are trained, and the parts in `full`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Lora {
    /// Inner width of an adapter.
    pub rank: u32,
    /// Scale of the adapter, multiplied by the rank.
    pub alpha: f64,
    /// The projections with an adapter.
    pub targets: Vec<LoraTarget>,
    /// Scale by `alpha / sqrt(rank)`, which keeps the size of updates at high ranks (rsLoRA).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rank_stabilized: bool,
    /// Train a magnitude of each output beside the direction of its weights (DoRA).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dora: bool,
    /// Parts of the module whose weights are trained beside the adapters, such as `projector`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub full: Vec<String>,
}

/// A projection that may have an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum LoraTarget {
    Query,
    Key,
    Value,
    Output,
    Gate,
    Up,
    Down,
}

impl LoraTarget {
    /// Every target.
    pub const ALL: [Self; 7] =
        [Self::Query, Self::Key, Self::Value, Self::Output, Self::Gate, Self::Up, Self::Down];

    /// Its name in parameters and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Key => "key",
            Self::Value => "value",
            Self::Output => "output",
            Self::Gate => "gate",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

impl ModuleSpec {
    /// True if the weights `parameter`, such as `language.0.attention.query.weight`, have an adapter.
    pub fn has_adapter(&self, parameter: &str) -> bool {
        let Some(lora) = &self.lora else { return false };
        let inner = parameter.strip_prefix(self.name.as_str()).and_then(|p| p.strip_prefix('.'));
        let layer = inner.and_then(|p| p.strip_suffix(".weight")).unwrap_or_default();
        lora.targets.iter().any(|target| layer.rsplit('.').next() == Some(target.name()))
    }

    /// Projections of its attention that have a bias.
    pub fn attention_bias(&self) -> AttentionBias {
        self.options.attention_bias.unwrap_or(self.kind.modality().attention_bias())
    }

    /// Tokens that a token of a layer attends to; `None` for its whole document.
    pub fn window_of(&self, layer: u32) -> Option<u32> {
        let window = self.options.window.as_ref()?;
        (!window.full_layers.contains(&layer)).then_some(window.tokens)
    }

    pub(super) fn validate_options(&self) -> Result<(), FieldError> {
        let path = |name: &str| format!("module {:?}.{name}", self.name);
        let published = "give the sections of the published model";
        let LayerOptions { norm_epsilon, rope, .. } = &self.options;
        if !(*norm_epsilon > 0.0 && *norm_epsilon <= 1.0) {
            let limit = "above 0, at most 1";
            let path = path("options.norm_epsilon");
            return Err(FieldError::new(path, norm_epsilon, limit, "try 1e-6"));
        }
        if !(rope.theta >= 1.0 && rope.theta <= 1e12) {
            let path = path("options.rope.theta");
            return Err(FieldError::new(path, rope.theta, "1 to 1e12", "try 1e4"));
        }
        if let Some(sections) = rope.sections {
            let half = self.head_dim() / 2;
            let total: u64 = sections.iter().map(|&s| u64::from(s)).sum();
            if total * 2 != u64::from(self.head_dim()) {
                let limit = format!("three sections that add up to head_dim / 2 = {half}");
                let value = format!("{sections:?}");
                return Err(FieldError::new(
                    path("options.rope.sections"),
                    value,
                    limit,
                    published,
                ));
            }
        }
        if let Some(s) = rope.scaling {
            let ordered = s.low > 0.0 && s.high > s.low && s.high <= 1e6;
            if !ordered || !(1.0..=1e6).contains(&s.factor) || s.original_positions == 0 {
                let limit = "a factor of 1 to 1e6, 0 < low < high, and positions of at least 1";
                let remedy = "give the scaling of the published model";
                let value = format!("{s:?}");
                return Err(FieldError::new(path("options.rope.stretch"), value, limit, remedy));
            }
        }
        rope.validate_growth(&path("options.rope"))?;
        if let Some(window) = &self.options.window {
            window.validate(self)?;
        }
        let Some(lora) = &self.lora else { return Ok(()) };
        if lora.targets.contains(&LoraTarget::Gate) && !self.gated_ffn() {
            let limit = "without gate: the feed-forward network has none";
            let path = path("lora.targets");
            return Err(FieldError::new(path, "gate", limit, "target up and down"));
        }
        lora.validate(&path("lora"))
    }
}

impl AttentionWindow {
    fn validate(&self, module: &ModuleSpec) -> Result<(), FieldError> {
        module.check("options.window.tokens", self.tokens, 1 << 24)?;
        let path = module.path("options.window");
        if module.kind.get::<DecoderSpec>().is_none() {
            let remedy = "leave it out: encoders have windows of their own";
            return Err(FieldError::new(path, "given", "absent outside of decoders", remedy));
        }
        match self.full_layers.iter().find(|&&layer| layer >= module.layers) {
            None => Ok(()),
            Some(layer) => {
                let limit = format!("below the number of layers, {}", module.layers);
                let path = format!("{path}.full_layers");
                Err(FieldError::new(path, layer, limit, "remove it"))
            }
        }
    }
}

impl Rope {
    /// Checks the factors by which waves grow. `path` is the path of the positions in their file.
    fn validate_growth(&self, path: &str) -> Result<(), FieldError> {
        let remedy = "give the scaling of the published model";
        let (linear, yarn) = (self.linear.is_some(), self.yarn.is_some());
        if usize::from(self.scaling.is_some()) + usize::from(linear) + usize::from(yarn) > 1 {
            let limit = "at most one of stretch, linear and yarn";
            return Err(FieldError::new(path, "more than one scaling", limit, remedy));
        }
        if let Some(factor) = self.linear {
            FieldError::check_range(format!("{path}.linear"), factor, 1.0..=1e6, remedy)?;
        }
        let Some(yarn) = self.yarn else { return Ok(()) };
        let YarnScaling { factor, fast, slow, original_positions, amplitude, .. } = yarn;
        let ordered = slow > 0.0 && fast > slow && fast <= 1e6;
        let positive = original_positions > 0 && amplitude > 0.0 && amplitude <= 1e3;
        if !ordered || !positive || !(1.0..=1e6).contains(&factor) || self.theta <= 1.0 {
            let limit = "a factor of 1 to 1e6, 0 < slow < fast, positions of at least 1, an amplitude above 0 and a theta above 1";
            let value = format!("{yarn:?}");
            return Err(FieldError::new(format!("{path}.yarn"), value, limit, remedy));
        }
        Ok(())
    }
}

impl Lora {
    /// Checks every field. `path` is the path of the adapter in its file.
    ///
    /// # Errors
    /// [`FieldError`] for the first field outside its limit.
    pub fn validate(&self, path: &str) -> Result<(), FieldError> {
        let path = |name: &str| format!("{path}.{name}");
        FieldError::check_range(path("rank"), self.rank, 1..=4096, "try 8")?;
        if !(self.alpha > 0.0 && self.alpha <= 1e6) {
            let limit = "above 0, at most 1e6";
            return Err(FieldError::new(path("alpha"), self.alpha, limit, "try the rank"));
        }
        if self.targets.is_empty() {
            let remedy = "name the projections that get an adapter, or leave the field out";
            let limit = "at least one projection";
            return Err(FieldError::new(path("targets"), "empty", limit, remedy));
        }
        Ok(())
    }

    /// Factor of the product of the two matrices: `alpha / rank`, or `alpha / sqrt(rank)`.
    pub fn scale(&self) -> f64 {
        let rank = f64::from(self.rank);
        self.alpha / if self.rank_stabilized { rank.sqrt() } else { rank }
    }
}
