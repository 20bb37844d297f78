//! The profile of a model: every module at several sizes.

use std::path::Path;

use burn::tensor::backend::Backend;
use dip_core::profile::{PROFILE_SCHEMA, Part, Profile, ProfileEntry, combined};
use dip_core::{AudioSpec, ModelSpec, ModuleId, ModuleSpec, Seconds};
use dip_files::Kind;
use serde::Serialize;

use super::images::with_image_times;
use super::meeting::Meeting;
use super::probe::{LAYERS, ModuleProbe};
use super::{MeasureError, MeasureSettings, at_once, peak, undisturbed};
use crate::batch::ClipSize;
use crate::model::{Modalities, ProbeImages, ProbeSpec};

/// Latency and bandwidth between ranks of one process, which send references through channels.
const CHANNEL_LATENCY: Seconds = Seconds(20e-6);
const CHANNEL_BYTES_PER_S: f64 = 1e12;

/// Measures the profile of a model on a device.
pub struct Profiler<'a, B: Backend> {
    model: &'a ModelSpec,
    device: &'a B::Device,
    settings: MeasureSettings,
    modalities: Modalities<B>,
}

/// Everything that a profile depends on. A profile is reused only for the same key.
#[derive(Serialize)]
struct ProfileKey<'a> {
    backend: String,
    precision: &'static str,
    algorithm: String,
    averages: bool,
    sequence_tokens: u32,
    documents: usize,
    max_images: u32,
    /// Most patches of a microbatch, in models that keep the proportions of images.
    max_patches: Option<u64>,
    /// Most clips of a microbatch, and their mean size; absent in models without clips.
    clips: Option<(u32, ClipSize)>,
    /// Mean length of sounds, in seconds; absent in models without sounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    sound_seconds: Option<f64>,
    in_flight: usize,
    ranks: usize,
    threads: usize,
    modules: &'a [ModuleSpec],
}

impl<'a, B: Backend> Profiler<'a, B> {
    /// A profiler of a model of built-in modalities.
    pub fn new(model: &'a ModelSpec, device: &'a B::Device, settings: MeasureSettings) -> Self {
        Self { model, device, settings, modalities: Modalities::default() }
    }

    /// Replaces the modalities, to include modalities of other crates.
    #[must_use]
    pub fn with_modalities(mut self, modalities: Modalities<B>) -> Self {
        self.modalities = modalities;
        self
    }

    /// Reads the profile in `path`. If it is absent or has another key, measures a new one and stores it there.
    ///
    /// # Errors
    /// As [`Profiler::profile`], and [`MeasureError::Io`] if the file cannot be read or written.
    pub fn cached_profile(&self, path: &Path) -> Result<Profile, MeasureError> {
        let io = |source| MeasureError::Io { path: path.to_owned(), source };
        match dip_files::read_text(path, Kind::PROFILE) {
            Ok(text) => match Profile::from_json(&text) {
                Ok(profile) if profile.key == self.key() => return Ok(profile),
                // The profile of another model or version is measured again.
                _ => {}
            },
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(io(e)),
        }
        let text = self.profile()?.to_json();
        dip_files::write_whole(path, text.as_bytes()).map_err(io)?;
        // Reads the stored digits back, so that a resumed run makes the same plans.
        Ok(Profile::from_json(&text)?)
    }

    /// Measures every module at several sizes.
    ///
    /// # Errors
    /// [`MeasureError`] if the model cannot be trained.
    pub fn profile(&self) -> Result<Profile, MeasureError> {
        let (device, settings) = (self.device, &self.settings);
        settings.precision.check_supported::<B>(device)?;
        let all = at_once(settings.ranks, settings.threads, |_, meeting| {
            let rounds = (0..settings.rounds.max(1))
                .map(|round| self.entries(round, meeting))
                .collect::<Result<Vec<_>, _>>()?;
            let (typical, extremes): (Vec<_>, Vec<_>) = rounds.into_iter().unzip();
            let entries = combined(&typical, undisturbed);
            let extremes = combined(&extremes, undisturbed);
            let entries = with_image_times(entries, &extremes);
            meeting.wait();
            let peak = peak::peak_flops_per_s::<B>(device, settings.precision);
            Ok::<_, MeasureError>((entries, peak))
        })?;
        let all = all.into_iter().collect::<Result<Vec<_>, _>>()?;
        let (all, peaks): (Vec<_>, Vec<Option<f64>>) = all.into_iter().unzip();
        let ranks = peaks.len() as f64;
        let peak: Option<f64> = peaks.into_iter().sum();
        Ok(Profile {
            schema: PROFILE_SCHEMA.into(),
            key: self.key(),
            element_bytes: settings.precision.element_bytes() as u32,
            entries: combined(&all, |seconds| seconds.iter().sum::<f64>() / seconds.len() as f64),
            link_latency_s: CHANNEL_LATENCY,
            link_bytes_per_s: CHANNEL_BYTES_PER_S,
            peak_flops_per_s: peak.map(|sum| sum / ranks),
        })
    }

    fn key(&self) -> String {
        let (model, settings) = (self.model, &self.settings);
        let native = ProbeImages::typical(model) != ProbeImages::Own;
        let key = ProfileKey {
            backend: B::name(self.device),
            precision: settings.precision.name(),
            algorithm: format!("{:?}", settings.algorithm),
            averages: settings.averages,
            sequence_tokens: model.sequence_tokens,
            documents: settings.documents,
            max_images: model.max_images,
            max_patches: native.then(|| model.patch_limit()),
            clips: model.video().map(|_| (model.max_clips, settings.clip)),
            sound_seconds: self.hears().then_some(settings.sound_seconds),
            in_flight: settings.in_flight,
            ranks: settings.ranks,
            threads: settings.threads,
            modules: &model.modules,
        };
        serde_json::to_string(&key).expect("plain data has a JSON form")
    }

    /// True if the model has an audio encoder.
    fn hears(&self) -> bool {
        self.model.modules.iter().any(|module| module.kind.get::<AudioSpec>().is_some())
    }

    /// Encoder frames of a sound of mean length.
    fn sound_frames(&self, model: &ModelSpec) -> u32 {
        let audio = model.modules.iter().find_map(|module| module.kind.get::<AudioSpec>());
        audio.map_or(1, |audio| audio.frames(self.settings.sound_seconds) as u32)
    }

    /// The entries of one round: of typical sizes, and of the largest and smallest images of encoders that keep proportions.
    fn entries(&self, round: usize, meeting: &Meeting) -> Result<RoundEntries, MeasureError> {
        let mut model = self.model.clone();
        for module in &mut model.modules {
            module.layers = LAYERS;
            // All parts of a frozen module are measured, too; the cost model leaves out the parts that do not run.
            (module.trainable, module.frozen) = (true, trained_tower(module));
        }
        let (mut entries, mut extremes) = (Vec::new(), Vec::new());
        for (m, module) in model.modules.iter().enumerate() {
            let modality = self.modalities.of(module)?;
            for (kind, module) in modality.layer_kinds(module) {
                let mut model = model.clone();
                model.modules[m] = module;
                let counts = modality.measured_counts(&model).into_iter();
                let typical = counts.map(|count| (ProbeImages::typical(&model), count));
                let is_native = self.spec(&model, m).has_native_images() && kind == Part::Layer;
                let others = [ProbeImages::Largest, ProbeImages::Smallest];
                let others = others.into_iter().filter(|_| is_native);
                let others = others.map(|images| (images, images.count(&model)));
                for (images, instances) in typical.chain(others) {
                    // All ranks measure the same part at the same time.
                    meeting.wait();
                    let spec = ProbeSpec { images, instances, ..self.spec(&model, m) };
                    let probe = ModuleProbe {
                        spec,
                        modality,
                        modalities: &self.modalities,
                        device: self.device,
                        settings: &self.settings,
                        round,
                    };
                    match images == ProbeImages::typical(&model) {
                        true => entries.extend(of_kind(kind, probe.parts()?)),
                        false => extremes.extend(probe.parts()?),
                    }
                }
            }
        }
        Ok((entries, extremes))
    }

    /// A probe of one instance of a module.
    fn spec<'m>(&self, model: &'m ModelSpec, module: usize) -> ProbeSpec<'m> {
        ProbeSpec {
            model,
            module: ModuleId::from(module),
            instances: 1,
            documents: self.settings.documents.max(1),
            trained_tokens: model.sequence_tokens as usize / 2,
            clip: self.settings.clip,
            images: ProbeImages::Own,
            sound_frames: self.sound_frames(model),
        }
    }
}

/// The frozen parts of a module without its tower: a tower is measured with its backward, which the cost model leaves out.
fn trained_tower(module: &ModuleSpec) -> Vec<String> {
    module.frozen.iter().filter(|part| *part != "tower").cloned().collect()
}

/// The entries of typical sizes, and those of the largest and the smallest images.
type RoundEntries = (Vec<ProfileEntry>, Vec<ProfileEntry>);

/// The entries of a kind of layers: all parts, or only the layer under the name of its kind.
fn of_kind(kind: Part, parts: Vec<ProfileEntry>) -> Vec<ProfileEntry> {
    if kind == Part::Layer {
        return parts;
    }
    let layers = parts.into_iter().filter(|entry| entry.part == Part::Layer);
    layers.map(|entry| ProfileEntry { part: kind, ..entry }).collect()
}
