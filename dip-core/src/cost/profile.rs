//! Measured times and bytes of the parts of a model on a device. A trainer measures them, a cost model reads them.

use serde::{Deserialize, Serialize};

use crate::spec::{self, Bytes, FieldError, Seconds, SpecError};

/// The schema name of a profile file.
pub const PROFILE_SCHEMA: &str = "dip.profile/v5";
/// Rounding error of a sum of coefficients, in bytes.
const ROUNDING_BYTES: f64 = 1e-3;
/// Maximum number of entries in a profile file.
const MAX_ENTRIES: usize = 100_000;
const REMEDY: &str = "remove the file, and it is measured again";

/// Times of one model on one kind of device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// [`PROFILE_SCHEMA`].
    pub schema: String,
    /// Describes model, settings and device. A profile is reused only for the same key.
    pub key: String,
    /// Bytes of one activation, and of one weight in a matrix product: 4 for f32, 2 for bf16 and f16.
    #[serde(default = "single_precision")]
    pub element_bytes: u32,
    /// The measurements.
    pub entries: Vec<ProfileEntry>,
    /// Start-up time of a transfer between ranks.
    pub link_latency_s: Seconds,
    /// Bandwidth between ranks, in bytes/s.
    pub link_bytes_per_s: f64,
    /// Peak arithmetic of one rank while all ranks compute, in FLOP/s, if it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_flops_per_s: Option<f64>,
}

const fn single_precision() -> u32 {
    4
}

/// A part of a chunk. A chunk takes `Stage`, `Layer` or `Windowed` for each layer, plus `First` or `Last` if it has that end of the
/// module, and `Last` for every adapter inside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The fixed cost of a stage: gradients in and out, bookkeeping.
    Stage,
    /// One layer.
    Layer,
    /// One layer whose attention stays inside windows; see [`Modality::is_windowed`](crate::Modality::is_windowed).
    Windowed,
    /// The start of the module: patch or token embedding.
    First,
    /// The end of the module: adapter, or head and loss.
    Last,
}

/// The times of one part at one size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ProfileEntry {
    /// Module name.
    pub module: String,
    /// Part of a chunk.
    pub part: Part,
    /// Tokens that pass through the part.
    pub tokens: u64,
    /// Its times.
    pub times: PartTimes,
    /// Activations it keeps between forward and backward.
    pub kept: PartBytes,
    /// How its times change with the sizes of images, if images have different sizes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<ImageTimes>,
}

/// How the times of a part change with the sizes of images, at the same number of patches.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ImageTimes {
    /// Attention pairs of the measured images.
    pub pairs: f64,
    /// Views of the measured images.
    pub views: f64,
    /// Time of one more attention pair.
    pub per_pair: PartTimes,
    /// Time of one more view.
    pub per_view: PartTimes,
}

/// Times of one part, or the sum over several parts.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PartTimes {
    /// Forward that keeps its activations.
    pub forward_s: Seconds,
    /// Forward that keeps nothing: for frozen modules, and before a recompute.
    pub inference_s: Seconds,
    /// Backward, weight gradients included.
    pub backward_s: Seconds,
    /// Backward that computes input gradients only.
    pub input_gradient_s: Seconds,
    /// Weight gradients, computed later. Split gradients take longer than the whole backward, because shared values have left
    /// the caches.
    pub weight_s: Seconds,
    /// Backward that recomputes the attention cores, weight gradients included.
    pub selective_backward_s: Seconds,
    /// Forward that copies its activations to the host.
    pub offload_forward_s: Seconds,
    /// Backward that copies its activations back, weight gradients included.
    pub offload_backward_s: Seconds,
    /// Optimiser step on the weights, including the norm of their gradients. Runs once per iteration.
    pub update_s: Seconds,
}

/// Activations of one part, or of several parts, on the device under each strategy.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PartBytes {
    /// Keeps all activations.
    pub keep: KeptBytes,
    /// Recomputes attention cores.
    pub selective: KeptBytes,
    /// Recomputes layers.
    pub full: KeptBytes,
    /// Layers keep their activations in host memory; values that layers share stay on the device.
    pub offload: KeptBytes,
}

/// Bytes of activations, as a linear function of [`KeptCounts`].
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct KeptBytes {
    /// Fixed bytes.
    pub bytes: f64,
    /// Bytes per pair of tokens whose score is computed; see [`crate::causal_blocks`].
    pub bytes_per_pair: f64,
    /// Bytes per token with a loss.
    pub bytes_per_trained_token: f64,
    /// Bytes per caption token that clips attend to.
    pub bytes_per_context_token: f64,
    /// Bytes per pair of a clip token and a caption token.
    pub bytes_per_cross_pair: f64,
}

/// The counts that [`KeptBytes`] depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeptCounts {
    /// Pairs of tokens whose score is computed.
    pub pairs: u64,
    /// Tokens with a loss.
    pub trained_tokens: u64,
    /// Caption tokens that clips attend to.
    pub context_tokens: u64,
    /// Pairs of a clip token and a caption token.
    pub cross_pairs: u64,
}

/// Combines several measurements of the same parts into one list. `combine` reduces the seconds of each part to one value;
/// bytes are taken from the first list.
///
/// The result is as long as the shortest list, and empty if there is no list.
pub fn combined(
    all: &[impl AsRef<[ProfileEntry]>],
    combine: impl Fn(&mut [f64]) -> f64,
) -> Vec<ProfileEntry> {
    let shortest = all.iter().map(|list| list.as_ref().len()).min().unwrap_or(0);
    let one = |i: usize| {
        let entries = || all.iter().map(|list| &list.as_ref()[i]);
        let times = PartTimes::of(|time| {
            let mut seconds: Vec<f64> = entries().map(|e| time(&e.times).0).collect();
            Seconds(combine(&mut seconds))
        });
        ProfileEntry { times, ..all[0].as_ref()[i].clone() }
    };
    (0..shortest).map(one).collect()
}

/// The two measured sizes that `tokens` is interpolated between, or extrapolated from, with their shares. `points` are sizes of
/// one part, ascending; `None` without points.
pub fn neighbours(points: &[ProfileEntry], tokens: u64) -> Option<[(&ProfileEntry, f64); 2]> {
    let first = points.first()?;
    if points.len() == 1 {
        return Some([(first, 1.0), (first, 0.0)]);
    }
    let upper = match points.iter().position(|p| p.tokens >= tokens) {
        Some(i) => i.max(1),
        None => points.len() - 1,
    };
    let (low, high) = (&points[upper - 1], &points[upper]);
    let share = (tokens as f64 - low.tokens as f64) / (high.tokens - low.tokens) as f64;
    Some([(low, 1.0 - share), (high, share)])
}

/// How times change with the sizes of images at `tokens` tokens, if that was measured.
pub fn images_at(points: &[ProfileEntry], tokens: u64) -> Option<ImageTimes> {
    let [(low, of_low), (high, of_high)] = neighbours(points, tokens)?;
    Some(ImageTimes::default().plus(low.images?, of_low).plus(high.images?, of_high))
}

impl PartTimes {
    /// Builds times field by field. `value` gets an accessor of the field and returns its value.
    pub fn of(mut value: impl FnMut(fn(&Self) -> Seconds) -> Seconds) -> Self {
        Self {
            forward_s: value(|t| t.forward_s),
            inference_s: value(|t| t.inference_s),
            backward_s: value(|t| t.backward_s),
            input_gradient_s: value(|t| t.input_gradient_s),
            weight_s: value(|t| t.weight_s),
            selective_backward_s: value(|t| t.selective_backward_s),
            offload_forward_s: value(|t| t.offload_forward_s),
            offload_backward_s: value(|t| t.offload_backward_s),
            update_s: value(|t| t.update_s),
        }
    }

    /// Returns `self + count * other`.
    #[must_use]
    pub fn plus(self, other: Self, count: f64) -> Self {
        Self::of(|time| time(&self) + time(&other) * count)
    }

    /// Replaces negative times by 0.
    #[must_use]
    pub fn not_negative(self) -> Self {
        Self::of(|time| time(&self).max(Seconds::ZERO))
    }

    /// Every time with its field name.
    fn named(&self) -> [(&'static str, Seconds); 9] {
        [
            ("forward_s", self.forward_s),
            ("inference_s", self.inference_s),
            ("backward_s", self.backward_s),
            ("input_gradient_s", self.input_gradient_s),
            ("weight_s", self.weight_s),
            ("selective_backward_s", self.selective_backward_s),
            ("offload_forward_s", self.offload_forward_s),
            ("offload_backward_s", self.offload_backward_s),
            ("update_s", self.update_s),
        ]
    }
}

impl ImageTimes {
    /// Returns `self + count * other`.
    #[must_use]
    pub fn plus(self, other: Self, count: f64) -> Self {
        Self {
            pairs: self.pairs + count * other.pairs,
            views: self.views + count * other.views,
            per_pair: self.per_pair.plus(other.per_pair, count),
            per_view: self.per_view.plus(other.per_view, count),
        }
    }
}

impl PartBytes {
    /// Returns `self + count * other`.
    #[must_use]
    pub fn plus(self, other: Self, count: f64) -> Self {
        Self {
            keep: self.keep.plus(other.keep, count),
            selective: self.selective.plus(other.selective, count),
            full: self.full.plus(other.full, count),
            offload: self.offload.plus(other.offload, count),
        }
    }
}

impl KeptBytes {
    /// Returns `self + count * other`.
    pub fn plus(self, other: Self, count: f64) -> Self {
        Self {
            bytes: self.bytes + count * other.bytes,
            bytes_per_pair: self.bytes_per_pair + count * other.bytes_per_pair,
            bytes_per_trained_token: self.bytes_per_trained_token
                + count * other.bytes_per_trained_token,
            bytes_per_context_token: self.bytes_per_context_token
                + count * other.bytes_per_context_token,
            bytes_per_cross_pair: self.bytes_per_cross_pair + count * other.bytes_per_cross_pair,
        }
    }

    fn coefficients(&self) -> [f64; 5] {
        [
            self.bytes,
            self.bytes_per_pair,
            self.bytes_per_trained_token,
            self.bytes_per_context_token,
            self.bytes_per_cross_pair,
        ]
    }

    /// Bytes of a stage with these counts, rounded up to whole bytes. Measured coefficients are quotients of whole bytes;
    /// their rounding error is subtracted first.
    pub fn of(self, work: KeptCounts) -> Bytes {
        let all = self.bytes
            + self.bytes_per_pair * work.pairs as f64
            + self.bytes_per_trained_token * work.trained_tokens as f64
            + self.bytes_per_context_token * work.context_tokens as f64
            + self.bytes_per_cross_pair * work.cross_pairs as f64;
        Bytes((all - ROUNDING_BYTES).max(0.0).ceil() as u64)
    }
}

impl Profile {
    /// Reads a profile from JSON and validates it.
    ///
    /// # Errors
    /// [`SpecError`] names the field, its value, the limit and the remedy.
    pub fn from_json(text: &str) -> Result<Self, SpecError> {
        let profile: Self = spec::from_json(text)?;
        profile.validate()?;
        Ok(profile)
    }

    /// Writes JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data has a JSON form")
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`FieldError`] for the first field outside its limit.
    pub fn validate(&self) -> Result<(), FieldError> {
        if self.schema != PROFILE_SCHEMA {
            let found = format!("{:?}", self.schema);
            return Err(FieldError::new("schema", found, PROFILE_SCHEMA, REMEDY));
        }
        if self.entries.len() > MAX_ENTRIES {
            let limit = format!("at most {MAX_ENTRIES}");
            return Err(FieldError::new("number of entries", self.entries.len(), limit, REMEDY));
        }
        check_time("link_latency_s", self.link_latency_s)?;
        FieldError::check_range("element_bytes", self.element_bytes, 1..=8, REMEDY)?;
        if self.link_bytes_per_s.is_nan() || self.link_bytes_per_s <= 0.0 {
            let value = self.link_bytes_per_s;
            return Err(FieldError::new("link_bytes_per_s", value, "above 0", REMEDY));
        }
        if let Some(peak) = self.peak_flops_per_s
            && !(peak.is_finite() && peak > 0.0)
        {
            return Err(FieldError::new("peak_flops_per_s", peak, "finite, above 0", REMEDY));
        }
        for (i, entry) in self.entries.iter().enumerate() {
            for (name, seconds) in entry.times.named() {
                check_time(format!("entries[{i}].times.{name}"), seconds)?;
            }
            if let Some(images) = &entry.images {
                let slopes = [images.per_pair, images.per_view];
                for (name, seconds) in slopes.iter().flat_map(PartTimes::named) {
                    check_time(format!("entries[{i}].images.{name}"), seconds)?;
                }
                for count in [images.pairs, images.views] {
                    check_time(format!("entries[{i}].images"), Seconds(count))?;
                }
            }
            let PartBytes { keep, selective, full, offload } = entry.kept;
            for kept in [keep, selective, full, offload] {
                if let Some(bad) = kept.coefficients().into_iter().find(|b| !b.is_finite()) {
                    let path = format!("entries[{i}].kept");
                    return Err(FieldError::new(path, bad, "finite", REMEDY));
                }
            }
        }
        Ok(())
    }
}

fn check_time(path: impl Into<String>, time: Seconds) -> Result<(), FieldError> {
    if time.0.is_finite() && time.0 >= 0.0 {
        return Ok(());
    }
    Err(FieldError::new(path, time.0, "finite, at least 0", REMEDY))
}
