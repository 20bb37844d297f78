//! The end of the decoder: the last norm, the head and the loss.
//!
//! Shape legend: t tokens of the packed sequence, m width, v vocabulary, r trained positions.

use burn::module::Module;
use burn::tensor::backend::Backend;
use burn::tensor::{IndexingUpdateOp, Int, Tensor};

use super::head::{HeadGiven, HeadParts};
use super::indices;
use crate::batch::Microbatch;
use crate::kernels::{CrossEntropyGiven, CrossEntropyKept, kernels};
use crate::model::block::linear::{Linear, linear_backward};
use crate::model::block::norm::{Norm, NormKept};
use crate::model::gradients::bytes_of;
use crate::model::{Gradients, to_f32};

/// The last norm, and the head with its loss if there is one.
#[derive(Module, Debug)]
pub struct DecoderEnd<B: Backend> {
    pub(super) norm: Norm<B>,
    pub(super) head: Option<Linear<B>>,
    /// Weight of the squared logarithm of the softmax's denominator; 0 for none.
    pub(super) z_loss: f64,
}

/// The state that the backward of the end needs.
pub(super) struct DecoderEndKept<B: Backend> {
    norm: NormKept<B>,
    /// Of the trained rows, if there is a loss.
    loss: Option<LossKept<B>>,
}

/// The state that the backward of the loss needs.
enum LossKept<B: Backend> {
    /// The logits, or their log-probabilities.
    Logits(CrossEntropyKept<B>),
    /// The logarithm of the softmax's denominator, `[r, 1]`: the logits are computed again, part by part.
    Parts(Tensor<B, 2>),
}

impl<B: Backend> DecoderEndKept<B> {
    pub fn bytes(&self) -> u64 {
        let loss = match &self.loss {
            Some(LossKept::Logits(kept)) => kept.bytes(),
            Some(LossKept::Parts(log_z_r1)) => bytes_of(log_z_r1),
            None => 0,
        };
        self.norm.bytes() + loss
    }
}

impl<B: Backend> DecoderEnd<B> {
    /// Without a head, the normed rows. With a head, the sum of the cross-entropies of the trained positions, `[1, 1]`; only their
    /// rows pass through norm and head.
    pub(super) fn forward(
        &self,
        x_tm: Tensor<B, 2>,
        microbatch: &Microbatch,
    ) -> (Tensor<B, 2>, DecoderEndKept<B>) {
        self.forward_with(x_tm, microbatch, self.z_loss)
    }

    /// The same result without the z-loss.
    pub(super) fn evaluate(&self, x_tm: Tensor<B, 2>, microbatch: &Microbatch) -> Tensor<B, 2> {
        self.forward_with(x_tm, microbatch, 0.0).0
    }

    fn forward_with(
        &self,
        x_tm: Tensor<B, 2>,
        microbatch: &Microbatch,
        z_loss: f64,
    ) -> (Tensor<B, 2>, DecoderEndKept<B>) {
        let Some(head) = &self.head else {
            let (y_tm, norm) = self.norm.forward(x_tm);
            return (y_tm, DecoderEndKept { norm, loss: None });
        };
        let trained = TrainedPositions::of(microbatch, &x_tm.device());
        let (x_rm, norm) = self.norm.forward(kernels().selected_rows(x_tm, trained.rows));
        let (loss_r1, kept) = match HeadParts::of(head, x_rm.dims()[0]) {
            Some(parts) => {
                let [loss_r1, log_z_r1] = parts.forward(&x_rm, &trained.targets, z_loss);
                (loss_r1, LossKept::Parts(log_z_r1))
            }
            None => {
                let logits_rv = head.forward(x_rm);
                let (loss_r1, kept) = kernels().cross_entropy(logits_rv, &trained.targets, z_loss);
                (loss_r1, LossKept::Logits(kept))
            }
        };
        let loss = loss_r1.sum().mul_scalar(trained.weight).reshape([1, 1]);
        (loss, DecoderEndKept { norm, loss: Some(kept) })
    }

    /// Scores of the token after each of `rows`, or after every token, `[rows, v]`; `None` without a head.
    pub(super) fn scores(
        &self,
        x_tm: Tensor<B, 2>,
        rows: Option<&[usize]>,
    ) -> Option<Tensor<B, 2>> {
        let x_rm = match rows {
            Some(rows) => {
                let rows = indices(rows.iter().map(|&row| row as i32), &x_tm.device());
                kernels().selected_rows(x_tm, rows)
            }
            None => x_tm,
        };
        Some(to_f32(self.head.as_ref()?.forward(self.norm.forward(x_rm).0)))
    }

    /// The gradient of `x_tm`.
    pub(super) fn backward(
        &self,
        kept: DecoderEndKept<B>,
        dy: Tensor<B, 2>,
        microbatch: &Microbatch,
        gradients: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        let DecoderEndKept { norm, loss } = kept;
        let (Some(head), Some(loss)) = (&self.head, loss) else {
            return self.norm.backward(norm, dy, gradients);
        };
        let device = dy.device();
        let trained = TrainedPositions::of(microbatch, &device);
        let given = CrossEntropyGiven {
            targets_r1: trained.targets,
            dy,
            weight: trained.weight,
            z_loss: self.z_loss,
            dtype: head.weight.val().dtype(),
        };
        let x_rm = self.norm.output(&norm);
        let d_rm = match loss {
            LossKept::Logits(kept) => {
                let d_rv = kernels().cross_entropy_backward(kept, given);
                linear_backward(head, x_rm, d_rv, gradients)
            }
            LossKept::Parts(log_z_r1) => {
                let parts = HeadParts::of(head, x_rm.dims()[0]).expect("as in the forward");
                let given = HeadGiven { x_rm, log_z_r1, loss: given };
                parts.backward(head, given, gradients)
            }
        };
        let d_rm = self.norm.backward(norm, d_rm, gradients);
        let shape = [microbatch.tokens.len(), d_rm.dims()[1]];
        let zeros = Tensor::zeros(shape, (&device, d_rm.dtype()));
        zeros.select_assign(0, trained.rows, d_rm, IndexingUpdateOp::Add)
    }
}

/// The positions that have a loss.
struct TrainedPositions<B: Backend> {
    /// `[r]`
    rows: Tensor<B, 1, Int>,
    /// `[r, 1]`
    targets: Tensor<B, 2, Int>,
    weight: f64,
}

impl<B: Backend> TrainedPositions<B> {
    fn of(microbatch: &Microbatch, device: &B::Device) -> Self {
        let trained: Vec<usize> =
            (0..microbatch.loss_mask.len()).filter(|&i| microbatch.loss_mask[i]).collect();
        // A sequence without trained tokens still has a loss, of weight zero.
        let (rows, weight) = if trained.is_empty() { (vec![0], 0.0) } else { (trained, 1.0) };
        let targets = indices(rows.iter().map(|&i| microbatch.targets[i] as i32), device);
        let targets = targets.reshape([rows.len(), 1]);
        Self { rows: indices(rows.iter().map(|&i| i as i32), device), targets, weight }
    }
}
