//! Compares predicted and measured times of plans that differ widely.
//!
//! `cargo run --release --example prediction` measures the stages of `vlm-tiny`, of the same model with pictures of many sizes
//! (`vlm-native`), of a small decoder and of `t2v-tiny`, plans the same batches in many variants, and runs every plan in turn on two ranks of one core each. It prints two pairs for each plan, measured
//! before predicted: the time, and the largest activations of a rank. Then it prints the times of stages by kind. Plans and
//! measurements of stages take turns, so that other load on the machine affects both alike. `-- 20` runs twenty rounds instead of ten,
//! `-- 20 t2v-tiny` runs them for one model only.

mod data;
mod stages;
mod variants;

use std::sync::Arc;

use anyhow::{Context, Result};
use dip::plan::profile::{Profile, combined};
use dip::plan::{
    BatchSplit, ChunkQuery, CostError, ModuleId, RankId, StageCost, StageQuery, Strategy, Timeline,
    Workload,
};
use dip::prelude::*;
use dip::train::backend::{Cpu, cpu_devices};
use dip::train::measure::{MeasureSettings, Profiler, measured_model, undisturbed};
use dip::train::runtime::{Pipeline, PipelineInit};
use dip::train::{Batch, Microbatch, RunConfig};

use data::{RawBatch, SMALL_DECODER, drawn, mean_clip, texts};
use stages::{ByKind, Stages};
use variants::{DECODER, Layout, VIDEO, VLM, Variant};

const RANKS: u32 = 2;
/// Iterations of the searches.
const BUDGET: u64 = 20;

/// A variant with its pipeline and its measurements.
struct Trial {
    variant: Variant,
    pipeline: Pipeline<Cpu>,
    partition: Partition,
    batches: Vec<(Plan, Arc<Batch>)>,
    /// Makespan in seconds, by batch and round.
    measured: Vec<Vec<f64>>,
    /// Times of the stages, by batch.
    stages: Vec<Stages>,
    /// Largest activations of a rank, by batch.
    activations: Vec<Bytes>,
}

/// A cost model that offers one memory strategy.
struct OneStrategy(MeasuredCost, Strategy);

impl CostModel for OneStrategy {
    fn stage(&self, query: &StageQuery<'_>) -> Result<StageCost, CostError> {
        self.0.stage(query)
    }

    fn transfer(&self, from: RankId, to: RankId, bytes: Bytes) -> Seconds {
        self.0.transfer(from, to, bytes)
    }

    fn static_bytes(&self, chunk: &ChunkQuery<'_>) -> Bytes {
        self.0.static_bytes(chunk)
    }

    fn working_bytes(&self, chunk: &ChunkQuery<'_>, workload: Workload) -> Bytes {
        self.0.working_bytes(chunk, workload)
    }

    fn update(&self, chunk: &ChunkQuery<'_>) -> Seconds {
        self.0.update(chunk)
    }

    fn candidates(
        &self,
        chunk: &ChunkQuery<'_>,
        workload: Workload,
    ) -> Result<Vec<StageCost>, CostError> {
        let query = StageQuery { chunk: chunk.clone(), workload, strategy: &self.1 };
        Ok(vec![self.stage(&query)?])
    }
}

/// The model and the batches of all variants.
struct Study {
    model: ModelSpec,
    settings: MeasureSettings,
    /// The measured profiles, one for each round.
    profiles: Vec<Profile>,
    config: RunConfig,
    batches: Vec<RawBatch>,
}

impl Study {
    fn new(model: ModelSpec, config: RunConfig, batches: Vec<RawBatch>) -> Result<Self> {
        let sequences = batches.iter().flat_map(|b| &b.microbatches);
        let documents = sequences.clone().map(|m| m.documents.iter().max().map_or(1, |d| d + 1));
        let documents = documents.sum::<u32>() as usize / sequences.count().max(1);
        // Measures one round at a time, in turns with the plans.
        let clip = mean_clip(&batches);
        let settings = MeasureSettings {
            rounds: 1,
            ranks: RANKS as usize,
            documents,
            clip,
            warm_up: 1,
            runs: 2,
            ..MeasureSettings::default()
        };
        let mut study = Self { model, settings, profiles: Vec::new(), config, batches };
        study.measure()?;
        Ok(study)
    }

    /// Measures the stages once more.
    fn measure(&mut self) -> Result<()> {
        let device = cpu_devices(1).remove(0);
        let batches: Vec<_> = self.batches.iter().map(|batch| batch.meta.clone()).collect();
        let model = measured_model(&self.model, &batches);
        let profile = Profiler::<Cpu>::new(&model, &device, self.settings).profile()?;
        self.profiles.push(profile);
        Ok(())
    }

    /// The cost model of all profiles together.
    fn cost(&self) -> MeasuredCost {
        let all: Vec<_> = self.profiles.iter().map(|p| &p.entries).collect();
        let entries = combined(&all, undisturbed);
        MeasuredCost::new(&Profile { entries, ..self.profiles[0].clone() })
    }

    fn partition(&self, variant: Variant) -> Result<Partition> {
        let cost = self.cost();
        let mut partitioner = Partitioner::new(&self.model, RANKS, &cost)
            .with_representative(self.batches[0].meta.microbatches[0].clone());
        match variant.layout {
            Layout::Usual => {}
            Layout::Segments(n) => {
                for m in 0..self.model.modules.len() {
                    partitioner = partitioner.with_segments(ModuleId::from(m), n);
                }
            }
            Layout::Slices(n) => partitioner = partitioner.with_sub_microbatch(ModuleId(0), n),
            Layout::Clips(n) => {
                for m in 0..self.model.modules.len() {
                    partitioner = partitioner.with_sub_microbatch(ModuleId::from(m), n);
                }
            }
            Layout::Layers(first) => return Ok(self.cut_after(first)),
        }
        let schedule = schedule_by_name(variant.schedule).context("the schedule is built in")?;
        Ok(partitioner.place(schedule.placement())?)
    }

    /// The first layers of each module on rank 0.
    fn cut_after(&self, first: &[u32]) -> Partition {
        let module = |(spec, &first): (&dip::plan::ModuleSpec, &u32)| {
            let parts = [(RankId(0), 0..first), (RankId(1), first..spec.layers)];
            let parts = parts.into_iter().filter(|(_, layers)| !layers.is_empty());
            let chunk = |(rank, layers)| dip::plan::Chunk {
                rank,
                segment: dip::plan::SegmentId(0),
                layers,
            };
            dip::plan::ModulePartition {
                sub_microbatch: u32::MAX,
                chunks: parts.map(chunk).collect(),
            }
        };
        let modules = self.model.modules.iter().zip(first).map(module).collect();
        Partition { ranks: RANKS, modules }
    }

    fn run(&self, variant: Variant) -> Result<Trial> {
        let partition = self.partition(variant)?;
        let init = PipelineInit::new(&self.model, &partition, cpu_devices(RANKS))
            .with_optimizer(self.config.optimizer.clone());
        let pipeline = Pipeline::new(&init)?;
        let plan = |raw: &RawBatch| self.plan(variant, &partition, raw);
        let batches = self.batches.iter().map(plan).collect::<Result<Vec<_>>>()?;
        let measured = vec![Vec::new(); batches.len()];
        let activations = vec![Bytes::ZERO; batches.len()];
        let stages = vec![Stages::default(); batches.len()];
        Ok(Trial { variant, pipeline, partition, batches, measured, stages, activations })
    }

    fn plan(
        &self,
        variant: Variant,
        partition: &Partition,
        raw: &RawBatch,
    ) -> Result<(Plan, Arc<Batch>)> {
        let mut microbatches = raw.microbatches.clone();
        microbatches.truncate(variant.microbatches);
        let (graph, split) = self.graph(variant, partition, raw)?;
        let schedule = schedule_by_name(variant.schedule).context("the schedule is built in")?;
        let budget = Budget::Iterations(BUDGET);
        let plan = schedule.plan(&graph, &Environment { budget, ..Environment::default() })?;
        anyhow::ensure!(check_plan(&plan).is_empty(), "the plan of {} is not valid", variant.name);
        let trained_tokens = microbatches.iter().map(Microbatch::trained_tokens).sum();
        Ok((plan, Arc::new(Batch { microbatches, split, trained_tokens })))
    }

    fn graph(
        &self,
        variant: Variant,
        partition: &Partition,
        raw: &RawBatch,
    ) -> Result<(TaskGraph, BatchSplit)> {
        let mut meta = raw.meta.clone();
        meta.microbatches.truncate(variant.microbatches);
        let mut cluster = presets::cluster("cpu").context("the preset is built in")?;
        cluster.device.memory_bytes = Bytes(u64::MAX);
        let cost = self.cost().with_weight_split(variant.split);
        let cost = Arc::new(OneStrategy(cost, Strategy::new(variant.strategy)));
        let planning = Planning::on_ranks(&self.model, &cluster, cost, RANKS)?
            .with_partition(partition.clone())
            .with_weight_split(variant.split);
        Ok((planning.graph(&meta)?, planning.split(&meta)))
    }

    /// Predicted and measured seconds of each batch, both from undisturbed rounds.
    fn pairs(&self, run: &Trial) -> Result<Vec<(f64, f64)>> {
        let pair = |((plan, _), (raw, measured)): (&(Plan, _), (&RawBatch, &Vec<f64>))| {
            let (graph, _) = self.graph(run.variant, &run.partition, raw)?;
            let predicted = Timeline::evaluate(&graph, &plan.order)?.makespan.0;
            Ok((predicted, undisturbed(&mut measured.clone())))
        };
        let measured = self.batches.iter().zip(&run.measured);
        run.batches.iter().zip(measured).map(pair).collect()
    }
}

impl Trial {
    /// Runs every batch, and the first batch twice, because its first run warms the caches.
    fn round(&mut self) -> Result<()> {
        self.pipeline.run(&self.batches[0].0, &self.batches[0].1, None)?;
        let figures = self.measured.iter_mut().zip(&mut self.activations).zip(&mut self.stages);
        for ((plan, batch), ((measured, activations), stages)) in self.batches.iter().zip(figures) {
            let report = self.pipeline.run(plan, batch, None)?;
            let trace = report.traces.first().context("there is one replica")?;
            measured.push(trace.makespan().0);
            stages.add(trace);
            *activations = report.peak_activation.iter().fold(*activations, |a, &b| a.max(b));
        }
        Ok(())
    }

    /// Predicted and measured activations of the rank with the largest, in MiB, for each batch.
    fn activations(&self) -> impl Iterator<Item = (f64, f64)> {
        let of_plan = |plan: &Plan| {
            let ranks = plan.predicted.peak_bytes.iter().zip(&plan.graph.static_bytes);
            ranks.map(|(peak, fixed)| peak.0 - fixed.0).max().unwrap_or(0)
        };
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let plans = self.batches.iter().map(move |(plan, _)| mib(of_plan(plan)));
        plans.zip(self.activations.iter().map(move |bytes| mib(bytes.0)))
    }
}

/// Spearman's rank correlation of pairs.
fn rank_correlation(pairs: &[(f64, f64)]) -> f64 {
    let ranks = |of: fn(&(f64, f64)) -> f64| -> Vec<f64> {
        let below = |x: f64| pairs.iter().filter(|p| of(p) < x).count() as f64;
        let equal = |x: f64| pairs.iter().filter(|p| of(p) == x).count() as f64;
        pairs.iter().map(|p| below(of(p)) + (equal(of(p)) - 1.0) / 2.0).collect()
    };
    let (a, b) = (ranks(|p| p.0), ranks(|p| p.1));
    let mean = (pairs.len() as f64 - 1.0) / 2.0;
    let sum = |x: &[f64], y: &[f64]| -> f64 {
        x.iter().zip(y).map(|(x, y)| (x - mean) * (y - mean)).sum()
    };
    sum(&a, &b) / (sum(&a, &a) * sum(&b, &b)).sqrt()
}

/// Runs all variants in turns and prints every pair.
fn compare(mut study: Study, variants: &[Variant], rounds: usize) -> Result<Vec<(f64, f64)>> {
    let mut runs =
        variants.iter().map(|&variant| study.run(variant)).collect::<Result<Vec<_>>>()?;
    for _ in 0..rounds {
        for run in &mut runs {
            run.round()?;
        }
        study.measure()?;
    }
    println!(
        "\n{:36} {:>10} {:>10} {:>8}   {:>15}",
        study.model.name, "measured", "predicted", "error", "activations"
    );
    let mut means = Vec::new();
    let mut all = Vec::new();
    for run in &runs {
        let pairs = study.pairs(run)?;
        for ((predicted, measured), (of_plan, kept)) in pairs.iter().zip(run.activations()) {
            println!(
                "{:36} {:>7.2} ms {:>7.2} ms {:>+6.1} %   {kept:>7.2} {of_plan:>7.2} MiB",
                run.variant.name,
                1e3 * measured,
                1e3 * predicted,
                100.0 * (predicted / measured - 1.0)
            );
        }
        let mean =
            |of: fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() / pairs.len() as f64;
        means.push((mean(|p| p.0), mean(|p| p.1)));
        all.extend(pairs);
    }
    let mut kinds = ByKind::default();
    for run in &runs {
        for (raw, stages) in study.batches.iter().zip(&run.stages) {
            let (graph, _) = study.graph(run.variant, &run.partition, raw)?;
            kinds.add(&graph, &run.partition, &study.model, &stages.undisturbed());
        }
    }
    kinds.print();
    summary(&format!("{} plans of {}", runs.len(), study.model.name), &all, &means);
    Ok(all)
}

fn summary(what: &str, pairs: &[(f64, f64)], means: &[(f64, f64)]) {
    let error = pairs.iter().map(|(p, m)| (p / m - 1.0).abs()).sum::<f64>() / pairs.len() as f64;
    println!(
        "{what}: {} pairs, mean error {:.1} %, rank correlation of plans {:.3}",
        pairs.len(),
        100.0 * error,
        rank_correlation(means)
    );
}

fn main() -> Result<()> {
    let rounds = std::env::args().nth(1).map_or(Ok(10), |n| n.parse()).context("rounds")?;
    let only = std::env::args().nth(2);
    let config = RunConfig::from_toml(include_str!("../vlm-tiny.toml"))?;
    let preset = |name| presets::model(name).context("the preset is built in");
    let (vlm, video) = (preset("vlm-tiny")?, preset("t2v-tiny")?);
    let decoder = ModelSpec::from_toml(SMALL_DECODER)?;
    let mut native = ModelSpec { name: "vlm-native".into(), ..vlm.clone() };
    RunConfig::from_toml(include_str!("../vlm-native.toml"))?.adapt(&mut native)?;
    let studies = [
        (drawn(&vlm, &config)?, vlm, VLM),
        (drawn(&native, &config)?, native, VLM),
        (texts(&decoder), decoder, DECODER),
        (drawn(&video, &config)?, video, VIDEO),
    ];
    let mut all = Vec::new();
    for (batches, model, variants) in studies {
        if only.as_ref().is_none_or(|name| *name == model.name) {
            let study = Study::new(model, config.clone(), batches)?;
            all.extend(compare(study, variants, rounds)?);
        }
    }
    println!();
    summary("all", &all, &all);
    Ok(())
}
