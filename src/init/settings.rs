//! What is trained, how fast and for how long, by the kind of run.

use dip_burn::train::{DataSurvey, LoraConfig, RunConfig};
use dip_core::{LoraTarget, ModelSpec, ModuleSpec};

use super::RunRequest;

/// Documents of one iteration of a fine-tuning run.
const DOCUMENTS_PER_ITERATION: f64 = 64.0;
/// Most microbatches of one iteration.
const MAX_MICROBATCHES: u32 = 64;
/// Iterations of a run on drawn data.
const DRAWN_ITERATIONS: u64 = 1000;
/// A run of fewer iterations takes up to three epochs.
const FEW_ITERATIONS: f64 = 100.0;
/// Share of a run in which the learning rate grows.
const WARM_UP: f64 = 0.03;

/// What a run trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunKind {
    /// All weights, which are drawn.
    FromScratch,
    /// All weights of a published model.
    Full,
    /// Adapters on the decoder of a published model, and the projectors of its encoders.
    Adapters,
}

impl RunKind {
    /// The kinds to try, the one that trains most first.
    pub(super) fn of(request: &RunRequest, spec: &ModelSpec) -> Vec<Self> {
        let adapts = spec.modules.iter().any(|module| !has_adapter(module));
        match (&request.weights, adapts) {
            (None, _) => vec![Self::FromScratch],
            (Some(_), true) => vec![Self::Full, Self::Adapters],
            (Some(_), false) => vec![Self::Full],
        }
    }

    /// True if the run starts from published weights.
    pub fn is_published(self) -> bool {
        self != Self::FromScratch
    }

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::FromScratch => "all weights, from scratch",
            Self::Full => "all weights",
            Self::Adapters => "adapters (LoRA) and projectors",
        }
    }

    /// Sets what is trained, and how fast.
    pub(super) fn apply(self, config: &mut RunConfig, model: &ModelSpec) {
        let width = model.modules.iter().map(|module| module.hidden).max().unwrap_or(1);
        let optimizer = &mut config.optimizer;
        (optimizer.learning_rate, optimizer.weight_decay) = match self {
            // Wider models need smaller steps.
            Self::FromScratch if width <= 512 => (1e-3, 0.05),
            Self::FromScratch if width <= 2048 => (3e-4, 0.1),
            Self::FromScratch => (1.5e-4, 0.1),
            Self::Full => (1e-5, 0.0),
            Self::Adapters => (1e-4, 0.0),
        };
        let (adapted, encoders): (Vec<_>, Vec<_>) =
            model.modules.iter().filter(|m| m.trainable).partition(|m| !has_adapter(m));
        if self != Self::Adapters {
            return;
        }
        let gated = adapted.iter().all(|module| module.gated_ffn());
        let targets = LoraTarget::ALL.into_iter().filter(|&t| gated || t != LoraTarget::Gate);
        config.lora = Some(LoraConfig {
            rank: 16,
            alpha: 32.0,
            modules: adapted.iter().map(|module| module.name.clone()).collect(),
            targets: targets.collect(),
            ..LoraConfig::default()
        });
        if let Some(weights) = &mut config.weights {
            weights.frozen = encoders.iter().map(|m| format!("{}.tower", m.name)).collect();
        }
    }
}

/// True for encoders, whose adapter is trained in full.
fn has_adapter(module: &ModuleSpec) -> bool {
    module.kind.modality().has_adapter()
}

/// Sets the number of microbatches, iterations, and what depends on them.
pub(super) fn set_length(
    config: &mut RunConfig,
    model: &ModelSpec,
    survey: &DataSurvey,
    documents_per_sequence: f64,
) {
    let ranks = config.pipeline.ranks;
    let sequences = survey.usable_samples().map(|samples| samples / documents_per_sequence);
    let microbatches = match (&config.weights, sequences) {
        (Some(_), _) => {
            let wanted = (DOCUMENTS_PER_ITERATION / documents_per_sequence).round() as u32;
            wanted.clamp(2 * ranks.min(MAX_MICROBATCHES / 2), MAX_MICROBATCHES)
        }
        (None, _) => model.microbatches,
    };
    // An iteration is at most one epoch, but keeps all ranks busy.
    let epoch = sequences.map_or(f64::MAX, f64::ceil);
    let microbatches = if epoch < f64::from(microbatches) { epoch as u32 } else { microbatches };
    let microbatches = microbatches.max(ranks).max(1);
    config.data.microbatches = Some(microbatches);
    config.iterations = match sequences {
        None => DRAWN_ITERATIONS,
        Some(sequences) => {
            let epoch = sequences / f64::from(microbatches);
            let epochs = (FEW_ITERATIONS / epoch.max(1e-9)).clamp(1.0, 3.0);
            (epoch * epochs).ceil().max(1.0) as u64
        }
    };
    let iterations = config.iterations as f64;
    config.optimizer.warmup_iterations = (iterations * WARM_UP).ceil().clamp(1.0, 1000.0) as u64;
    config.evaluation.every = (config.iterations / 10).clamp(1, 1000);
    config.checkpoint.every = (config.iterations / 10).clamp(10, 1000);
}
