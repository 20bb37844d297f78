//! The figures of a proposed run.

use std::path::{Path, PathBuf};

use dip::plan::{Bytes, Flops, Seconds};
use dip::train::{Fit, Outlook, Proposal};
use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::output::Figures;

/// What `dip init` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ProposalFigures {
    /// The run that was written.
    out: PathBuf,
    /// What is trained.
    trains: &'static str,
    /// Samples that were read and can be used.
    usable: usize,
    /// Samples that were read and cannot.
    skipped: u64,
    /// Samples of all files; absent for drawn data.
    #[serde(skip_serializing_if = "Option::is_none")]
    samples: Option<u64>,
    memory: MemoryFigures,
    /// Pipeline ranks.
    ranks: u32,
    iterations: u64,
    learning_rate: f64,
    iteration: IterationFigures,
    /// Iterations of an epoch; absent for drawn data.
    #[serde(skip_serializing_if = "Option::is_none")]
    iterations_per_epoch: Option<f64>,
}

/// Memory of the fullest rank.
#[derive(Debug, Serialize, JsonSchema)]
struct MemoryFigures {
    total_bytes: Bytes,
    weights_bytes: Bytes,
    gradients_bytes: Bytes,
    optimizer_bytes: Bytes,
    activations_bytes: Bytes,
    /// True if it fits only with activations recomputed.
    recomputes: bool,
}

/// What a mean iteration holds and takes.
#[derive(Debug, Serialize, JsonSchema)]
struct IterationFigures {
    tokens: f64,
    documents: f64,
    flops: Flops,
    /// Absent with `--no-measure`.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<Seconds>,
}

impl Figures for ProposalFigures {
    const SCHEMA: &'static str = "dip.proposal/v1";
}

impl ProposalFigures {
    /// The figures of a proposal that is written to `out`.
    pub fn new(out: &Path, proposal: &Proposal, outlook: &Outlook) -> Self {
        let Proposal { config, survey, memory, .. } = proposal;
        let per_epoch = |samples: f64| samples / outlook.documents.max(1e-9);
        Self {
            out: out.to_owned(),
            trains: proposal.kind.name(),
            usable: survey.documents.len(),
            skipped: survey.skipped.total(),
            samples: survey.samples.map(|count| count.samples),
            memory: MemoryFigures {
                total_bytes: memory.total(),
                weights_bytes: memory.weights,
                gradients_bytes: memory.gradients,
                optimizer_bytes: memory.optimizer,
                activations_bytes: memory.activations,
                recomputes: proposal.fit != Fit::Kept,
            },
            ranks: config.pipeline.ranks,
            iterations: config.iterations,
            learning_rate: config.optimizer.learning_rate,
            iteration: IterationFigures {
                tokens: outlook.tokens,
                documents: outlook.documents,
                flops: outlook.flops,
                seconds: outlook.seconds,
            },
            iterations_per_epoch: survey.usable_samples().map(per_epoch),
        }
    }
}
