//! The end of the decoder: the last norm, the head and the loss.
//!
//! Shape legend: t tokens of the packed sequence, m width, v vocabulary, r trained positions.

use burn::module::Module;
use burn::tensor::activation::log_softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{IndexingUpdateOp, Int, Tensor};

use super::indices;
use crate::batch::Microbatch;
use crate::model::block::linear::{Linear, linear_backward};
use crate::model::block::norm::{Norm, NormKept};
use crate::model::gradients::bytes_of;
use crate::model::{Gradients, cast, to_f32};

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
    /// Log-probabilities of the trained rows, `[r, v]`, in f32.
    log_p_rv: Option<Tensor<B, 2>>,
    /// Logarithm of the softmax's denominator, `[r, 1]`, in f32; only with z-loss.
    log_z_r1: Option<Tensor<B, 2>>,
}

impl<B: Backend> DecoderEndKept<B> {
    pub fn bytes(&self) -> u64 {
        let tensors = self.log_p_rv.iter().chain(&self.log_z_r1);
        self.norm.bytes() + tensors.map(bytes_of).sum::<u64>()
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
        let Some(head) = &self.head else {
            let (y_tm, norm) = self.norm.forward(x_tm);
            return (y_tm, DecoderEndKept { norm, log_p_rv: None, log_z_r1: None });
        };
        let trained = TrainedPositions::of(microbatch, &x_tm.device());
        let (x_rm, norm) = self.norm.forward(x_tm.select(0, trained.rows));
        let logits_rv = to_f32(head.forward(x_rm));
        let first = |x: &Tensor<B, 2>| x.clone().slice([0..x.dims()[0], 0..1]);
        let logits_r1 = (self.z_loss > 0.0).then(|| first(&logits_rv));
        let log_p_rv = log_softmax(logits_rv, 1);
        let log_p_r1 = log_p_rv.clone().gather(1, trained.targets);
        let mut loss_r1 = -log_p_r1;
        let log_z_r1 = logits_r1.map(|logits_r1| logits_r1 - first(&log_p_rv));
        if let Some(log_z_r1) = &log_z_r1 {
            loss_r1 = loss_r1 + log_z_r1.clone().square() * self.z_loss;
        }
        let loss = loss_r1.sum().mul_scalar(trained.weight).reshape([1, 1]);
        (loss, DecoderEndKept { norm, log_p_rv: Some(log_p_rv), log_z_r1 })
    }

    /// The gradient of `x_tm`.
    pub(super) fn backward(
        &self,
        kept: DecoderEndKept<B>,
        dy: Tensor<B, 2>,
        microbatch: &Microbatch,
        gradients: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        let DecoderEndKept { norm, log_p_rv, log_z_r1 } = kept;
        let (Some(head), Some(log_p_rv)) = (&self.head, log_p_rv) else {
            return self.norm.backward(norm, dy, gradients);
        };
        let device = dy.device();
        let trained = TrainedPositions::of(microbatch, &device);
        // d loss / d logits = p - 1 at the target, p elsewhere.
        let minus_one = Tensor::full(trained.targets.dims(), -1.0, &device);
        let p_rv = log_p_rv.exp();
        // d log(z)^2 / d logits = 2 log(z) p.
        let p_rv = match log_z_r1 {
            Some(log_z_r1) => p_rv * (log_z_r1 * (2.0 * self.z_loss) + 1.0),
            None => p_rv,
        };
        let d_rv = p_rv.scatter(1, trained.targets, minus_one, IndexingUpdateOp::Add);
        let d_rv = cast(d_rv * (dy * trained.weight), head.weight.val().dtype());
        let d_rm = linear_backward(head, self.norm.output(&norm), d_rv, gradients);
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
