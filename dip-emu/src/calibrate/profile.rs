//! Fits factors to whole layers: to the profile that the trainer measures, where there are no single operators.

use dip_core::profile::{Part, Profile, ProfileEntry};
use dip_core::{
    ClipMeta, ClusterSpec, Factors, MicrobatchMeta, ModelSpec, ModuleId, ModuleKind, Seconds,
};

use super::{Calibration, FitError, Residual, mean};
use crate::layer::{Layout, operators};
use crate::ops::{Machine, Pass};

/// Factors that layers tell apart: products, attention, memory and launches.
const FACTORS: usize = 4;
/// Pull towards the factors of the cluster, against those of the measurements: it decides where they say nothing.
const PULL: f64 = 1e-4;
/// What of a layer is timed.
const PASSES: [&str; 2] = ["layer forward", "layer backward"];
/// Tokens of the caption of a measured clip.
const CAPTION: u64 = 64;

/// A layer that was measured, with its operators.
struct Layer {
    dag: crate::dag::Dag,
    forward: f64,
    backward: f64,
}

/// Fits the factors of `cluster` to the layers of `profile`, which was measured with `model` on single devices.
///
/// # Errors
/// [`FitError::Empty`] where the profile has no layer of the model with times above 0.
pub fn fit_profile(
    model: &ModelSpec,
    cluster: &ClusterSpec,
    profile: &Profile,
) -> Result<Calibration, FitError> {
    let layout = Layout { tensor: 1, element_bytes: cluster.device.element_bytes };
    let mut model = model.clone();
    model.parallel.tensor = 1;
    let layers: Vec<Layer> =
        profile.entries.iter().filter_map(|entry| layer(&model, entry, layout)).collect();
    if layers.is_empty() {
        return Err(FitError::Empty { model: model.name.clone() });
    }
    let all: Vec<&Layer> = layers.iter().collect();
    let fitted = descend(&model, cluster, &all);
    let machine = Machine::new(&model, &fitted);
    let mut residuals = Vec::new();
    for (i, layer) in layers.iter().enumerate() {
        let others: Vec<_> = layers.iter().enumerate().filter(|(j, _)| *j != i).collect();
        let others: Vec<&Layer> = others.into_iter().map(|(_, l)| l).collect();
        let left_out = (!others.is_empty())
            .then(|| layer.errors(&Machine::new(&model, &descend(&model, cluster, &others))));
        for (pass, fitted) in layer.seconds(&machine).into_iter().enumerate() {
            let error = layer.errors(&machine)[pass];
            let left_out = left_out.map(|errors| errors[pass]);
            let fitted = Seconds(fitted);
            residuals.push(Residual { name: PASSES[pass], fitted, error, left_out });
        }
    }
    Ok(Calibration { cluster: fitted, residuals })
}

/// The operators of a measured layer; `None` for other parts, other models and times of zero.
fn layer(model: &ModelSpec, entry: &ProfileEntry, layout: Layout) -> Option<Layer> {
    let (id, spec) = model.module(&entry.module)?;
    let (forward, backward) = (entry.times.forward_s.0, entry.times.backward_s.0);
    if entry.part != Part::Layer || forward <= 0.0 || backward <= 0.0 {
        return None;
    }
    let meta = microbatch(&spec.kind, spec.patches_per_image(), entry.tokens);
    let (_, instances) = model.instances(id, &meta);
    let work = model.workload(id, &meta, 0..instances);
    let dag = operators(model, ModuleId::from(id.index()), Part::Layer, &work, layout);
    Some(Layer { dag, forward, backward })
}

/// A microbatch that gives a module of that kind so many tokens.
fn microbatch(kind: &ModuleKind, patches_per_image: u32, tokens: u64) -> MicrobatchMeta {
    let mut meta = MicrobatchMeta::default();
    match *kind {
        ModuleKind::Vit { .. } => {
            meta.images = (tokens / u64::from(patches_per_image.max(1))).clamp(1, 1 << 20) as u32;
        }
        ModuleKind::Audio { frames_per_second, .. } => {
            meta.audio_seconds = vec![tokens as f64 / f64::from(frames_per_second)];
        }
        ModuleKind::Decoder { .. } => meta.text_tokens = tokens,
        ModuleKind::Dit { latent_frames_per_second, tokens_per_frame, .. } => {
            let frames = tokens as f64 / f64::from(tokens_per_frame);
            let seconds = frames / latent_frames_per_second;
            meta.clips = vec![ClipMeta { seconds, caption_tokens: CAPTION, ..Default::default() }];
        }
    }
    meta
}

impl Layer {
    /// Predicted seconds of the forward and the backward.
    fn seconds(&self, machine: &Machine) -> [f64; 2] {
        let of = |pass| self.dag.latency(pass, machine).0;
        [of(Pass::Forward), of(Pass::InputGradient) + of(Pass::WeightGradient)]
    }

    /// The same over what was measured.
    fn ratios(&self, machine: &Machine) -> [f64; 2] {
        let [forward, backward] = self.seconds(machine);
        [forward / self.forward, backward / self.backward]
    }

    fn errors(&self, machine: &Machine) -> [f64; 2] {
        self.ratios(machine).map(|r| (r - 1.0).abs())
    }
}

/// Coordinate descent over the logarithms of the factors, with steps that shrink when none of them helps.
fn descend(model: &ModelSpec, cluster: &ClusterSpec, layers: &[&Layer]) -> ClusterSpec {
    let with = |x: &[f64; FACTORS]| {
        let mut changed = cluster.clone();
        changed.factors = Factors {
            matmul: cluster.factors.matmul * x[0].exp(),
            attention: cluster.factors.attention * x[1].exp(),
            memory: cluster.factors.memory * x[2].exp(),
            launch_s: cluster.factors.launch_s.max(1e-6) * x[3].exp(),
            ..cluster.factors.clone()
        };
        changed
    };
    let loss = |x: &[f64; FACTORS]| {
        let machine = Machine::new(model, &with(x));
        let squares = layers.iter().flat_map(|l| l.ratios(&machine)).map(|r| r.ln().powi(2));
        mean(squares) + PULL * x.iter().map(|v| v * v).sum::<f64>()
    };
    let mut x = [0.0; FACTORS];
    let (mut best, mut step) = (loss(&x), 1.0);
    while step > 1e-3 {
        let before = best;
        for i in 0..FACTORS {
            for change in [step, -step] {
                let mut next = x;
                next[i] += change;
                let found = loss(&next);
                if found < best {
                    (best, x) = (found, next);
                }
            }
        }
        if best >= before {
            step /= 2.0;
        }
    }
    with(&x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dip_core::presets;
    use dip_core::profile::{PROFILE_SCHEMA, PartBytes, PartTimes};

    /// What a machine with other factors would have measured.
    fn measured(model: &ModelSpec, real: &ClusterSpec) -> Profile {
        let mut alone = model.clone();
        alone.parallel.tensor = 1;
        let machine = Machine::new(&alone, real);
        let layout = Layout { tensor: 1, element_bytes: real.device.element_bytes };
        let mut entries = Vec::new();
        for (module, sizes) in [("vision", [1, 2, 4, 8]), ("language", [64, 256, 1024, 4096])] {
            let (id, spec) = model.module(module).unwrap();
            for size in sizes {
                let tokens = size * u64::from(spec.patches_per_image().max(1));
                let meta = microbatch(&spec.kind, spec.patches_per_image(), tokens);
                let work = model.workload(id, &meta, 0..model.instances(id, &meta).1);
                assert_eq!(work.tokens, tokens);
                let dag = operators(model, id, Part::Layer, &work, layout);
                let of = |pass| dag.latency(pass, &machine);
                entries.push(ProfileEntry {
                    module: module.into(),
                    part: Part::Layer,
                    tokens,
                    times: PartTimes {
                        forward_s: of(Pass::Forward),
                        inference_s: of(Pass::Forward),
                        backward_s: of(Pass::InputGradient) + of(Pass::WeightGradient),
                        input_gradient_s: of(Pass::InputGradient),
                        weight_s: of(Pass::WeightGradient),
                        ..PartTimes::default()
                    },
                    kept: PartBytes::default(),
                });
            }
        }
        Profile {
            schema: PROFILE_SCHEMA.into(),
            key: "test".into(),
            entries,
            link_latency_s: Seconds::ZERO,
            link_bytes_per_s: 1.0,
            peak_flops_per_s: None,
            element_bytes: 4,
        }
    }

    #[test]
    fn layers_of_another_machine_are_predicted_after_the_fit() {
        let model = presets::model("vlm-s").unwrap();
        let sheet = presets::cluster("cpu").unwrap();
        let mut real = sheet.clone();
        real.factors =
            Factors { matmul: 2.5, attention: 6.0, memory: 3.0, launch_s: 40e-6, ..real.factors };
        let profile = measured(&model, &real);
        let fitted = fit_profile(&model, &sheet, &profile).unwrap();
        assert!(fitted.error() < 0.01, "{fitted:?}");
        assert!(fitted.leave_one_out() < 0.03, "{}", fitted.leave_one_out());
        let (found, truth) = (&fitted.cluster.factors, &real.factors);
        assert!((found.matmul / truth.matmul - 1.0).abs() < 0.05, "{found:?}");
        assert!((found.attention / truth.attention - 1.0).abs() < 0.2, "{found:?}");
    }

    #[test]
    fn a_profile_of_another_model_is_refused() {
        let (vlm, t2v) = (presets::model("vlm-s").unwrap(), presets::model("t2v-s").unwrap());
        let cluster = presets::cluster("cpu").unwrap();
        let error = fit_profile(&t2v, &cluster, &measured(&vlm, &cluster)).unwrap_err();
        assert!(error.to_string().contains("t2v-s"), "{error}");
    }

    #[test]
    fn every_kind_of_module_gets_the_tokens_that_were_measured() {
        let model = presets::model("omni-s").unwrap();
        for (id, spec) in model.modules.iter().enumerate() {
            let tokens = 2 * 1024;
            let meta = microbatch(&spec.kind, spec.patches_per_image(), tokens);
            let id = ModuleId::from(id);
            let work = model.workload(id, &meta, 0..model.instances(id, &meta).1);
            assert_eq!(work.tokens, tokens, "{}", spec.name);
        }
    }
}
