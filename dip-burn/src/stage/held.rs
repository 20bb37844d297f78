//! What a stage holds between forward and backward, and how many bytes that is.

use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;
use dip_core::{Bytes, ModuleSpec, PairKey};

/// Between the forward and the backward of one sub-microbatch.
pub(super) enum Held<B: AutodiffBackend> {
    /// The graph: its leaves with the stage pairs they came from, and its output.
    Graph {
        /// Inputs.
        inputs: Vec<(PairKey, Tensor<B, 2>)>,
        /// Output, or the sum of cross-entropies.
        output: Tensor<B, 2>,
        /// Bytes of the graph.
        bytes: Bytes,
    },
    /// Only the inputs; the backward runs the forward again.
    Inputs {
        /// Inputs.
        inputs: Vec<(PairKey, Tensor<B::InnerBackend, 2>)>,
        /// Bytes of the inputs.
        bytes: Bytes,
    },
}

/// Bytes held now, and the most that was held in this iteration.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Account {
    now: Bytes,
    peak: Bytes,
}

impl Account {
    pub fn take(&mut self, bytes: Bytes) {
        self.now += bytes;
        self.peak = self.peak.max(self.now);
    }

    pub fn give_back(&mut self, bytes: Bytes) {
        self.now -= bytes;
    }

    pub fn now(&self) -> Bytes {
        self.now
    }

    pub fn peak(&self) -> Bytes {
        self.peak
    }
}

/// Bytes that the autodiff graph of `layers` layers keeps, counted from the shapes of the tensors that Burn's backward of
/// each operation needs: an estimate, in 4-byte numbers.
///
/// `tokens` pass through the layers; `pairs` are all query-key pairs that are computed, those under the mask included.
pub(crate) fn layer_bytes(spec: &ModuleSpec, layers: u64, tokens: u64, pairs: u64) -> Bytes {
    let width = u64::from(spec.hidden);
    let heads = u64::from(spec.heads);
    let projected = heads * u64::from(spec.head_dim());
    let ffn = u64::from(spec.ffn) * if spec.gated_ffn() { 5 } else { 3 };
    // Two norms with their centred and scaled forms, two residual sums, and the projections before and after turning.
    let per_token = 10 * width + 8 * projected + ffn;
    // Scores, their exponentials and the weights.
    Bytes(4 * layers * (tokens * per_token + 3 * heads * pairs))
}
