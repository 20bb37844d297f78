//! How layers of published models differ from those of the presets, and adapters on frozen ones.

use serde::{Deserialize, Serialize};

use super::{ModuleKind, ModuleSpec};
use crate::spec::error::FieldError;

/// What published models do in different ways. The defaults are those of the presets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LayerOptions {
    /// Added to the variance in every norm of the module.
    pub norm_epsilon: f64,
    /// Which projections of the attention have a bias; all in encoders and none in decoders where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention_bias: Option<AttentionBias>,
    /// Of a feed-forward network without a gate.
    pub activation: Activation,
    /// Rotary positions.
    pub rope: Rope,
}

impl Default for LayerOptions {
    fn default() -> Self {
        Self {
            norm_epsilon: 1e-6,
            attention_bias: None,
            activation: Activation::Gelu,
            rope: Rope::default(),
        }
    }
}

/// Projections of the attention that have a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttentionBias {
    /// None, as in Llama.
    None,
    /// Query, key and value, as in Qwen2.
    Qkv,
    /// Those and the output, as in vision encoders.
    All,
}

/// Activation of a feed-forward network without a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[serde(deny_unknown_fields, default)]
pub struct Rope {
    /// Base of the angles.
    pub theta: f64,
    /// Stretched wave lengths, as in Llama 3.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stretch: Option<RopeStretch>,
    /// Angles of a head that turn with time, row and column of a token, as in Qwen2-VL; they add up to half of its width.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sections: Option<[u32; 3]>,
}

impl Default for Rope {
    fn default() -> Self {
        Self { theta: 10_000.0, stretch: None, sections: None }
    }
}

/// Longer waves for longer sequences: short ones stay, long ones are stretched, those between in part.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RopeStretch {
    /// By how much long waves are stretched.
    pub factor: f64,
    /// Waves longer than `original_positions / low` are long.
    pub low: f64,
    /// Waves shorter than `original_positions / high` are short.
    pub high: f64,
    /// Positions that the model was first trained on.
    pub original_positions: u32,
}

/// How a vision encoder begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tower {
    /// Patch embedding with a bias, rotary rows and columns, an adapter behind a norm.
    #[default]
    Native,
    /// The same without the bias; a patch spans two frames, and a still image is both of them.
    Qwen2Vl,
    /// A class token, learned positions, a norm before the layers; an adapter without a norm, without the class token.
    Clip,
    /// Patch embedding with a bias, learned positions; an adapter without a norm.
    Siglip,
}

impl Tower {
    /// Frames of one patch.
    pub fn frames(self) -> u32 {
        if self == Self::Qwen2Vl { 2 } else { 1 }
    }

    /// Whether the patch embedding has a bias.
    pub fn patch_bias(self) -> bool {
        matches!(self, Self::Native | Self::Siglip)
    }

    /// Whether positions are a learned table instead of rotary ones.
    pub fn learned_positions(self) -> bool {
        matches!(self, Self::Clip | Self::Siglip)
    }

    /// Whether a class token goes before the patches of an image, and a norm before the layers.
    pub fn class_token(self) -> bool {
        self == Self::Clip
    }

    /// Mean and standard deviation of each colour, from 0 to 1, that pixels are normalised with; none where they are taken from
    /// -1 to 1.
    pub fn pixel_statistics(self) -> Option<[(f32, f32); 3]> {
        match self {
            Self::Native | Self::Siglip => None,
            Self::Qwen2Vl | Self::Clip => Some([
                (0.481_454_66, 0.268_629_54),
                (0.457_827_5, 0.261_302_6),
                (0.408_210_7, 0.275_777_1),
            ]),
        }
    }

    /// Whether it is what an absent field means.
    pub fn is_native(&self) -> bool {
        *self == Self::Native
    }
}

/// Low-rank adapters on a frozen module: `y = x W + (alpha / rank) x A B`, of which A and B are trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lora {
    /// Inner width of an adapter.
    pub rank: u32,
    /// Its weight, times the rank.
    pub alpha: f64,
    /// The projections that have one.
    pub targets: Vec<LoraTarget>,
}

/// A projection that may have an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Which projections of its attention have a bias.
    pub fn attention_bias(&self) -> AttentionBias {
        let usual = match self.kind {
            ModuleKind::Vit { .. } | ModuleKind::Audio { .. } => AttentionBias::All,
            ModuleKind::Decoder { .. } | ModuleKind::Dit { .. } => AttentionBias::None,
        };
        self.options.attention_bias.unwrap_or(usual)
    }

    /// The tower of a vision encoder.
    pub fn tower(&self) -> Tower {
        match self.kind {
            ModuleKind::Vit { tower, .. } => tower,
            _ => Tower::Native,
        }
    }

    /// Whether the head of a decoder is its token table.
    pub fn is_tied(&self) -> bool {
        matches!(self.kind, ModuleKind::Decoder { head: true, tied: true, .. })
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
        if let Some(s) = rope.stretch {
            let ordered = s.low > 0.0 && s.high > s.low && s.high <= 1e6;
            if !ordered || !(1.0..=1e6).contains(&s.factor) || s.original_positions == 0 {
                let limit = "a factor of 1 to 1e6, 0 < low < high, and positions of at least 1";
                let remedy = "give the scaling of the published model";
                let value = format!("{s:?}");
                return Err(FieldError::new(path("options.rope.stretch"), value, limit, remedy));
            }
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

impl Lora {
    /// Checks every field; `path` is the path of the adapter in its file.
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

    /// What the product of the two matrices is multiplied with.
    pub fn scale(&self) -> f64 {
        self.alpha / f64::from(self.rank)
    }
}
