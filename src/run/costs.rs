//! The cost model of a run: measured on its devices, once for each model, or given by the user.

use std::sync::Arc;

use dip_burn::Backend;
use dip_burn::measure::{MeasureError, MeasureSettings, Profiler, measured_model};
use dip_burn::model::Modalities;
use dip_burn::runtime::ProcessGroup;
use dip_burn::train::Device;
use dip_core::CostModel;
use dip_core::profile::Profile;
use dip_emu::MeasuredCost;

use super::sample::BatchSample;
use super::{Run, RunError};

/// The costs that a run plans with.
pub(super) enum Costs {
    /// From a profile of this machine, with the device's peak if it is known.
    Measured { cost: MeasuredCost, peak_flops_per_s: Option<f64> },
    /// A cost model given by the user.
    Given(Arc<dyn CostModel>),
}

impl Costs {
    /// The cost model. If `weight_split` is set, weight gradients (W) are split from backwards.
    pub fn model(&self, weight_split: bool) -> Arc<dyn CostModel> {
        match self {
            Self::Measured { cost, .. } => Arc::new(cost.clone().with_weight_split(weight_split)),
            Self::Given(cost) => cost.clone(),
        }
    }

    /// Peak FLOPs per second of one device, if known.
    pub fn peak_flops_per_s(&self) -> Option<f64> {
        match self {
            Self::Measured { peak_flops_per_s, .. } => *peak_flops_per_s,
            Self::Given(_) => None,
        }
    }
}

impl Run {
    /// Measures stages of the sample's sizes, or reads the profile of an earlier run from the output folder.
    pub(super) fn measure<B: Backend>(
        &self,
        group: &dyn ProcessGroup,
        sample: &BatchSample,
        devices: &[B::Device],
        modalities: &Modalities<B>,
    ) -> Result<Costs, RunError> {
        if let Some(cost) = &self.cost {
            return Ok(Costs::Given(cost.clone()));
        }
        let device = devices.first().cloned().unwrap_or_default();
        let path = self.config.output.join("profile.json");
        let model = measured_model(&self.model, &sample.batches);
        let profiler = Profiler::new(&model, &device, self.settings(sample))
            .with_modalities(modalities.clone());
        let measure = || profiler.cached_profile(&path);
        let profile = profile_of_first(group, measure)?;
        Ok(self.measured(&profile, self.replicas(group)))
    }

    fn settings(&self, sample: &BatchSample) -> MeasureSettings {
        let (pipeline, optimizer) = (&self.config.pipeline, &self.config.optimizer);
        let usual = MeasureSettings::default();
        MeasureSettings {
            // With a memory limit, training may hold only one or two microbatches; measuring must not need more memory.
            in_flight: if pipeline.memory_limit_bytes.is_some() { 1 } else { usual.in_flight },
            ranks: pipeline.devices() as usize,
            threads: pipeline.threads_per_rank,
            documents: sample.documents,
            clip: sample.clip,
            sound_seconds: sample
                .mean
                .audio_seconds
                .first()
                .copied()
                .unwrap_or(usual.sound_seconds),
            precision: pipeline.precision,
            algorithm: optimizer.algorithm,
            averages: optimizer.ema_decay > 0.0,
            ..usual
        }
    }

    fn measured(&self, profile: &Profile, replicas: usize) -> Costs {
        let (pipeline, optimizer) = (&self.config.pipeline, &self.config.optimizer);
        // Recomputing and offloading cost time: they are offered only under a memory limit. Offloading from host memory to host
        // memory frees nothing.
        let is_limited = pipeline.memory_limit_bytes.is_some();
        let cost = MeasuredCost::new(profile)
            .with_recompute(is_limited)
            .with_offload(is_limited && pipeline.device != Device::Cpu)
            .with_averages(optimizer.ema_decay > 0.0)
            .with_update_share(if optimizer.shard { 1.0 / replicas as f64 } else { 1.0 });
        Costs::Measured { cost, peak_flops_per_s: profile.peak_flops_per_s }
    }
}

/// The profile of the first process, for all processes. With separate profiles, processes would place layers differently.
fn profile_of_first(
    group: &dyn ProcessGroup,
    measure: impl FnOnce() -> Result<Profile, MeasureError>,
) -> Result<Profile, RunError> {
    let text = group.compute_on_first(|| Ok::<_, RunError>(measure()?.to_json().into_bytes()))?;
    Ok(Profile::from_json(&String::from_utf8_lossy(&text)).map_err(MeasureError::from)?)
}
