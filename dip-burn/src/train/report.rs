//! Reports of iterations and evaluations.

use dip_core::{Bytes, Seconds};
use serde::Serialize;

use crate::data::toy::SampleMatch;
use crate::data::{LatentShape, Latents};

/// One iteration.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IterationReport {
    /// Its number, from 0.
    pub iteration: u64,
    /// Mean loss of the trained tokens: cross-entropy in nats, or squared error of the velocity.
    pub loss: f64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Norm of all gradients before clipping.
    pub gradient_norm: f64,
    /// Tokens that passed through the backbone, padding not counted, or those of the clips.
    pub tokens: u64,
    /// Images.
    pub images: u64,
    /// Clips.
    pub clips: u64,
    /// Microbatches.
    pub microbatches: usize,
    /// Tokens a second.
    pub tokens_per_s: f64,
    /// Model FLOPs utilisation, where the peak of the devices is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mfu: Option<f64>,
    /// The whole iteration: waiting for plan and pixels, stages, optimiser step.
    pub elapsed_s: Seconds,
    /// From the first stage to the last, as measured. Stages of a GPU are measured until it is given them, not until it has
    /// computed them: of times, only that of the whole iteration is then what it seems.
    pub makespan_s: Seconds,
    /// The same, as the plan predicted it.
    pub predicted_s: Seconds,
    /// The measured stage times under the timeline semantics: what `makespan_s` has beyond it is overhead of the runtime.
    pub critical_path_s: Seconds,
    /// Share of the ranks' time in which no stage ran, as measured.
    pub bubble_ratio: f64,
    /// How long training waited for the plan.
    pub stall_s: Seconds,
    /// How long the search ran on its own thread.
    pub search_s: Seconds,
    /// How far the plan is from the proven bound, as a share of the bound.
    pub gap: f64,
    /// Whether a default schedule stood in for the plan.
    pub fallback: bool,
    /// Samples that were broken and skipped since the start.
    pub skipped: u64,
    /// Peak of the activations of each rank.
    pub peak_activation_bytes: Vec<Bytes>,
    /// The same with weights, gradients and optimiser state as planned: what a limit of memory is kept by.
    pub peak_bytes: Vec<Bytes>,
    /// Memory of the process behind the iteration, where the system says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resident_bytes: Option<Bytes>,
}

impl IterationReport {
    /// Distance of the predicted makespan from the measured one, relative to the measured one.
    pub fn prediction_error(&self) -> f64 {
        self.predicted_s.0 / self.makespan_s.0.max(f64::MIN_POSITIVE) - 1.0
    }
}

/// The model on data it was not trained on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    /// Iterations that were done before.
    pub iteration: u64,
    /// What the loss is of.
    pub what: &'static str,
    /// Mean cross-entropy over the caption tokens, in nats, or mean squared error of the velocity of clips.
    pub loss: f64,
    /// Captions of held-out pictures; empty where none were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub captions: Vec<Caption>,
    /// Clips sampled for held-out captions; empty where none were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<SampledClip>,
}

impl Evaluation {
    /// A loss, and nothing generated.
    pub fn new(what: &'static str, loss: f64) -> Self {
        Self { iteration: 0, what, loss, captions: Vec::new(), samples: Vec::new() }
    }
}

/// A clip that was sampled for a caption.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SampledClip {
    /// The caption.
    pub caption: String,
    /// What of it can be seen; `None` for data that has no such answer.
    pub seen: Option<SampleMatch>,
    /// Its tokens.
    #[serde(skip)]
    pub latents: Latents,
    /// What they are.
    #[serde(skip)]
    pub shape: LatentShape,
}

/// A generated caption beside the true one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Caption {
    /// What the data says.
    pub expected: String,
    /// What the model says.
    pub generated: String,
    /// Whether colours and shapes agree; `None` for data that has no such answer.
    pub right: Option<bool>,
}
