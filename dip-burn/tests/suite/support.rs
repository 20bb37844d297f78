//! Tiny models, random data and random valid plans.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use burn::backend::{Autodiff, Flex};
use dip_burn::checkpoint::{CheckpointReader, renew_checksums};
use dip_burn::params::{NamedTensors, TensorSource};
use dip_burn::{Batch, Clip, ClipGrid, Image, ImageLayout, Microbatch, ViewGrid, text_positions};
use dip_core::*;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// The backend of the pipelines.
pub type B = Flex;
/// The backend of the oracle: Burn's own autodiff.
pub type Oracle = Autodiff<Flex>;

/// All tensors of a checkpoint that is whole, and the progress of its run.
pub fn saved(checkpoint: &Path) -> (NamedTensors, serde_json::Value) {
    let reader = CheckpointReader::open(checkpoint).unwrap();
    reader.verify(0, 1).unwrap();
    let tensor = |name: &str| (name.to_owned(), reader.tensor(name).unwrap().unwrap());
    (reader.names().map(tensor).collect(), reader.state().unwrap())
}

/// Changes the progress of the run in a checkpoint.
pub fn change_state(checkpoint: &Path, change: impl Fn(&mut serde_json::Value)) {
    let path = checkpoint.join("index.json");
    let mut index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut index["state"]);
    std::fs::write(path, index.to_string()).unwrap();
    renew_checksums(checkpoint).unwrap();
}

/// A vision encoder of `vision` layers, and a decoder of `language` layers that reads its outputs.
pub fn model(vision: u32, language: u32, frozen_vision: bool) -> ModelSpec {
    let text = format!(
        "name = 'test'\nsequence_tokens = 40\nmax_images = 6\n\
         [[module]]\nname = 'vision'\nlayers = {vision}\nhidden = 16\nffn = 24\nheads = 2\ntrainable = {}\n\
         kind.vit = {{ image_px = 16, patch_px = 4, merge = 2 }}\n\
         [[module]]\nname = 'language'\nlayers = {language}\nhidden = 24\nffn = 32\nheads = 4\nkv_heads = 2\n\
         inputs = ['vision']\nkind.decoder = {{ vocab = 32 }}\n",
        !frozen_vision
    );
    ModelSpec::from_toml(&text).unwrap()
}

/// A random image for patches of 4 pixels, merged 2 x 2.
pub fn image(rng: &mut ChaCha8Rng, grid: ViewGrid) -> Image {
    let tokens = grid.patches() as u32 / 4;
    let layout = ImageLayout { views: vec![grid], tokens, ..ImageLayout::default() };
    let values = 3 * 4 * 4 * grid.patches();
    layout.with_pixels([(0..values).map(|_| rng.random_range(-1.0..1.0)).collect()])
}

/// One microbatch of documents with `images` images each, over 40 tokens, the rest padding.
pub fn microbatch(rng: &mut ChaCha8Rng, images: &[u32]) -> Microbatch {
    microbatch_of(rng, images, |_| ViewGrid::still(4, 4))
}

/// The same with images of the grids that `grid` chooses.
pub fn microbatch_of(
    rng: &mut ChaCha8Rng,
    images: &[u32],
    grid: impl Fn(&mut ChaCha8Rng) -> ViewGrid,
) -> Microbatch {
    const LENGTH: usize = 40;
    let mut m = Microbatch::default();
    for (document, &count) in images.iter().enumerate() {
        let start = m.tokens.len();
        for _ in 0..count {
            let grid = grid(rng);
            let per_image = grid.patches() / 4;
            if m.tokens.len() + per_image + 3 > LENGTH {
                break;
            }
            m.image_offsets.push(m.tokens.len() as u32);
            m.images.push(image(rng, grid));
            push(&mut m, document, per_image, false, rng);
            push(&mut m, document, 1, true, rng);
        }
        let text = rng.random_range(1..6).min(LENGTH.saturating_sub(m.tokens.len()));
        push(&mut m, document, text, true, rng);
        let length = m.tokens.len() - start;
        m.positions.extend(text_positions(length));
    }
    let padding = LENGTH - m.tokens.len();
    push(&mut m, usize::from(u16::MAX), padding, false, rng);
    m.positions.extend(text_positions(padding));
    m
}

/// A random grid of 4 to 24 patches, or a video of two frames.
pub fn any_grid(rng: &mut ChaCha8Rng) -> ViewGrid {
    let sides = [(1, 1), (1, 2), (2, 1), (2, 2), (1, 4), (3, 2)];
    let (rows, columns) = sides[rng.random_range(0..sides.len())];
    let frames = if rows * columns < 3 && rng.random_bool(0.3) { 2 } else { 1 };
    ViewGrid { frames, rows: 2 * rows, columns: 2 * columns }
}

/// Adds `count` random tokens of a document, without positions.
pub fn push(
    m: &mut Microbatch,
    document: usize,
    count: usize,
    trained: bool,
    rng: &mut ChaCha8Rng,
) {
    for _ in 0..count {
        m.tokens.push(rng.random_range(0..32));
        m.targets.push(rng.random_range(0..32));
        m.documents.push(document as u32);
        m.loss_mask.push(trained);
    }
}

/// A text encoder of `text` layers, and a diffusion transformer of `video` layers that reads its outputs.
pub fn video_model(text: u32, video: u32, frozen_text: bool) -> ModelSpec {
    let text = format!(
        "name = 'test'\nsequence_tokens = 40\nmax_clips = 4\n\
         [[module]]\nname = 'text'\nlayers = {text}\nhidden = 16\nffn = 24\nheads = 2\nkv_heads = 1\ntrainable = {}\n\
         kind.decoder = {{ vocab = 32, head = false }}\n\
         [[module]]\nname = 'video'\nlayers = {video}\nhidden = 24\nffn = 32\nheads = 4\nkv_heads = 2\n\
         inputs = ['text']\n\
         kind.dit = {{ latent_frames_per_second = 4.0, tokens_per_frame = 6, token_channels = 5 }}\n",
        !frozen_text
    );
    ModelSpec::from_toml(&text).unwrap()
}

/// The same with the transformer of Wan and a T5 encoder.
pub fn wan_model(text: u32, video: u32, frozen_text: bool) -> ModelSpec {
    let mut model = video_model(text, video, frozen_text);
    let [text, video] = model.modules.as_mut_slice() else { panic!("two modules") };
    text.kind = T5Spec { vocab: 32, buckets: 8, max_distance: 6 }.into();
    (text.kv_heads, text.head_dim) = (None, Some(6));
    text.options.gate_activation = Some(Activation::GeluTanh);
    video.kv_heads = None;
    video.options = LayerOptions {
        attention_bias: Some(AttentionBias::All),
        activation: Activation::GeluTanh,
        query_key_norm: Some(QueryKeyNorm::AcrossHeads),
        ..LayerOptions::default()
    };
    let wan = WanSpec { patch: [1, 2, 2], caption_tokens: 6, step_waves: 16, flow_shift: 3.0 };
    video.kind = DitSpec {
        latent_frames_per_second: 4.0,
        tokens_per_frame: 6,
        token_channels: 8,
        wan: Some(wan),
    }
    .into();
    model.validate().unwrap();
    model
}

/// One microbatch of `count` clips of `values` values a token, of 1 to 4 frames of 1 to 6 tokens, with captions of 1 to 6 tokens.
pub fn clips(rng: &mut ChaCha8Rng, count: u32, values: usize) -> Microbatch {
    let mut m = Microbatch::default();
    for document in 0..count {
        let length = rng.random_range(1..7);
        push(&mut m, document as usize, length, false, rng);
        m.positions.extend(text_positions(length));
        let grid = ClipGrid {
            frames: rng.random_range(1..5),
            rows: rng.random_range(1..3),
            columns: rng.random_range(1..4),
        };
        let count = values * grid.tokens();
        let mut numbers = || (0..count).map(|_| rng.random_range(-1.0..1.0)).collect();
        let (state, velocity) = (numbers(), numbers());
        m.clips.push(Clip { grid, state, velocity, time: rng.random_range(0.0..1.0) });
    }
    m
}

/// A microbatch of only clip `id` and its caption.
pub fn clip_alone(packed: &Microbatch, id: u32) -> Microbatch {
    let rows = packed.text_rows(&(id..id + 1));
    Microbatch {
        tokens: packed.tokens[rows.clone()].to_vec(),
        documents: vec![0; rows.len()],
        positions: packed.positions[rows.clone()].to_vec(),
        targets: packed.targets[rows.clone()].to_vec(),
        loss_mask: packed.loss_mask[rows].to_vec(),
        clips: vec![packed.clips[id as usize].clone()],
        ..Microbatch::default()
    }
}

/// Up to three microbatches of up to four clips each, with a random split.
pub fn random_clips(rng: &mut ChaCha8Rng, model: &ModelSpec) -> (BatchMeta, Arc<Batch>) {
    let values = model.video().unwrap().token_channels as usize;
    let microbatches: Vec<_> = (0..rng.random_range(1..4))
        .map(|_| {
            let count = rng.random_range(1..5);
            clips(rng, count, values)
        })
        .collect();
    batch_of(rng, model, microbatches)
}

/// The metadata of a microbatch.
pub fn meta(m: &Microbatch) -> MicrobatchMeta {
    let clip = |(clip, caption_tokens): (&Clip, usize)| ClipMeta {
        seconds: f64::from(clip.grid.frames) / 4.0,
        caption_tokens: caption_tokens as u64,
        tokens_per_frame: Some(clip.grid.tokens_per_frame()),
    };
    if !m.clips.is_empty() {
        let captions = m.caption_lengths(&(0..m.clips.len() as u32));
        let clips = m.clips.iter().zip(captions).map(clip).collect();
        return MicrobatchMeta { clips, ..Default::default() };
    }
    let sizes: Vec<ImageSize> = m.images.iter().map(|image| image.layout().size()).collect();
    let of_images: u64 = sizes.iter().map(|size| u64::from(size.tokens)).sum();
    let of_sounds: u32 = m.sounds.iter().map(|sound| sound.tokens).sum();
    MicrobatchMeta {
        images: sizes.into(),
        text_tokens: 40 - of_images - u64::from(of_sounds),
        audio_seconds: m.sounds.iter().map(|s| f64::from(s.mel_frames) / 100.0).collect(),
        ..Default::default()
    }
}

/// A random partition of every module into chunks on random ranks.
pub fn random_partition(rng: &mut ChaCha8Rng, model: &ModelSpec, ranks: u32) -> Partition {
    let modules = model.modules.iter().map(|m| {
        let mut chunks: Vec<Chunk> = Vec::new();
        let mut layer = 0;
        while layer < m.layers {
            let end = rng.random_range(layer + 1..=m.layers);
            let segment = SegmentId::from(chunks.len());
            chunks.push(Chunk {
                rank: RankId(rng.random_range(0..ranks)),
                segment,
                layers: layer..end,
            });
            layer = end;
        }
        ModulePartition { sub_microbatch: 1, chunks }
    });
    Partition { ranks, modules: modules.collect() }
}

/// A random split of every microbatch into slices.
pub fn random_split(rng: &mut ChaCha8Rng, model: &ModelSpec, batch: &BatchMeta) -> BatchSplit {
    let mut cut = |instances: u32| {
        let mut slices: Vec<Range<u32>> = Vec::new();
        let mut at = 0;
        while at < instances {
            let end = rng.random_range(at + 1..=instances);
            slices.push(at..end);
            at = end;
        }
        slices
    };
    let slices = batch.microbatches.iter().map(|meta| {
        let modules = 0..model.modules.len();
        modules.map(|m| cut(model.instances(ModuleId::from(m), meta).1)).collect()
    });
    BatchSplit { slices: slices.collect() }
}

/// Arbitrary costs: only the order of tasks matters here.
pub struct AnyCost;

impl CostModel for AnyCost {
    fn stage(&self, query: &StageQuery<'_>) -> Result<StageCost, CostError> {
        Ok(StageCost {
            strategy: query.strategy.clone(),
            forward: Seconds(1.0),
            backward: Seconds(2.0),
            weight: query.chunk.trainable.then_some(Seconds(1.0)),
            activation_bytes: Bytes(1),
            output_bytes: Bytes(1),
        })
    }

    fn transfer(&self, _: RankId, _: RankId, _: Bytes) -> Seconds {
        Seconds::ZERO
    }

    fn static_bytes(&self, _: &ChunkQuery<'_>) -> Bytes {
        Bytes::ZERO
    }
}

/// A random topological order of a graph, and a random choice of `strategies` for each pair.
pub fn random_plan(rng: &mut ChaCha8Rng, mut graph: TaskGraph, strategies: &[&str]) -> Plan {
    for pair in graph.pairs() {
        let strategy = Strategy::new(strategies[rng.random_range(0..strategies.len())]);
        for id in [Some(pair.forward), pair.backward, pair.weight].into_iter().flatten() {
            graph.tasks[id.index()].strategy = strategy.clone();
        }
    }
    let mut waiting: Vec<usize> = graph.tasks.iter().map(|t| t.deps.len()).collect();
    let mut ready: Vec<usize> = (0..waiting.len()).filter(|&i| waiting[i] == 0).collect();
    let mut order = vec![Vec::new(); graph.ranks as usize];
    while !ready.is_empty() {
        let i = ready.swap_remove(rng.random_range(0..ready.len()));
        order[graph.tasks[i].rank.index()].push(TaskId::from(i));
        for task in &graph.tasks {
            if task.deps.iter().any(|d| d.task.index() == i) {
                waiting[task.id.index()] -= 1;
                if waiting[task.id.index()] == 0 {
                    ready.push(task.id.index());
                }
            }
        }
    }
    let plan = Plan::new(graph, "random", order, Seconds::ZERO).unwrap();
    assert_eq!(check_plan(&plan), []);
    plan
}

/// A batch of microbatches with the given images per document, with a random split.
pub fn random_batch(
    rng: &mut ChaCha8Rng,
    model: &ModelSpec,
    images: &[&[u32]],
) -> (BatchMeta, Arc<Batch>) {
    let microbatches: Vec<_> = images.iter().map(|i| microbatch(rng, i)).collect();
    batch_of(rng, model, microbatches)
}

/// A batch of microbatches with a random split.
pub fn batch_of(
    rng: &mut ChaCha8Rng,
    model: &ModelSpec,
    microbatches: Vec<Microbatch>,
) -> (BatchMeta, Arc<Batch>) {
    let metas = BatchMeta { iteration: 0, microbatches: microbatches.iter().map(meta).collect() };
    let split = random_split(rng, model, &metas);
    let trained_tokens = microbatches.iter().map(Microbatch::trained_tokens).sum();
    (metas, Arc::new(Batch { microbatches, split, trained_tokens }))
}

/// The task graph of a batch on a partition.
pub fn graph(
    model: &ModelSpec,
    partition: &Partition,
    metas: &BatchMeta,
    batch: &Batch,
    weight_split: bool,
) -> TaskGraph {
    graph_of_split(model, partition, metas, &batch.split, weight_split)
}

/// The task graph of a batch with the given split.
pub fn graph_of_split(
    model: &ModelSpec,
    partition: &Partition,
    metas: &BatchMeta,
    split: &BatchSplit,
    weight_split: bool,
) -> TaskGraph {
    let cluster = ClusterSpec::from_toml(
        "name = 'test'\ndevices_per_node = 4\nnodes = 1\n\
         device = { flops_per_s = 1e9, memory_bytes = 1000000, memory_bytes_per_s = 1e9 }\n\
         links = { intra_node_bytes_per_s = 1e9, inter_node_bytes_per_s = 1e9, host_bytes_per_s = 1e9 }\n",
    )
    .unwrap();
    let input = GraphInput {
        model,
        cluster: &cluster,
        partition,
        batch: metas,
        split,
        cost: &AnyCost,
        weight_split,
    };
    build_graph(&input).unwrap()
}
