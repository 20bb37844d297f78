//! The head and its loss in parts of the vocabulary, for so many logits that they would fill the memory.
//!
//! The forward keeps the logarithm of the softmax's denominator alone. The backward computes the logits again, part by part, which costs
//! one more product of the head.
//!
//! Shape legend: m width, v vocabulary, c columns of a part, r trained positions.

use std::ops::Range;

use burn::module::Param;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Int, Tensor};

use crate::kernels::{CrossEntropyGiven, kernels};
use crate::model::block::linear::Linear;
use crate::model::{Gradients, to_f32};

/// Most logits that are computed at once: 1 GiB in f32.
const MOST_LOGITS: usize = 1 << 28;
/// Most logits of a part: 256 MiB in f32.
const MOST_OF_PART: usize = 1 << 26;
/// Columns of a part are a multiple of this, so that parts of the weights need no copy.
const ALIGNED: usize = 512;

/// A head without adapters, in parts of `columns` columns.
#[derive(Debug, Clone)]
pub(super) struct HeadParts<B: Backend> {
    weight_mv: Tensor<B, 2>,
    bias_v: Option<Tensor<B, 1>>,
    columns: usize,
}

/// What the backward of a head in parts needs.
#[derive(Debug, Clone)]
pub(super) struct HeadGiven<B: Backend> {
    pub x_rm: Tensor<B, 2>,
    /// The logarithm of the softmax's denominator, `[r, 1]`, in f32.
    pub log_z_r1: Tensor<B, 2>,
    pub loss: CrossEntropyGiven<B>,
}

impl<B: Backend> HeadParts<B> {
    /// The parts for `rows` trained positions; `None` if their logits are few enough.
    pub fn of(head: &Linear<B>, rows: usize) -> Option<Self> {
        let [_, vocabulary] = head.weight.dims();
        let are_many = rows.saturating_mul(vocabulary) > MOST_LOGITS && head.lora.is_none();
        are_many.then(|| Self::new(head, columns_of_part(rows)))
    }

    fn new(head: &Linear<B>, columns: usize) -> Self {
        let bias_v = head.bias.as_ref().map(Param::val);
        Self { weight_mv: head.weight.val(), bias_v, columns }
    }

    fn ranges(&self) -> impl Iterator<Item = Range<usize>> + use<B> {
        let ([_, vocabulary], columns) = (self.weight_mv.dims(), self.columns);
        (0..vocabulary).step_by(columns).map(move |at| at..(at + columns).min(vocabulary))
    }

    /// The weights of a part, `[m, c]`, and its logits, `[r, c]`.
    fn logits(&self, x_rm: &Tensor<B, 2>, part: &Range<usize>) -> [Tensor<B, 2>; 2] {
        let weight_mc = self.weight_mv.clone().narrow(1, part.start, part.len());
        let bias_c = self.bias_v.clone().map(|bias| bias.narrow(0, part.start, part.len()));
        let logits_rc = kernels().product(x_rm.clone(), weight_mc.clone(), bias_c);
        [weight_mc, logits_rc]
    }

    /// The cross-entropy of every row, and the logarithm of the softmax's denominator, `[r, 1]` each, in f32.
    pub fn forward(
        &self,
        x_rm: &Tensor<B, 2>,
        targets_r1: &Tensor<B, 2, Int>,
        z_loss: f64,
    ) -> [Tensor<B, 2>; 2] {
        let of_part = |part: Range<usize>| {
            let [_, logits_rc] = self.logits(x_rm, &part);
            let [sum_r1, target_r1] = kernels().logit_sums(logits_rc, targets_r1, part.start);
            (sum_r1, target_r1)
        };
        let (sums, of_targets): (Vec<_>, Vec<_>) = self.ranges().map(of_part).unzip();
        let sums_rp = Tensor::cat(sums, 1);
        let most_r1 = sums_rp.clone().max_dim(1);
        let log_z_r1 = (sums_rp - most_r1.clone()).exp().sum_dim(1).log() + most_r1;
        let target_r1 = of_targets.into_iter().reduce(|a, b| a + b).expect("there are parts");
        let loss_r1 = log_z_r1.clone() - target_r1;
        let loss_r1 = match z_loss > 0.0 {
            true => loss_r1 + log_z_r1.clone().square() * z_loss,
            false => loss_r1,
        };
        [loss_r1, log_z_r1]
    }

    /// The gradient of the inputs; adds those of `head`, whose parts these are.
    pub fn backward(
        &self,
        head: &Linear<B>,
        given: HeadGiven<B>,
        gradients: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        if gradients.is_deferring() {
            let (parts, later) = (self.clone(), given.clone());
            gradients.add(&head.weight, move || parts.weight_gradient(&later));
            if let Some(bias) = &head.bias {
                let (parts, later) = (self.clone(), given.clone());
                gradients.add(bias, move || parts.bias_gradient(&later));
            }
            let dx =
                |(d_rc, weight_mc): (Tensor<B, 2>, Tensor<B, 2>)| input_gradient(d_rc, weight_mc);
            let dx = self.ranges().map(|part| self.gradient(&given, &part)).map(dx);
            return dx.reduce(|sum, dx| sum + dx).expect("there are parts");
        }
        let mut d_weight = gradients.trains(&head.weight).then(|| self.no_gradient());
        let mut d_bias = Vec::new();
        let mut dx_rm: Option<Tensor<B, 2>> = None;
        for part in self.ranges() {
            let (d_rc, weight_mc) = self.gradient(&given, &part);
            d_weight = d_weight.map(|sum| with_part(sum, &given, d_rc.clone(), part));
            if head.bias.is_some() {
                d_bias.push(kernels().row_sums(d_rc.clone()));
            }
            let dx = input_gradient(d_rc, weight_mc);
            dx_rm = Some(match dx_rm {
                Some(sum) => sum + dx,
                None => dx,
            });
        }
        if let Some(d_weight) = d_weight {
            gradients.add(&head.weight, move || d_weight);
        }
        if let Some(bias) = &head.bias {
            gradients.add(bias, move || Tensor::cat(d_bias, 0));
        }
        dx_rm.expect("there are parts")
    }

    /// The gradient of the logits of a part, and its weights.
    fn gradient(&self, given: &HeadGiven<B>, part: &Range<usize>) -> (Tensor<B, 2>, Tensor<B, 2>) {
        let [weight_mc, logits_rc] = self.logits(&given.x_rm, part);
        let HeadGiven { log_z_r1, loss, .. } = given;
        (kernels().logit_gradients(logits_rc, log_z_r1, loss, part.start), weight_mc)
    }

    fn no_gradient(&self) -> Tensor<B, 2> {
        Tensor::zeros(self.weight_mv.dims(), (&self.weight_mv.device(), DType::F32))
    }

    fn weight_gradient(&self, given: &HeadGiven<B>) -> Tensor<B, 2> {
        self.ranges().fold(self.no_gradient(), |sum, part| {
            let (d_rc, _) = self.gradient(given, &part);
            with_part(sum, given, d_rc, part)
        })
    }

    fn bias_gradient(&self, given: &HeadGiven<B>) -> Tensor<B, 1> {
        let of_part = |part| kernels().row_sums(self.gradient(given, &part).0);
        Tensor::cat(self.ranges().map(of_part).collect(), 0)
    }
}

/// Columns of a part for `rows` rows.
fn columns_of_part(rows: usize) -> usize {
    (MOST_OF_PART / rows.max(1)).max(1).next_multiple_of(ALIGNED)
}

fn input_gradient<B: Backend>(d_rc: Tensor<B, 2>, weight_mc: Tensor<B, 2>) -> Tensor<B, 2> {
    kernels().product(d_rc, weight_mc.transpose(), None)
}

/// The gradient of the weights with the part of these columns.
fn with_part<B: Backend>(
    sum_mv: Tensor<B, 2>,
    given: &HeadGiven<B>,
    d_rc: Tensor<B, 2>,
    part: Range<usize>,
) -> Tensor<B, 2> {
    let d_mc = to_f32(kernels().product(given.x_rm.clone().transpose(), d_rc, None));
    let [m, _] = sum_mv.dims();
    sum_mv.slice_assign([0..m, part], d_mc)
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::module::ParamId;
    use burn::tensor::{Distribution, Tolerance};

    use super::*;
    use crate::model::block::linear::linear_backward;
    use crate::uploads::ints;

    type Matrix = Tensor<Flex, 2>;

    fn normal<const D: usize>(shape: [usize; D]) -> Tensor<Flex, D> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Default::default())
    }

    fn head(vocabulary: usize) -> Linear<Flex> {
        let weight = Param::initialized(ParamId::new(), normal([12, vocabulary]));
        let bias = Some(Param::initialized(ParamId::new(), normal([vocabulary])));
        Linear { weight, bias, lora: None }
    }

    fn all_gradients() -> Gradients<Flex> {
        let model = dip_core::presets::model("vlm-tiny").unwrap();
        Gradients::of(&model.modules[1])
    }

    /// Loss and gradients of inputs, weights and bias.
    fn run(
        head: &Linear<Flex>,
        x: &Matrix,
        parts: Option<&HeadParts<Flex>>,
        deferred: bool,
    ) -> Vec<Tensor<Flex, 1>> {
        let (rows, device) = (x.dims()[0], Default::default());
        let [_, vocabulary] = head.weight.dims();
        let targets: Vec<i32> = (0..rows).map(|row| (row * 379 % vocabulary) as i32).collect();
        let targets_r1: Tensor<Flex, 2, Int> = ints(targets, [rows, 1], &device);
        let (dy, z_loss) = (Tensor::full([1, 1], 0.25, &device), 0.01);
        let loss = CrossEntropyGiven {
            targets_r1: targets_r1.clone(),
            dy,
            weight: 2.0,
            z_loss,
            dtype: DType::F32,
        };
        let mut gradients = all_gradients();
        if deferred {
            gradients.defer();
        }
        let (loss_r1, dx) = match parts {
            Some(parts) => {
                let [loss_r1, log_z_r1] = parts.forward(x, &targets_r1, z_loss);
                let given = HeadGiven { x_rm: x.clone(), log_z_r1, loss };
                (loss_r1, parts.backward(head, given, &mut gradients))
            }
            None => {
                let logits = head.forward(x.clone());
                let (loss_r1, kept) = kernels().cross_entropy(logits, &targets_r1, z_loss);
                let d = kernels().cross_entropy_backward(kept, loss);
                (loss_r1, linear_backward(head, x.clone(), d, &mut gradients))
            }
        };
        if deferred {
            let later = gradients.deferred();
            gradients.run(later);
        }
        let bias = head.bias.as_ref().unwrap();
        let d_bias = gradients.sums().get::<Flex, 1>(bias.id).unwrap();
        let d_weight = gradients.sum_of(&head.weight).unwrap();
        vec![loss_r1.flatten(0, 1), dx.flatten(0, 1), d_weight.flatten(0, 1), d_bias]
    }

    #[test]
    fn parts_of_the_vocabulary_give_the_loss_and_gradients_of_the_whole() {
        let (head, x) = (head(1100), normal([7, 12]));
        let whole = run(&head, &x, None, false);
        for columns in [512, 1024, 2048, 100] {
            let parts = HeadParts::new(&head, columns);
            for deferred in [false, true] {
                for (part, whole) in run(&head, &x, Some(&parts), deferred).iter().zip(&whole) {
                    let tolerance = Tolerance::rel_abs(1e-4, 1e-5);
                    let (part, whole) = (part.to_data(), whole.to_data());
                    part.assert_approx_eq::<f32>(&whole, tolerance);
                }
            }
        }
    }

    #[test]
    fn only_many_logits_are_computed_in_parts() {
        let head = head(1100);
        assert!(HeadParts::of(&head, MOST_LOGITS / 1100).is_none());
        let parts = HeadParts::of(&head, MOST_LOGITS / 1100 + 1).unwrap();
        assert_eq!(parts.ranges().collect::<Vec<_>>(), [0..512, 512..1024, 1024..1100]);
        assert_eq!(columns_of_part(4096), 16_384);
    }
}
