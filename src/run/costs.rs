//! What stages cost: measured on the devices of the run, once for each model, or given.

use std::sync::Arc;

use dip_burn::Backend;
use dip_burn::measure::{MeasureError, MeasureSettings, Profiler};
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
    /// From a profile of this machine, with the device's peak where it is known.
    Measured { cost: MeasuredCost, peak_flops_per_s: Option<f64> },
    /// From a model of the user's own.
    Given(Arc<dyn CostModel>),
}

impl Costs {
    /// The cost model, with weight gradients as stages of their own if `weight_split` is set.
    pub fn model(&self, weight_split: bool) -> Arc<dyn CostModel> {
        match self {
            Self::Measured { cost, .. } => Arc::new(cost.clone().with_weight_split(weight_split)),
            Self::Given(cost) => cost.clone(),
        }
    }

    /// The fastest arithmetic of one device.
    pub fn peak_flops_per_s(&self) -> Option<f64> {
        match self {
            Self::Measured { peak_flops_per_s, .. } => *peak_flops_per_s,
            Self::Given(_) => None,
        }
    }
}

impl Run {
    /// Measures stages like those of the sample, or reads what an earlier run measured. The profile stands in the output folder.
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
        let profiler = Profiler::new(&self.model, &device, self.settings(sample))
            .with_modalities(modalities.clone());
        let measure = || profiler.cached_profile(&path);
        let profile = profile_of_first(group, measure)?;
        Ok(self.measured(&profile, self.replicas(group)))
    }

    fn settings(&self, sample: &BatchSample) -> MeasureSettings {
        let (pipeline, optimizer) = (&self.config.pipeline, &self.config.optimizer);
        let usual = MeasureSettings::default();
        MeasureSettings {
            // With a memory limit, what fits one or two microbatches in training must not fail when it is measured.
            in_flight: if pipeline.memory_limit_bytes.is_some() { 1 } else { usual.in_flight },
            ranks: pipeline.devices() as usize,
            threads: pipeline.threads_per_rank,
            documents: sample.documents,
            clip: sample.clip,
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

/// The profile of the first process. With profiles of their own, processes would place layers differently.
fn profile_of_first(
    group: &dyn ProcessGroup,
    measure: impl FnOnce() -> Result<Profile, MeasureError>,
) -> Result<Profile, RunError> {
    let text = group.compute_on_first(|| Ok::<_, RunError>(measure()?.to_json().into_bytes()))?;
    Ok(Profile::from_json(&String::from_utf8_lossy(&text)).map_err(MeasureError::from)?)
}
