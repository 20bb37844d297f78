//! The cost model of a run: measured on its devices, once for each model, or given by the user.

use std::sync::Arc;

use dip_burn::Backend;
use dip_burn::measure::{MeasureSettings, Profiler, measured_model};
use dip_burn::model::Modalities;
use dip_burn::runtime::{Connections, LinkTime, Network, ProcessGrid, ProcessGroup};
use dip_burn::train::Device;
use dip_core::CostModel;
use dip_core::profile::Profile;
use dip_emu::MeasuredCost;

use super::learned::LearnedFile;
use super::processes::{grid, profile_of_first};
use super::sample::BatchSample;
use super::{Run, RunError};

/// The costs that a run plans with.
pub(super) struct Costs {
    model: StageCosts,
    /// What earlier starts of the run have learned about them.
    pub learned: LearnedFile,
}

/// The costs of stages before a run has learned.
enum StageCosts {
    /// From a profile of this machine, with the device's peak if it is known.
    Measured { cost: MeasuredCost, peak_flops_per_s: Option<f64> },
    /// A cost model given by the user.
    Given(Arc<dyn CostModel>),
}

impl Costs {
    /// The cost model. If `weight_split` is set, weight gradients (W) are split from backwards.
    pub fn model(&self, weight_split: bool) -> Arc<dyn CostModel> {
        match &self.model {
            StageCosts::Measured { cost, .. } => {
                Arc::new(cost.clone().with_weight_split(weight_split))
            }
            StageCosts::Given(cost) => cost.clone(),
        }
    }

    /// Peak FLOPs per second of one device, if known.
    pub fn peak_flops_per_s(&self) -> Option<f64> {
        match self.model {
            StageCosts::Measured { peak_flops_per_s, .. } => peak_flops_per_s,
            StageCosts::Given(_) => None,
        }
    }
}

impl Run {
    /// Measures stages of the sample's sizes, or reads the profile of an earlier run from the output folder.
    pub(super) fn measure<B: Backend>(
        &self,
        connections: &Connections<B>,
        sample: &BatchSample,
        devices: &[B::Device],
        modalities: &Modalities<B>,
    ) -> Result<Costs, RunError> {
        let group = &*connections.group;
        if let Some(cost) = &self.cost {
            let learned = LearnedFile::open(&self.config, "given", group)?;
            return Ok(Costs { model: StageCosts::Given(cost.clone()), learned });
        }
        let grid = connections.processes.as_ref().map(|processes| processes.grid);
        let device = devices.first().cloned().unwrap_or_default();
        let path = self.config.output.join("profile.json");
        let model = measured_model(&self.model, &sample.batches);
        let ranks =
            grid.map_or(self.config.pipeline.devices() as usize, |grid| beside(group, &grid));
        let profiler = Profiler::new(&model, &device, self.settings(sample, ranks))
            .with_modalities(modalities.clone());
        let measure = || profiler.cached_profile(&path);
        let profile = profile_of_first(group, measure)?;
        let network = self.network(group)?;
        let links = network.zip(grid).map(|(network, grid)| network.of_ranks(&grid));
        let learned = LearnedFile::open(&self.config, &profile.key, group)?;
        Ok(Costs { model: self.measured(&profile, links), learned })
    }

    /// Ranks on the machine of the first process, which measures: they share caches, cores and memory.
    pub fn ranks_beside_first(&self, group: &dyn ProcessGroup) -> usize {
        let pipeline = &self.config.pipeline;
        let grid = grid(pipeline, group.size());
        grid.map_or(pipeline.devices() as usize, |grid| beside(group, &grid))
    }

    fn settings(&self, sample: &BatchSample, ranks: usize) -> MeasureSettings {
        let (pipeline, optimizer) = (&self.config.pipeline, &self.config.optimizer);
        let usual = MeasureSettings::default();
        MeasureSettings {
            // With a memory limit, training may hold only one or two microbatches; measuring must not need more memory.
            in_flight: if pipeline.memory_limit_bytes.is_some() { 1 } else { usual.in_flight },
            ranks,
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

    /// The links between the processes: measured once for an output folder, so that a run that resumes plans as before. `None` for one
    /// process, or if plans do not count them.
    fn network(&self, group: &dyn ProcessGroup) -> Result<Option<Network>, RunError> {
        if group.size() == 1 || !self.config.pipeline.network_costs {
            return Ok(None);
        }
        let path = self.config.output.join("network.json");
        let kept = || {
            let kept = dip_files::read(&path, dip_files::Kind::PROFILE).ok()?;
            let network: Network = serde_json::from_slice(&kept).ok()?;
            network.is_of(group).then_some(kept)
        };
        let kept = group.compute_on_first(|| Ok::<_, RunError>(kept().unwrap_or_default()))?;
        if let Ok(network) = serde_json::from_slice(&kept) {
            return Ok(Some(network));
        }
        let network = group.measure_network()?;
        if group.is_first() {
            // Without the file, the next process measures again.
            let text = serde_json::to_vec_pretty(&network).expect("plain data has a JSON form");
            let _ = dip_files::write_whole(&path, &text);
        }
        Ok(Some(network))
    }

    /// `links`: those between all ranks, absent between ranks of one process.
    fn measured(&self, profile: &Profile, links: Option<Vec<Vec<Option<LinkTime>>>>) -> StageCosts {
        let (pipeline, optimizer) = (&self.config.pipeline, &self.config.optimizer);
        // Recomputing and offloading cost time: they are offered only under a memory limit. Offloading from host memory to host
        // memory frees nothing.
        let is_limited = pipeline.memory_limit_bytes.is_some();
        let cost = MeasuredCost::new(profile)
            .with_recompute(is_limited)
            .with_offload(is_limited && pipeline.device != Device::Cpu)
            .with_averages(optimizer.ema_decay > 0.0)
            .with_update_share(if optimizer.shard {
                1.0 / f64::from(pipeline.replicas)
            } else {
                1.0
            });
        let cost = match links {
            Some(links) => {
                let time = |link: LinkTime| (link.latency, link.bytes_per_s);
                let row = |row: Vec<Option<LinkTime>>| row.into_iter().map(|l| l.map(time));
                cost.with_links(links.into_iter().map(|r| row(r).collect()).collect())
            }
            None => cost,
        };
        StageCosts::Measured { cost, peak_flops_per_s: profile.peak_flops_per_s }
    }
}

/// Ranks on the machine of the first process.
fn beside(group: &dyn ProcessGroup, grid: &ProcessGrid) -> usize {
    let is_beside = |&process: &usize| group.host(process) == group.host(0);
    (0..group.size()).filter(is_beside).map(|process| grid.hosted(process).len()).sum()
}
