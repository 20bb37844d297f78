//! Models of Hugging Face: what `transformers` computes for them is what the trainer computes, on one rank and on two.
//!
//! `scripts/hf_fixtures` generates the models. Every model passes the standard checks ([`checks`]); a family adds its own.

mod adapters;
mod audio;
mod checks;
mod counts;
mod documents;
mod export;
mod idefics;
mod llava;
mod names;
mod qwen_vl;
mod settings;
mod text;
mod wan;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dip_burn::checkpoint::{CheckpointReader, Draft, model_file, write_shard};
use dip_burn::model::{InitialWeights, WholeModel};
use dip_burn::params::{LazyTensor, NamedTensors};
use dip_burn::runtime::{OptimizerConfig, Pipeline, PipelineInit};
use dip_burn::weights::{ExportConfig, TensorStore, Weights, export as export_weights};
use dip_burn::{
    Arrangement, Batch, Image, ImageLayout, ImagePlace, JoinedTiles, Microbatch, PositionRule,
    Sound, TileGrid, View, ViewGrid,
};
use dip_core::*;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::support::*;

/// Largest difference from `transformers`, relative to the largest value.
pub const TOLERANCE: f32 = 1e-4;

/// A tiny random model with inputs, and what `transformers` computes for them.
pub struct Fixture {
    pub folder: PathBuf,
    pub model: ModelSpec,
    pub cases: Vec<Case>,
    /// Loss, gradients and one step of torch.
    pub expected: TensorStore,
}

/// One sequence.
pub struct Case {
    pub sequence: Microbatch,
    /// Logits of `transformers`, `[tokens][vocab]`.
    pub logits: Vec<Vec<f32>>,
}

impl Fixture {
    pub fn read(name: &str) -> Self {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/hf");
        let folder = PathBuf::from(root).join(name);
        let config = std::fs::read_to_string(folder.join("config.json")).unwrap();
        let mut model = hf::from_config(name, &config).unwrap().spec;
        let expected = TensorStore::open_file(&folder.join("expected.safetensors")).unwrap();
        if let Some(shape) = expected.shape("pixels.0.0.0") {
            set_image_px(&mut model, shape[1] as u32);
        }
        let cases = (0..).map_while(|i| Case::read(&expected, i, &model));
        let cases: Vec<Case> = cases.collect();
        model.sequence_tokens = cases.iter().map(|c| c.sequence.tokens.len() as u32).max().unwrap();
        model.validate().unwrap();
        Self { folder, model, cases, expected }
    }

    pub fn weights(&self) -> Weights {
        Weights::open(&self.folder, &self.model).unwrap()
    }

    /// A pipeline on the ranks of a partition, each with the weights of its layers.
    pub fn pipeline(&self, partition: &Partition) -> Pipeline<B> {
        self.replicas(partition, 1, OptimizerConfig::default())
    }

    /// `count` replicas of [`Self::pipeline`].
    pub fn replicas(
        &self,
        partition: &Partition,
        count: usize,
        optimizer: OptimizerConfig,
    ) -> Pipeline<B> {
        let weights = self.weights();
        let devices = vec![Default::default(); partition.ranks as usize * count];
        let init = PipelineInit::new(&self.model, partition, devices)
            .with_weights(InitialWeights { seed: 0, weights: Some(&weights) })
            .with_optimizer(optimizer);
        Pipeline::new(&init).unwrap()
    }

    /// The largest relative difference between the logits of `model` with these weights and the logits of `transformers`.
    pub fn difference(&self, model: &ModelSpec) -> f32 {
        let weights = Weights::open(&self.folder, model).unwrap();
        let start = InitialWeights { seed: 0, weights: Some(&weights) };
        let whole = WholeModel::<B>::init(model, start, &Default::default()).unwrap();
        let difference = |case: &Case| {
            let sequence = positioned(case.sequence.clone(), model);
            let logits = whole.logits(&sequence).unwrap().into_data();
            largest(&case.logits, &logits.to_vec::<f32>().unwrap())
        };
        self.cases.iter().map(difference).fold(0.0, f32::max)
    }

    /// Loss and gradients of these weights from one graph of Burn's autodiff.
    pub fn oracle(&self, weights: &NamedTensors, batch: &Batch) -> (f64, NamedTensors) {
        let mut whole = WholeModel::<Oracle>::init(&self.model, 0, &Default::default()).unwrap();
        whole.load(weights).unwrap();
        whole.loss_and_gradients(batch)
    }

    /// The sequences of all cases.
    pub fn sequences(&self) -> Vec<Microbatch> {
        self.cases.iter().map(|case| case.sequence.clone()).collect()
    }

    /// Writes tensors of all parameters in the layout of the published model into the subfolder `out` of the result.
    pub fn exported(&self, model: NamedTensors, config: ExportConfig) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let saved = checkpoint(folder.path(), model);
        let out = folder.path().join("out");
        export_weights(&saved, &self.model, &self.folder, &out, config).unwrap();
        folder
    }
}

/// The weights of a checkpoint in a folder.
pub fn checkpoint(folder: &Path, model: NamedTensors) -> TensorStore {
    let draft = Draft::create(folder, 1).unwrap();
    let tensors = model.into_iter().map(|(name, data)| LazyTensor::on_host(name, data)).collect();
    let shard = write_shard(draft.folder(), model_file(0), tensors).unwrap();
    let saved = draft.commit(&(), &[shard], 1).unwrap();
    CheckpointReader::open(&saved).unwrap().weights().unwrap()
}

impl Case {
    /// Case `i` of a file; `None` if there are fewer.
    fn read(expected: &TensorStore, i: usize, model: &ModelSpec) -> Option<Self> {
        let vocab = expected.shape(&format!("logits.{i}"))?[1];
        let logits = expected.all(&format!("logits.{i}")).unwrap();
        let integers = |name: String| -> Vec<u32> {
            let values = expected.all(&name).unwrap_or_default();
            values.into_iter().map(|v| v as u32).collect()
        };
        let tokens = integers(format!("input_ids.{i}"));
        let length = tokens.len();
        let mut image_offsets = integers(format!("offsets.{i}"));
        let sounds = sounds(expected, i, &image_offsets, model);
        image_offsets.truncate(image_offsets.len() - sounds.len());
        let seconds = expected.all(&format!("seconds.{i}")).unwrap_or_default();
        let seconds = seconds.into_iter().chain(std::iter::repeat(0.0));
        let images = (0..image_offsets.len()).zip(seconds).map(|(j, frame_seconds)| {
            let image = image(expected, &format!("{i}.{j}"), model);
            Image { frame_seconds, ..image }
        });
        let images: Vec<Image> = images.collect();
        let sequence = Microbatch {
            documents: vec![0; length],
            targets: tokens.iter().cycle().skip(1).take(length).copied().collect(),
            loss_mask: vec![true; length],
            images,
            image_offsets,
            sounds,
            tokens,
            ..Microbatch::default()
        };
        let sequence = positioned(sequence, model);
        Some(Self { sequence, logits: logits.chunks(vocab).map(<[f32]>::to_vec).collect() })
    }

    /// The cross-entropy of `transformers` at a place, in nats.
    pub fn loss(&self, place: usize) -> f64 {
        let logits = &self.logits[place];
        let sum: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
        sum.ln() - f64::from(logits[self.sequence.targets[place] as usize])
    }
}

/// A sequence of one document with the positions of `model`.
fn positioned(sequence: Microbatch, model: &ModelSpec) -> Microbatch {
    let layouts: Vec<ImageLayout> = sequence.images.iter().map(Image::layout).collect();
    let places = sequence.image_offsets.iter().zip(&layouts);
    let places = places.map(|(&offset, layout)| ImagePlace { offset, layout });
    let positions = PositionRule::of(model).document(sequence.tokens.len(), places);
    Microbatch { positions, ..sequence }
}

/// An image with the pixels of `transformers`: one view for each tensor.
fn image(expected: &TensorStore, name: &str, model: &ModelSpec) -> Image {
    let vit = model.modules[0].kind.get::<VitSpec>().unwrap();
    let view = |i: usize| {
        let name = format!("pixels.{name}.{i}");
        let (frames, &[_, height, width]) = expected.shape(&name)?.split_last_chunk::<3>()?;
        let frames = frames.first().map_or(1, |&frames| frames as u32 / vit.tower.frames());
        let still = ViewGrid::still(height as u32 / vit.patch_px, width as u32 / vit.patch_px);
        let grid = ViewGrid { frames, ..still };
        let rows = expected.all(&name).unwrap();
        // Pixels beyond the last whole patch are not used.
        let (bottom, right) = (grid.rows * vit.patch_px, grid.columns * vit.patch_px);
        let rows = rows.chunks(width).enumerate().filter(|(y, _)| y % height < bottom as usize);
        Some(View {
            grid,
            pixels: rows.flat_map(|(_, row)| &row[..right as usize]).copied().collect(),
        })
    };
    let views: Vec<View> = (0..).map_while(view).collect();
    let numbers = expected.all(&format!("arrangement.{name}")).unwrap_or_default();
    let numbers: Vec<u32> = numbers.into_iter().map(|n| n as u32).collect();
    let own = vit.tokens_per_image();
    let (arrangement, tokens) = match numbers[..] {
        [] if vit.tower.learned_positions() => (Arrangement::Rows, own),
        [] => {
            let patches: usize = views.iter().map(|view| view.grid.patches()).sum();
            (Arrangement::Rows, patches as u32 / (vit.merge * vit.merge))
        }
        [1] => (Arrangement::RowsWithNewline, own + 1),
        [2, tile_rows, tile_columns, cut_rows, cut_columns, rows, columns, interpolated] => {
            let tiles = TileGrid { rows: tile_rows, columns: tile_columns };
            let interpolated = interpolated == 1;
            let joined = JoinedTiles { tiles, cut_rows, cut_columns, rows, columns, interpolated };
            (Arrangement::Tiles(joined), own + rows * (columns + 1))
        }
        [3, rows, columns] => {
            (Arrangement::Split(TileGrid { rows, columns }), own * views.len() as u32)
        }
        _ => panic!("{name}: {numbers:?}"),
    };
    Image { views, arrangement, tokens, frame_seconds: 0.0 }
}

/// The sounds of case `i`, at `offsets`; none for a case with images.
fn sounds(expected: &TensorStore, i: usize, offsets: &[u32], model: &ModelSpec) -> Vec<Sound> {
    let sound = |(j, &offset): (usize, &u32)| {
        let mel = expected.all(&format!("mel.{i}.{j}")).ok()?;
        let mel_frames = expected.all(&format!("mel_frames.{i}.{j}")).unwrap()[0] as u32;
        let audio = model.modules[0].kind.get::<AudioSpec>().unwrap();
        let tokens = audio.tokens_of(mel_frames.div_ceil(2).into()) as u32;
        Some(Sound { mel, mel_frames, offset, tokens })
    };
    offsets.iter().enumerate().map_while(sound).collect()
}

pub fn set_image_px(model: &mut ModelSpec, px: u32) {
    for module in &mut model.modules {
        if let ModuleKind::Vit(VitSpec { image_px, .. }) = &mut module.kind {
            *image_px = px;
        }
    }
}

/// Largest difference between two tables, relative to the largest value of the first.
pub fn largest(a: &[Vec<f32>], b: &[f32]) -> f32 {
    let a: Vec<f32> = a.iter().flatten().copied().collect();
    assert_eq!(a.len(), b.len());
    let scale = a.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max) / scale
}

/// A batch of sequences, and a random plan for it on a partition.
pub fn planned(
    fixture: &Fixture,
    partition: &Partition,
    sequences: Vec<Microbatch>,
    rng: &mut ChaCha8Rng,
    strategies: &[&str],
) -> (Arc<Batch>, Plan) {
    let model = &fixture.model;
    let meta = |sequence: &Microbatch| {
        if !sequence.clips.is_empty() {
            return meta(sequence);
        }
        let sizes: Vec<ImageSize> = sequence.images.iter().map(|i| i.layout().size()).collect();
        let of_images: u64 = sizes.iter().map(|size| u64::from(size.tokens)).sum();
        let of_sounds: u64 = sequence.sounds.iter().map(|s| u64::from(s.tokens)).sum();
        let text_tokens = sequence.tokens.len() as u64 - of_images - of_sounds;
        let seconds = sequence.sounds.iter().map(|s| f64::from(s.mel_frames) / 100.0);
        MicrobatchMeta {
            images: sizes.into(),
            text_tokens,
            audio_seconds: seconds.collect(),
            ..Default::default()
        }
    };
    let metas = BatchMeta { iteration: 0, microbatches: sequences.iter().map(meta).collect() };
    let split = random_split(rng, model, &metas);
    let trained_tokens = sequences.iter().map(Microbatch::trained_tokens).sum();
    let batch = Arc::new(Batch { microbatches: sequences, split, trained_tokens });
    let graph = graph(model, partition, &metas, &batch, rng.random_bool(0.5));
    let plan = random_plan(rng, graph, strategies);
    (batch, plan)
}

/// One rank with every module.
pub fn whole(model: &ModelSpec) -> Partition {
    let modules = model.modules.iter().map(|m| {
        let chunk = Chunk { rank: RankId(0), segment: SegmentId(0), layers: 0..m.layers };
        ModulePartition { sub_microbatch: 1, chunks: vec![chunk] }
    });
    Partition { ranks: 1, modules: modules.collect() }
}

/// Two ranks; each has one half of every module.
pub fn halves(model: &ModelSpec) -> Partition {
    let modules = model.modules.iter().map(|m| {
        let half = m.layers / 2;
        let chunk = |rank, layers| Chunk { rank: RankId(rank), segment: SegmentId(rank), layers };
        ModulePartition {
            sub_microbatch: 1,
            chunks: vec![chunk(0, 0..half), chunk(1, half..m.layers)],
        }
    });
    Partition { ranks: 2, modules: modules.collect() }
}

/// The path of the model in the folder that [`Fixture::exported`] returns.
pub fn out(folder: &tempfile::TempDir) -> PathBuf {
    Path::join(folder.path(), "out")
}
