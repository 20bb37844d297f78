//! The encoder: points through layers `x + relu(x W)`. The mean over each cloud goes to the decoder.

use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Tensor, TensorData};
use dip::plan::LayerStrategy;
use dip::train::model::block::linear::{Linear, linear_backward, linear_backward_weights};
use dip::train::model::{ChunkSpec, Gradients, Init, ModelChunk, Slice, bytes_of};
use dip::train::{Backend, Features};

use super::{CLOUDS, COORDINATES};

/// Standard deviation of the initial weights.
const STD: f64 = 0.3;

/// Some layers of the encoder; `p` points of `c` clouds have hidden size `h`.
#[derive(Module, Debug)]
pub struct CloudChunk<B: Backend> {
    embed: Option<Linear<B>>,
    layers: Vec<Linear<B>>,
    output: Option<Linear<B>>,
}

impl<B: Backend> CloudChunk<B> {
    pub fn init(chunk: &ChunkSpec<'_>, init: &Init<'_, B>) -> Self {
        let width = chunk.module().hidden as usize;
        let layer = |i| init.linear(&format!("layers.{i}"), width, width, false, STD);
        let embed = || init.linear("embed", COORDINATES, width, true, STD);
        let output = || init.linear("output", width, chunk.output_width(), true, STD);
        Self {
            embed: chunk.is_first().then(embed),
            layers: chunk.layers.clone().map(layer).collect(),
            output: chunk.is_last().then(output),
        }
    }

    /// The input of each layer, and last the output of the last layer.
    fn activations(&self, inputs: Vec<Tensor<B, 2>>, on: &Slice<'_>) -> Vec<Tensor<B, 2>> {
        let mut x_ph = match &self.embed {
            Some(embed) => embed.forward(points(on, &embed.weight.val().device())),
            None => Tensor::cat(inputs, 0),
        };
        let mut all = vec![x_ph.clone()];
        for layer in &self.layers {
            x_ph = x_ph.clone() + relu(layer.forward(x_ph));
            all.push(x_ph.clone());
        }
        all
    }

    fn end(&self, x_ph: Tensor<B, 2>, on: &Slice<'_>) -> Tensor<B, 2> {
        match &self.output {
            Some(output) => output.forward(means(on, &x_ph.device()).matmul(x_ph)),
            None => x_ph,
        }
    }
}

impl<B: Backend> ModelChunk<B> for CloudChunk<B> {
    type Kept = Vec<Tensor<B, 2>>;

    fn forward(&self, inputs: Vec<Tensor<B, 2>>, on: &Slice<'_>) -> Tensor<B, 2> {
        self.forward_kept(inputs, on, &[]).0
    }

    fn forward_kept(
        &self,
        inputs: Vec<Tensor<B, 2>>,
        on: &Slice<'_>,
        _: &[LayerStrategy],
    ) -> (Tensor<B, 2>, Self::Kept) {
        let kept = self.activations(inputs, on);
        let x_ph = kept[kept.len() - 1].clone();
        (self.end(x_ph, on), kept)
    }

    fn backward(
        &self,
        mut kept: Self::Kept,
        dy: Tensor<B, 2>,
        on: &Slice<'_>,
        gradients: &mut Gradients<B>,
    ) -> Vec<Tensor<B, 2>> {
        let x_ph = kept.pop().expect("the output is kept");
        let mut dx_ph = match &self.output {
            Some(output) => {
                let means_cp = means(on, &x_ph.device());
                let d = linear_backward(output, means_cp.clone().matmul(x_ph), dy, gradients);
                means_cp.transpose().matmul(d)
            }
            None => dy,
        };
        for (layer, x_ph) in self.layers.iter().zip(kept).rev() {
            let is_open = layer.forward(x_ph.clone()).greater_elem(0.0).float();
            let through = linear_backward(layer, x_ph, dx_ph.clone() * is_open, gradients);
            dx_ph = dx_ph + through;
        }
        let Some(embed) = &self.embed else { return vec![dx_ph] };
        linear_backward_weights(embed, points(on, &dx_ph.device()), &dx_ph, gradients);
        Vec::new()
    }

    fn kept_bytes(kept: &Self::Kept) -> u64 {
        kept.iter().map(bytes_of).sum()
    }
}

/// The clouds of a slice.
fn clouds<'a>(on: &Slice<'a>) -> &'a [Features] {
    let all = on.microbatch.features.get(CLOUDS).map_or(&[][..], Vec::as_slice);
    &all[on.instances.start as usize..on.instances.end as usize]
}

/// The points of all clouds, `[p, 3]`.
fn points<B: Backend>(on: &Slice<'_>, device: &B::Device) -> Tensor<B, 2> {
    let values: Vec<f32> = clouds(on).iter().flat_map(|c| c.values.iter().copied()).collect();
    let shape = [values.len() / COORDINATES, COORDINATES];
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// The matrix that takes the mean of each cloud, `[c, p]`.
fn means<B: Backend>(on: &Slice<'_>, device: &B::Device) -> Tensor<B, 2> {
    let all = clouds(on);
    let points: usize = all.iter().map(Features::rows).sum();
    let (mut values, mut start) = (vec![0.0f32; all.len() * points], 0);
    for (i, cloud) in all.iter().enumerate() {
        let count = cloud.rows();
        values[i * points + start..][..count].fill(1.0 / count as f32);
        start += count;
    }
    Tensor::from_data(TensorData::new(values, [all.len(), points]), device)
}
