//! Measures what the parts of a model cost on this machine: the profile that plans are made with.
//!
//! Every module is measured through the same [`ChunkStage`] that trains it, in chunks that differ by one part, so that
//! differences give the parts. As many threads measure at once as there will be ranks, since ranks share caches, memory
//! bandwidth and clock.

mod figures;
mod inputs;
mod memory;
pub mod operators;
mod peak;
mod settings;
mod stages;

use std::collections::VecDeque;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Barrier;

use burn::tensor::StreamId;
use burn::tensor::backend::Backend;
use dip_core::profile::{
    PROFILE_SCHEMA, Part, PartBytes, PartTimes, Profile, ProfileEntry, combined,
};
use dip_core::{
    LinkError, MicrobatchId, ModelSpec, ModuleId, ModuleKind, PairKey, RankId, Received, Seconds,
    SegmentId, SpecError, StageCall, StageError, Strategy, SubMicrobatchId, TaskId,
};
use thiserror::Error;

use crate::files;
use crate::model::ModelError;
use crate::runtime::Optimizer;
use crate::stage::{ChunkStage, Payload};
use figures::Figures;
pub use figures::undisturbed;
pub use settings::MeasureSettings;

/// Layers of the module that is measured: room for a first, a last and a run of middle layers.
const LAYERS: u32 = 6;
/// The chunks that are measured: one middle layer, several, the first and the last.
const CHUNKS: [Range<u32>; 4] = [1..2, 1..5, 0..1, LAYERS - 1..LAYERS];
/// Ranks of one process hand over references through channels.
const CHANNEL_LATENCY: Seconds = Seconds(20e-6);
const CHANNEL_BYTES_PER_S: f64 = 1e12;

/// A measurement that failed.
#[derive(Debug, Error)]
pub enum MeasureError {
    /// The model cannot be built.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A stage failed.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The measured profile is not valid.
    #[error(transparent)]
    Profile(#[from] SpecError),
    /// The profile file cannot be read or written.
    #[error("{}: {source}; check the disk and the permissions of the folder", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A rank did not answer another.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A thread failed.
    #[error("a measuring thread failed; its own message says why")]
    Thread,
}

/// The profile in `path`, or, where there is none for this model and settings, a new one that is stored there.
///
/// # Errors
/// As [`profile`], and [`MeasureError::Io`] where the file cannot be read or written.
pub fn cached_profile<B: Backend>(
    path: &Path,
    model: &ModelSpec,
    device: &B::Device,
    settings: MeasureSettings,
) -> Result<Profile, MeasureError> {
    let io = |source| MeasureError::Io { path: path.to_owned(), source };
    let shapes = serde_json::to_string(&model.modules).expect("plain data has a JSON form");
    let key = format!(
        "{} {} {:?}{} {} tokens {} documents {} images{}, {} in flight on {} ranks of {} threads: {shapes}",
        B::name(device),
        settings.precision.name(),
        settings.algorithm,
        if settings.averages { " averages" } else { "" },
        model.sequence_tokens,
        settings.documents,
        model.max_images,
        if is_video(model) {
            format!(" {} clips as {:?}", model.max_clips, settings.clip)
        } else {
            String::new()
        },
        settings.in_flight,
        settings.ranks,
        settings.threads,
    );
    match std::fs::read_to_string(path) {
        Ok(text) => match Profile::from_json(&text) {
            Ok(profile) if profile.key == key => return Ok(profile),
            // Of another model or version: measured again.
            _ => {}
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(io(e)),
    }
    let text = profile::<B>(model, device, settings, key)?.to_json();
    std::fs::create_dir_all(files::parent(path)).map_err(io)?;
    files::write_whole(path, text.as_bytes()).map_err(io)?;
    // The figures as they are read back, to the last digit: a run that is resumed makes the same plans.
    Ok(Profile::from_json(&text)?)
}

/// Measures every module of a model at several sizes.
///
/// `key` says what was measured on what; a profile is only reused for the same key.
///
/// # Errors
/// [`MeasureError`] where the model cannot be trained.
pub fn profile<B: Backend>(
    model: &ModelSpec,
    device: &B::Device,
    settings: MeasureSettings,
    key: String,
) -> Result<Profile, MeasureError> {
    settings.precision.check_supported::<B>(device)?;
    let all = at_once(settings.ranks, settings.threads, |_, barrier| {
        let rounds = (0..settings.rounds.max(1))
            .map(|round| entries::<B>(model, device, (settings, round), barrier))
            .collect::<Result<Vec<_>, _>>()?;
        let entries = combined(&rounds, undisturbed);
        barrier.wait();
        Ok::<_, MeasureError>((entries, peak::peak_flops_per_s::<B>(device, settings.precision)))
    })?;
    let all = all.into_iter().collect::<Result<Vec<_>, _>>()?;
    let (all, peaks): (Vec<_>, Vec<Option<f64>>) = all.into_iter().unzip();
    let ranks = peaks.len() as f64;
    let peak: Option<f64> = peaks.into_iter().sum();
    Ok(Profile {
        schema: PROFILE_SCHEMA.into(),
        key,
        element_bytes: settings.precision.element_bytes() as u32,
        entries: combined(&all, |seconds| seconds.iter().sum::<f64>() / seconds.len() as f64),
        link_latency_s: CHANNEL_LATENCY,
        link_bytes_per_s: CHANNEL_BYTES_PER_S,
        peak_flops_per_s: peak.map(|sum| sum / ranks),
    })
}

/// What `ranks` threads give that measure side by side, each computing on `threads` threads of its own as in training.
/// They meet at the barrier, so that all measure the same thing at the same time.
fn at_once<T: Send>(
    ranks: usize,
    threads: usize,
    measure: impl Fn(usize, &Barrier) -> T + Sync,
) -> Result<Vec<T>, MeasureError> {
    let ranks = ranks.max(1);
    let barrier = Barrier::new(ranks);
    let stream = StreamId::current();
    let one = |rank| {
        // Kept until the thread ends: dropping it would end the compute threads.
        let _pool =
            rayon::ThreadPoolBuilder::new().num_threads(threads).use_current_thread().build();
        stream.executes(|| measure(rank, &barrier))
    };
    std::thread::scope(|scope| {
        let one = &one;
        let ranks: Vec<_> = (0..ranks).map(|rank| scope.spawn(move || one(rank))).collect();
        let joined = ranks.into_iter().map(|rank| rank.join().map_err(|_| MeasureError::Thread));
        joined.collect()
    })
}

fn entries<B: Backend>(
    model: &ModelSpec,
    device: &B::Device,
    (settings, round): (MeasureSettings, usize),
    barrier: &Barrier,
) -> Result<Vec<ProfileEntry>, MeasureError> {
    let mut model = model.clone();
    for module in &mut model.modules {
        module.layers = LAYERS;
        // Of a frozen module every part is measured, too; the cost model leaves out what it does not run.
        module.trainable = true;
    }
    let mut entries = Vec::new();
    for m in 0..model.modules.len() {
        let module = ModuleId::from(m);
        for instances in sizes(&model, module) {
            // Ranks measure the same thing at the same time.
            barrier.wait();
            let probe = Probe::<B> { model: &model, module, instances, device, settings, round };
            entries.extend(probe.parts()?);
        }
    }
    Ok(entries)
}

/// Numbers of instances to measure: one, all, and the powers of two between.
fn sizes(model: &ModelSpec, module: ModuleId) -> Vec<u32> {
    let most = match model.modules[module.index()].kind {
        ModuleKind::Vit { .. } => model.max_images.max(2),
        _ if is_video(model) => model.max_clips.max(2),
        _ => return vec![1],
    };
    let powers = std::iter::successors(Some(1u32), |n| n.checked_mul(2));
    powers.take_while(|&n| n < most).chain([most]).collect()
}

/// Whether the instances of a model are clips and their captions.
fn is_video(model: &ModelSpec) -> bool {
    model.modules.iter().any(|m| matches!(m.kind, ModuleKind::Dit { .. }))
}

/// Measures one module at one size.
struct Probe<'a, B: Backend> {
    model: &'a ModelSpec,
    module: ModuleId,
    instances: u32,
    device: &'a B::Device,
    settings: MeasureSettings,
    round: usize,
}

/// A chunk with what the stage before hands over.
struct Measured<B: Backend> {
    stage: ChunkStage<B>,
    optimizer: Optimizer<B>,
    inputs: Inputs<B>,
    /// What its forwards handed on, the oldest first.
    outputs: VecDeque<Inputs<B>>,
}

type Chunks<B> = [Measured<B>];

impl<B: Backend> Probe<'_, B> {
    /// The differences of the chunks are the parts.
    fn parts(&self) -> Result<Vec<ProfileEntry>, MeasureError> {
        let [one, several, first, last] = self.figures()?;
        let more = f64::from(CHUNKS[1].len() as u32 - 1);
        let layer = several.less(one).share(more);
        let parts = [
            (Part::Stage, one.less(layer)),
            (Part::Layer, layer),
            (Part::First, first.less(one)),
            (Part::Last, last.less(one)),
        ];
        let spec = &self.model.modules[self.module.index()];
        let tokens = self.tokens() as u64;
        Ok(parts
            .into_iter()
            .map(|(part, Figures { times, kept })| ProfileEntry {
                module: spec.name.clone(),
                part,
                tokens,
                // No strategy is faster than keeping everything: what says so is noise.
                times: PartTimes {
                    selective_backward_s: times.selective_backward_s.max(times.backward_s),
                    offload_forward_s: times.offload_forward_s.max(times.forward_s),
                    offload_backward_s: times.offload_backward_s.max(times.backward_s),
                    ..times
                },
                kept,
            })
            .collect())
    }

    /// Tokens that pass through the layers.
    fn tokens(&self) -> usize {
        let (spec, clip) = (&self.model.modules[self.module.index()], self.settings.clip);
        let instances = self.instances as usize;
        match spec.kind {
            ModuleKind::Vit { .. } => instances * spec.rows_per_image() as usize,
            ModuleKind::Dit { .. } => instances * clip.grid.tokens(),
            _ if is_video(self.model) => instances * clip.caption_tokens as usize,
            _ => self.model.sequence_tokens as usize,
        }
    }

    /// Seconds and bytes of every chunk.
    fn figures(&self) -> Result<[Figures; CHUNKS.len()], MeasureError> {
        let times = self.chunks()?;
        let mut figures = times.map(|times| Figures { times, kept: PartBytes::default() });
        // Bytes are exact: one round tells them.
        if self.round == 0 {
            for (figures, layers) in figures.iter_mut().zip(CHUNKS) {
                figures.kept = self.bytes_kept(layers)?;
            }
        }
        Ok(figures)
    }

    fn pair(&self, segment: u32) -> PairKey {
        PairKey {
            rank: RankId(0),
            module: self.model.modules[self.module.index()].name.as_str().into(),
            segment: SegmentId(segment),
            microbatch: MicrobatchId(0),
            sub_microbatch: SubMicrobatchId(0),
        }
    }

    fn call(
        &self,
        microbatch: usize,
        strategy: &str,
        split: bool,
        consumers: Vec<PairKey>,
    ) -> StageCall {
        let strategy = Strategy::new(strategy);
        let pair = PairKey { microbatch: MicrobatchId::from(microbatch), ..self.pair(1) };
        StageCall { task: TaskId(0), pair, strategy, split, consumers }
    }
}

type Inputs<B> = Vec<Received<Payload<B>>>;

#[cfg(test)]
mod tests;
