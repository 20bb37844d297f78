//! Fits factors to whole layers, as the trainer measures them in a profile.

use dip_core::profile::{Part, Profile, ProfileEntry};
use dip_core::{ClusterSpec, Factors, ModelSpec, Seconds};

use super::calibration::{Calibration, FitError, FittedTime, mean};
use crate::modality::{DeviceLayout, OperatorTable, PartQuery};
use crate::operators::{Dag, Machine, Pass};

/// The number of factors that layers can tell apart: products, attention, memory and launches.
const FACTORS: usize = 4;
/// Weight of the penalty for leaving the factors of the cluster. It decides the factors that the measurements do not determine.
const PULL: f64 = 1e-4;
/// The measured passes of a layer.
const PASSES: [&str; 2] = ["layer forward", "layer backward"];

/// A measured layer with its operators.
struct MeasuredLayer {
    dag: Dag,
    forward_s: f64,
    backward_s: f64,
}

/// Fits the factors of `cluster` to the layers of `profile`, which was measured with `model` on single devices.
///
/// # Errors
/// [`FitError::Empty`] if the profile has no layer of the model with times above 0.
pub fn fit_profile(
    model: &ModelSpec,
    cluster: &ClusterSpec,
    profile: &Profile,
) -> Result<Calibration, FitError> {
    let layout = DeviceLayout { tensor: 1, element_bytes: cluster.device.element_bytes };
    let mut model = model.clone();
    model.parallel.tensor = 1;
    let layers: Vec<MeasuredLayer> =
        profile.entries.iter().filter_map(|entry| measured_layer(&model, entry, layout)).collect();
    if layers.is_empty() {
        return Err(FitError::Empty { model: model.name.clone() });
    }
    let all: Vec<&MeasuredLayer> = layers.iter().collect();
    let fitted = descend(cluster, &all);
    let machine = Machine::new(&fitted, 1);
    let mut times = Vec::new();
    for (i, layer) in layers.iter().enumerate() {
        let others = [&all[..i], &all[i + 1..]].concat();
        let left_out = (!others.is_empty())
            .then(|| layer.errors(&Machine::new(&descend(cluster, &others), 1)));
        let (seconds, errors) = (layer.seconds(&machine), layer.errors(&machine));
        for (pass, name) in PASSES.into_iter().enumerate() {
            times.push(FittedTime {
                name,
                seconds: Seconds(seconds[pass]),
                error: errors[pass],
                left_out: left_out.map(|errors| errors[pass]),
            });
        }
    }
    Ok(Calibration { cluster: fitted, times })
}

/// The layer of a profile entry. `None` for other parts, other models and times of zero.
fn measured_layer(
    model: &ModelSpec,
    entry: &ProfileEntry,
    layout: DeviceLayout,
) -> Option<MeasuredLayer> {
    let (id, spec) = model.module(&entry.module)?;
    let (forward_s, backward_s) = (entry.times.forward_s.0, entry.times.backward_s.0);
    if entry.part != Part::Layer || forward_s <= 0.0 || backward_s <= 0.0 {
        return None;
    }
    let meta = spec.kind.modality().microbatch_of(spec, entry.tokens);
    let (_, instances) = model.instances(id, &meta);
    let work = model.workload(id, &meta, 0..instances);
    let query = PartQuery { model, module: id, part: Part::Layer, work, layout };
    let dag = OperatorTable::default().operators(&query);
    Some(MeasuredLayer { dag, forward_s, backward_s })
}

impl MeasuredLayer {
    /// The predicted seconds of the forward and the backward.
    fn seconds(&self, machine: &Machine) -> [f64; 2] {
        let of = |pass| self.dag.latency(pass, machine).0;
        [of(Pass::Forward), of(Pass::InputGradient) + of(Pass::WeightGradient)]
    }

    /// Predicted over measured seconds of the forward and the backward.
    fn ratios(&self, machine: &Machine) -> [f64; 2] {
        let [forward, backward] = self.seconds(machine);
        [forward / self.forward_s, backward / self.backward_s]
    }

    fn errors(&self, machine: &Machine) -> [f64; 2] {
        self.ratios(machine).map(|r| (r - 1.0).abs())
    }
}

/// Coordinate descent on the logarithms of the factors. The step halves when no coordinate improves.
fn descend(cluster: &ClusterSpec, layers: &[&MeasuredLayer]) -> ClusterSpec {
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
        let machine = Machine::new(&with(x), 1);
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
    use dip_core::profile::{PROFILE_SCHEMA, PartBytes, PartTimes};
    use dip_core::{ModuleId, presets};

    /// The profile that the machine `real` would give.
    fn measured(model: &ModelSpec, real: &ClusterSpec) -> Profile {
        let machine = Machine::new(real, 1);
        let layout = DeviceLayout { tensor: 1, element_bytes: real.device.element_bytes };
        let mut entries = Vec::new();
        for (module, sizes) in [("vision", [1, 2, 4, 8]), ("language", [64, 256, 1024, 4096])] {
            let (id, spec) = model.module(module).unwrap();
            for size in sizes {
                let tokens = size * u64::from(spec.rows_per_image().max(1));
                let meta = spec.kind.modality().microbatch_of(spec, tokens);
                let work = model.workload(id, &meta, 0..model.instances(id, &meta).1);
                assert_eq!(work.tokens, tokens);
                let query = PartQuery { model, module: id, part: Part::Layer, work, layout };
                let dag = OperatorTable::default().operators(&query);
                let of = |pass| dag.latency(pass, &machine);
                entries.push(ProfileEntry {
                    images: None,
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
    fn the_fit_predicts_the_layers_of_another_machine() {
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
    fn every_kind_of_module_gets_the_measured_tokens() {
        let model = presets::model("omni-s").unwrap();
        for (id, spec) in model.modules.iter().enumerate() {
            let tokens = 2 * 1024;
            let meta = spec.kind.modality().microbatch_of(spec, tokens);
            let id = ModuleId::from(id);
            let work = model.workload(id, &meta, 0..model.instances(id, &meta).1);
            assert_eq!(work.tokens, tokens, "{}", spec.name);
        }
    }
}
