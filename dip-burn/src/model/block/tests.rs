//! Whole layers through the kernels of a backend, and through Burn's operations, which run when gradients are recorded.

use burn::backend::{Autodiff, Flex};
use burn::module::Param;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use dip_core::{Activation, ModelSpec, ModuleSpec, QueryKeyNorm};

use crate::model::block::attention::Attention;
use crate::model::block::feed_forward::FeedForward;
use crate::model::block::geometry::Geometry;
use crate::model::block::heads::HeadSizes;
use crate::model::block::layer::{Block, Layer};
use crate::model::block::norm::Norm;
use crate::model::block::rotary::{Rotary, RotaryFrequencies};
use crate::model::{Gradients, Init};

const WIDTH: usize = 192;
/// Rows of two sequences.
const ROWS: usize = 160;

/// An encoder whose products are computed in blocks, with rows that collide, and decoders of the same size, the last two with norms
/// of queries and keys.
fn modules() -> [ModuleSpec; 4] {
    let model = ModelSpec::from_toml(
        "name = 'fused'\nsequence_tokens = 160\nmax_images = 2\n\
         [[module]]\nname = 'vit'\nlayers = 1\nhidden = 192\nffn = 1024\nheads = 3\n\
         kind.vit = { image_px = 16, patch_px = 4, merge = 2 }\n\
         [[module]]\nname = 'decoder'\nlayers = 1\nhidden = 192\nffn = 576\nheads = 6\nkv_heads = 2\n\
         inputs = ['vit']\nkind.decoder = { vocab = 64 }\n",
    );
    let modules = model.expect("the model is valid").modules;
    let [vit, decoder] = modules.try_into().expect("there are two");
    let with_norms = |norm| {
        let mut normed = decoder.clone();
        normed.options.query_key_norm = Some(norm);
        normed.options.gate_activation = Some(Activation::GeluTanh);
        normed
    };
    let [head, across] = [QueryKeyNorm::Head, QueryKeyNorm::AcrossHeads].map(with_norms);
    [vit, decoder, head, across]
}

fn numbers<B: Backend>(from: usize) -> Tensor<B, 2> {
    let values: Vec<f32> = (from..from + ROWS * WIDTH).map(|i| (i as f32 * 0.7).sin()).collect();
    Tensor::from_data(TensorData::new(values, [ROWS, WIDTH]), &Default::default())
}

fn geometry<B: Backend>(spec: &ModuleSpec, heads: HeadSizes) -> Geometry<B> {
    let (frequencies, device) =
        (RotaryFrequencies::of(&Default::default(), heads.head_dim), Default::default());
    let positions = |n: usize| (0..n as u32).map(|i| [i; 3]).collect::<Vec<_>>();
    if spec.name == "vit" {
        let rotary = Rotary::sequence(&positions(ROWS / 2), &frequencies, &device);
        return Geometry::full(heads, &rotary, 2);
    }
    let documents: Vec<u32> = (0..ROWS).map(|i| u32::from(i >= 137)).collect();
    let rotary = Rotary::sequence(&positions(ROWS), &frequencies, &device);
    Geometry::causal_documents(heads, &rotary, &documents)
}

/// The result of a layer and all of its gradients.
fn layer<B: Backend>(spec: &ModuleSpec) -> Vec<TensorData> {
    let device = Default::default();
    let init = Init::<B> { seed: 3, module: "fused", device: &device, read: false };
    let vit = spec.name == "vit";
    let norm = || if vit { Norm::layer(WIDTH, &init) } else { Norm::rms(WIDTH, &init) };
    let layer = Layer {
        attention_norm: norm(),
        attention: Attention::init(spec, "layers.0", &init),
        feed_forward_norm: norm(),
        feed_forward: FeedForward::init(spec, "layers.0", vit, &init),
    };
    let geometry = geometry(spec, HeadSizes::of(spec));
    let (y, parts) = layer.forward(numbers(0), &geometry);
    let mut gradients = Gradients::of(spec);
    let dx = layer.backward(parts, numbers(1_000_000), &geometry, &mut gradients);
    let (attention, network) = (&layer.attention, &layer.feed_forward);
    let linears = [&attention.query, &attention.key, &attention.value, &attention.output];
    let linears = linears.into_iter().chain([&network.up, &network.down]).chain(&network.gate);
    let norms = [&layer.attention_norm, &layer.feed_forward_norm];
    let norms = norms.into_iter().chain(&attention.query_norm).chain(&attention.key_norm);
    let norms = norms.flat_map(|n| [n.gamma.as_ref(), n.beta.as_ref()]);
    let vectors = norms.chain(linears.clone().map(|l| l.bias.as_ref())).flatten();
    let vector = |v: &Param<Tensor<B, 1>>| gradients.sums().get::<B, 1>(v.id);
    let vectors = vectors.filter_map(vector).map(Tensor::into_data);
    let matrices = linears.filter_map(|l| gradients.sum_of(&l.weight)).map(Tensor::into_data);
    [y, dx].map(Tensor::into_data).into_iter().chain(matrices).chain(vectors).collect()
}

#[test]
fn layers_are_the_same_in_single_passes_and_in_operations_of_burn() {
    for spec in &modules() {
        let expected = layer::<Autodiff<Flex>>(spec);
        // Two results, then the weights, biases and norms of an encoder, or the weights and norms of a decoder.
        let norms = if spec.options.query_key_norm.is_some() { 4 } else { 2 };
        assert_eq!(expected.len(), if spec.name == "vit" { 2 + 6 + 6 + 4 } else { 2 + 7 + norms });
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            let found = pool.expect("threads can be started").install(|| layer::<Flex>(spec));
            assert_eq!(found.len(), expected.len());
            for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let values = |x: &TensorData| x.to_vec::<f32>().expect("f32");
                let (found, expected) = (values(found), values(expected));
                let largest = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
                assert!(largest > 0.0, "{}: result {i} is nothing but zeros", spec.name);
                let pairs = found.iter().zip(&expected);
                let error = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest;
                assert!(error < 5e-6, "{}, result {i}: off by {error}", spec.name);
            }
        }
    }
}
