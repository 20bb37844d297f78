//! Reports of iterations and evaluations.

use dip_core::{Bytes, Seconds, TraceFile};
use serde::Serialize;

use crate::data::toy::SampleMatch;
use crate::data::{DataReport, LatentShape, Latents};

/// One iteration.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct IterationReport {
    /// Number of the iteration, from 0.
    pub iteration: u64,
    /// Mean loss of the trained tokens: cross-entropy in nats, or squared error of the velocity.
    pub loss: f64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Norm of all gradients before clipping.
    pub gradient_norm: f64,
    /// Tokens of the backbone or of the clips, without padding.
    pub tokens: u64,
    /// Images.
    pub images: u64,
    /// Patches of the images of each microbatch; empty for models without images.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub patches: Vec<u64>,
    /// Share of the packed sequences that holds no token of a document; absent for models of clips.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub padding: Option<f64>,
    /// Clips.
    pub clips: u64,
    /// Microbatches.
    pub microbatches: usize,
    /// Tokens per second.
    pub tokens_per_s: f64,
    /// Model FLOPs utilisation, if the peak of the devices is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mfu: Option<f64>,
    /// Time of the whole iteration: waits for plan and pixels, stages, and optimiser step.
    pub elapsed_s: Seconds,
    /// True if stages were timed until their device had run them. If not, as in most iterations on a GPU, a stage ended when its
    /// kernels were launched: `makespan_s`, `critical_path_s` and `bubble_ratio` are those of the launches, and only `elapsed_s` is
    /// exact.
    pub timed: bool,
    /// Measured time from the start of the first stage to the end of the last.
    pub makespan_s: Seconds,
    /// The makespan that was expected: that of the plan, corrected by what earlier iterations took.
    pub predicted_s: Seconds,
    /// Critical path of the measured stage times: the rest of `makespan_s` is overhead of the runtime.
    pub critical_path_s: Seconds,
    /// Share of the ranks' time without a running stage, as measured.
    pub bubble_ratio: f64,
    /// Time that training waited for the plan.
    pub stall_s: Seconds,
    /// Time that the search ran on its own thread.
    pub search_s: Seconds,
    /// Distance of the plan from its proven bound, as a share of the bound.
    pub gap: f64,
    /// True if a default schedule replaced the plan.
    pub fallback: bool,
    /// Broken samples skipped since the start.
    pub skipped: u64,
    /// What became of the samples so far.
    #[serde(skip)]
    pub data: DataReport,
    /// Peak of the activations of each rank.
    pub peak_activation_bytes: Vec<Bytes>,
    /// Peak activations plus planned weights, gradients and optimiser state of each rank: the sum that a memory limit bounds.
    pub peak_bytes: Vec<Bytes>,
    /// Memory of the process after the iteration, if the system reports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resident_bytes: Option<Bytes>,
    /// What the planner has to tell about measured times, such as a rank that is slower than others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
    /// The measured timeline of each replica, in iterations that [`MetricsConfig::trace`](super::config::MetricsConfig::trace) names.
    #[serde(skip)]
    pub timelines: Vec<TraceFile>,
}

impl IterationReport {
    /// Predicted makespan relative to the measured one, minus 1.
    pub fn prediction_error(&self) -> f64 {
        self.predicted_s.0 / self.makespan_s.0.max(f64::MIN_POSITIVE) - 1.0
    }
}

/// The evaluation of a model on held-out data.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Evaluation {
    /// Iterations completed before the evaluation.
    pub iteration: u64,
    /// Name of the loss.
    pub what: &'static str,
    /// Mean cross-entropy over the caption tokens, in nats, or mean squared error of the velocity of clips.
    pub loss: f64,
    /// Generated captions of held-out pictures.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub captions: Vec<Caption>,
    /// Clips sampled for held-out captions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<SampledClip>,
}

impl Evaluation {
    /// A loss, without captions or samples.
    pub fn new(what: &'static str, loss: f64) -> Self {
        Self { iteration: 0, what, loss, captions: Vec::new(), samples: Vec::new() }
    }
}

/// A clip that was sampled for a caption.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SampledClip {
    /// The caption.
    pub caption: String,
    /// Which parts of the caption the clip shows; `None` if the data cannot tell.
    pub seen: Option<SampleMatch>,
    /// Its latent tokens.
    #[serde(skip)]
    pub latents: Latents,
    /// Shape of the latent space.
    #[serde(skip)]
    pub shape: LatentShape,
}

/// A generated caption beside the true one.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Caption {
    /// The caption in the data.
    pub expected: String,
    /// The caption of the model.
    pub generated: String,
    /// True if colours and shapes agree; `None` if the data cannot tell.
    pub right: Option<bool>,
}
