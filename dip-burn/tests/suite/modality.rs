//! A modality from outside the crate: point clouds beside text. Every cloud becomes one token of the decoder.

use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use dip_burn::measure::{MeasureSettings, Profiler};
use dip_burn::model::block::linear::{Linear, linear_backward, linear_backward_weights};
use dip_burn::model::{
    AnyChunk, ChunkSpec, Gradients, Init, Modalities, ModelChunk, ModelError, ProbeSpec, Slice,
    TrainableModality, WholeModel, bytes_of,
};
use dip_burn::runtime::{Pipeline, PipelineInit, ReplicaWork, TensorKind, Update};
use dip_burn::{Features, Microbatch};
use dip_core::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::gradients::difference;
use crate::support::*;

/// Name of the module and of its modality.
const CLOUDS: &str = "clouds";
/// Coordinates of a point.
const COORDINATES: usize = 3;

/// The modality for the planner: a cloud has as many rows as points, and one token in the decoder.
#[derive(Debug)]
struct PointClouds;

impl Modality for PointClouds {
    fn name(&self) -> &str {
        CLOUDS
    }

    fn output_tokens(&self, _: u64) -> u64 {
        1
    }

    fn start_parameters(&self, module: &ModuleSpec, _: u64) -> u64 {
        COORDINATES as u64 * u64::from(module.hidden)
    }

    fn end_parameters(&self, module: &ModuleSpec, output_width: u64) -> u64 {
        u64::from(module.hidden) * output_width
    }
}

/// Points through layers `x + relu(x W)`; the mean of each cloud goes to the decoder.
#[derive(Module, Debug)]
struct CloudChunk<B: Backend> {
    embed: Option<Linear<B>>,
    layers: Vec<Linear<B>>,
    output: Option<Linear<B>>,
}

impl<B: Backend> CloudChunk<B> {
    fn init(chunk: &ChunkSpec<'_>, init: &Init<'_, B>) -> Self {
        let width = chunk.module().hidden as usize;
        let std = 0.3;
        let layer = |i| init.linear(&format!("layers.{i}"), width, width, false, std);
        let embed = || init.linear("embed", COORDINATES, width, true, std);
        let output = || init.linear("output", width, chunk.output_width(), true, std);
        Self {
            embed: chunk.is_first().then(embed),
            layers: chunk.layers.clone().map(layer).collect(),
            output: chunk.is_last().then(output),
        }
    }

    /// The input of each layer, and the output of the last.
    fn activations(&self, inputs: Vec<Tensor<B, 2>>, on: &Slice<'_>) -> Vec<Tensor<B, 2>> {
        let x = match &self.embed {
            Some(embed) => embed.forward(points(on, &embed.weight.val().device())),
            None => Tensor::cat(inputs, 0),
        };
        let mut all = vec![x];
        for layer in &self.layers {
            let x = all.last().cloned().expect("there is a first one");
            all.push(x.clone() + relu(layer.forward(x)));
        }
        all
    }

    fn end(&self, x: Tensor<B, 2>, on: &Slice<'_>) -> Tensor<B, 2> {
        match &self.output {
            Some(output) => output.forward(means(on, &x.device()).matmul(x)),
            None => x,
        }
    }
}

/// The clouds of a slice.
fn clouds<'a>(on: &Slice<'a>) -> &'a [Features] {
    let all = on.microbatch.features.get(CLOUDS).map_or(&[][..], Vec::as_slice);
    &all[on.instances.start as usize..on.instances.end as usize]
}

/// The points of all clouds, `[points, 3]`.
fn points<B: Backend>(on: &Slice<'_>, device: &B::Device) -> Tensor<B, 2> {
    let values: Vec<f32> = clouds(on).iter().flat_map(|c| c.values.iter().copied()).collect();
    let shape = [values.len() / COORDINATES, COORDINATES];
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// The matrix that takes the mean of each cloud, `[clouds, points]`.
fn means<B: Backend>(on: &Slice<'_>, device: &B::Device) -> Tensor<B, 2> {
    let all = clouds(on);
    let points: usize = all.iter().map(Features::rows).sum();
    let (mut values, mut at) = (vec![0.0f32; all.len() * points], 0);
    for (i, cloud) in all.iter().enumerate() {
        let n = cloud.rows();
        values[i * points + at..i * points + at + n].fill(1.0 / n as f32);
        at += n;
    }
    Tensor::from_data(TensorData::new(values, [all.len(), points]), device)
}

impl<B: Backend> ModelChunk<B> for CloudChunk<B> {
    type Kept = Vec<Tensor<B, 2>>;

    fn forward(&self, inputs: Vec<Tensor<B, 2>>, on: &Slice<'_>) -> Tensor<B, 2> {
        let x = self.activations(inputs, on).pop().expect("there is a first one");
        self.end(x, on)
    }

    fn forward_kept(
        &self,
        inputs: Vec<Tensor<B, 2>>,
        on: &Slice<'_>,
        _: &[LayerStrategy],
    ) -> (Tensor<B, 2>, Self::Kept) {
        let kept = self.activations(inputs, on);
        let x = kept.last().cloned().expect("there is a first one");
        (self.end(x, on), kept)
    }

    fn backward(
        &self,
        mut kept: Self::Kept,
        dy: Tensor<B, 2>,
        on: &Slice<'_>,
        gradients: &mut Gradients<B>,
    ) -> Vec<Tensor<B, 2>> {
        let x = kept.pop().expect("there is a first one");
        let mut dx = match &self.output {
            Some(output) => {
                let means = means(on, &x.device());
                let d = linear_backward(output, means.clone().matmul(x), dy, gradients);
                means.transpose().matmul(d)
            }
            None => dy,
        };
        for (layer, x) in self.layers.iter().zip(kept).rev() {
            let is_open = layer.forward(x.clone()).greater_elem(0.0).float();
            dx = dx.clone() + linear_backward(layer, x, dx * is_open, gradients);
        }
        let Some(embed) = &self.embed else { return vec![dx] };
        linear_backward_weights(embed, points(on, &dx.device()), &dx, gradients);
        Vec::new()
    }

    fn kept_bytes(kept: &Self::Kept) -> u64 {
        kept.iter().map(bytes_of).sum()
    }
}

/// The modality for the trainer.
struct TrainableClouds;

impl<B: Backend> TrainableModality<B> for TrainableClouds {
    fn build(
        &self,
        chunk: &ChunkSpec<'_>,
        init: &Init<'_, B>,
    ) -> Result<Box<dyn AnyChunk<B>>, ModelError> {
        Ok(Box::new(CloudChunk::init(chunk, init)))
    }

    fn probe(&self, probe: &ProbeSpec<'_>) -> Microbatch {
        let mut microbatch = probe.packed_sequence(0);
        let cloud = |i| Features { offset: i, ..cloud(&vec![0.5; 20 * COORDINATES]) };
        let all = (0..probe.instances).map(cloud).collect();
        microbatch.features.insert(CLOUDS.into(), all);
        microbatch
    }

    fn rows(&self, probe: &ProbeSpec<'_>) -> usize {
        20 * probe.instances as usize
    }
}

fn cloud(values: &[f32]) -> Features {
    Features { values: values.to_vec(), width: COORDINATES, offset: 0, tokens: 1 }
}

fn modalities<B: Backend>() -> Modalities<B> {
    Modalities::default().with(CLOUDS, TrainableClouds)
}

/// A decoder that reads point clouds.
fn model() -> ModelSpec {
    let mut model = ModelSpec::from_toml(
        "name = 'clouds'\nsequence_tokens = 40\n\
         [[module]]\nname = 'clouds'\nlayers = 3\nhidden = 16\nffn = 24\nheads = 2\n\
         kind.audio = { frames_per_second = 1, merge = 1 }\n\
         [[module]]\nname = 'language'\nlayers = 3\nhidden = 24\nffn = 32\nheads = 4\n\
         inputs = ['clouds']\nkind.decoder = { vocab = 32 }\n",
    )
    .unwrap();
    model.modules[0].kind = ModuleKind::other(PointClouds);
    model.validate().unwrap();
    model
}

/// A text of 40 tokens with up to four clouds of up to six points in it.
fn microbatch(rng: &mut ChaCha8Rng) -> Microbatch {
    let mut m = crate::support::microbatch(rng, &[0, 0]);
    let clouds = rng.random_range(0..5);
    let mut all = Vec::new();
    for i in 0..clouds {
        let points = rng.random_range(1..7);
        let values: Vec<f32> =
            (0..points * COORDINATES).map(|_| rng.random_range(-1.0..1.0)).collect();
        m.loss_mask[3 * i] = false;
        all.push(Features { offset: 3 * i as u32, ..cloud(&values) });
    }
    m.features.insert(CLOUDS.into(), all);
    m
}

fn meta(m: &Microbatch) -> MicrobatchMeta {
    let sizes: Vec<u64> = m.features[CLOUDS].iter().map(|c| c.rows() as u64).collect();
    let text_tokens = 40 - sizes.len() as u64;
    let other = [(CLOUDS.to_owned(), sizes)].into();
    MicrobatchMeta { text_tokens, other, ..MicrobatchMeta::default() }
}

/// Three microbatches, randomly split.
fn batch(rng: &mut ChaCha8Rng, model: &ModelSpec) -> (BatchMeta, std::sync::Arc<dip_burn::Batch>) {
    let microbatches: Vec<_> = (0..3).map(|_| microbatch(rng)).collect();
    let metas = BatchMeta { iteration: 0, microbatches: microbatches.iter().map(meta).collect() };
    let split = random_split(rng, model, &metas);
    let trained_tokens = microbatches.iter().map(Microbatch::trained_tokens).sum();
    (metas, dip_burn::Batch { microbatches, split, trained_tokens }.into())
}

#[test]
fn random_plans_with_point_clouds_give_the_gradients_of_one_device() {
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let model = model();
    for ranks in [1, 2, 2, 3, 3] {
        let (metas, batch) = batch(&mut rng, &model);
        let partition = random_partition(&mut rng, &model, ranks);
        let graph = graph(&model, &partition, &metas, &batch, rng.random_bool(0.5));
        let plan = random_plan(&mut rng, graph, &["keep", "selective", "full"]);
        let devices = vec![Default::default(); ranks as usize];
        let init = PipelineInit::<B>::new(&model, &partition, devices)
            .with_modalities(modalities())
            .with_weights(7);
        let mut pipeline = Pipeline::new(&init).unwrap();
        let report = pipeline.run(&plan, &batch, None).unwrap();
        let gradients = pipeline.export(TensorKind::Gradients).unwrap();
        let whole =
            WholeModel::<Oracle>::with_modalities(&model, modalities(), 7, &Default::default())
                .unwrap();
        let (loss, expected) = whole.loss_and_gradients(&batch);
        assert!((report.loss - loss).abs() < 1e-5 * loss, "{} {loss}", report.loss);
        assert!(expected.contains_key("clouds.layers.1.weight"));
        let worst = difference(&gradients, &expected);
        assert!(worst < 1e-5, "gradients differ by {worst}");
    }
}

#[test]
fn point_clouds_are_trained_and_measured() {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let model = model();
    let (metas, batch) = batch(&mut rng, &model);
    let partition = random_partition(&mut rng, &model, 2);
    let graph = graph(&model, &partition, &metas, &batch, false);
    let plan = random_plan(&mut rng, graph, &["keep"]);
    let init = PipelineInit::<B>::new(&model, &partition, vec![Default::default(); 2])
        .with_modalities(modalities());
    let mut pipeline = Pipeline::new(&init).unwrap();
    let update = Update { learning_rate: 1e-2, clip_norm: 1.0, loss_scale: 1.0 };
    let mut losses = Vec::new();
    for _ in 0..10 {
        let work = ReplicaWork { plan: &plan, batch: &batch };
        losses.push(pipeline.run_replicas(&[work], Some(update)).unwrap().loss);
    }
    assert!(losses[9] < 0.9 * losses[0], "{losses:?}");

    let settings =
        MeasureSettings { rounds: 1, warm_up: 0, runs: 1, ranks: 1, ..Default::default() };
    let device = Default::default();
    let profiler = Profiler::<B>::new(&model, &device, settings).with_modalities(modalities());
    let profile = profiler.profile().unwrap();
    let measured: Vec<u64> = profile
        .entries
        .iter()
        .filter(|e| e.module == CLOUDS && e.part == profile::Part::Layer)
        .map(|e| e.tokens)
        .collect();
    assert_eq!(measured, [20, 40, 80]);
}

#[test]
fn a_missing_modality_is_named() {
    let model = model();
    let error = WholeModel::<B>::init(&model, 0, &Default::default()).err().unwrap().to_string();
    assert!(error.contains("clouds") && error.contains("audio, decoder, dit, t5, vit"), "{error}");
}
