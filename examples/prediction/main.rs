//! Predicted against measured times of plans that differ widely.
//!
//! `cargo run --release --example prediction` measures what the stages of `vlm-tiny`, of a small decoder and of `t2v-tiny` cost,
//! plans the same batches in many ways, runs every plan in turn on two ranks of one core each, and prints each pair: seconds, and
//! the most activations on a rank, measured before predicted; then the seconds of stages by kind. Plans and measurements of
//! stages take turns, so that whatever else the machine does hits all alike. `-- 20` takes twenty rounds instead of ten, `-- 20
//! t2v-tiny` of one model.

mod data;
mod stages;
mod ways;

use std::sync::Arc;

use anyhow::{Context, Result};
use dip::plan::profile::{Profile, combined};
use dip::plan::{
    BatchSplit, ChunkQuery, CostError, ModuleId, RankId, StageCost, StageQuery, Strategy, Timeline,
    Workload,
};
use dip::prelude::*;
use dip::train::backend::{Cpu, cpu_devices};
use dip::train::measure::{MeasureSettings, profile, undisturbed};
use dip::train::runtime::{Pipeline, PipelineInit};
use dip::train::{Batch, Microbatch, RunConfig};

use data::{SMALL_DECODER, Uncut, drawn, mean_clip, texts};
use stages::{ByKind, Stages};
use ways::{Cut, DECODER, VIDEO, VLM, Way};

const RANKS: u32 = 2;
/// Iterations of the searches.
const BUDGET: u64 = 20;

/// A plan with its pipeline, and what it took.
struct Run {
    way: Way,
    pipeline: Pipeline<Cpu>,
    partition: Partition,
    batches: Vec<(Plan, Arc<Batch>)>,
    /// Seconds of the stages, by batch and round.
    measured: Vec<Vec<f64>>,
    /// Seconds of every stage, by batch.
    stages: Vec<Stages>,
    /// Most bytes of activations on a rank, by batch.
    activations: Vec<Bytes>,
}

/// A cost model that offers one memory strategy.
struct Only(MeasuredCost, Strategy);

impl CostModel for Only {
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

/// What the ways of one model have in common.
struct Study {
    model: ModelSpec,
    settings: MeasureSettings,
    /// What the stages cost, by round.
    profiles: Vec<Profile>,
    config: RunConfig,
    batches: Vec<Uncut>,
}

impl Study {
    fn new(model: ModelSpec, config: RunConfig, batches: Vec<Uncut>) -> Result<Self> {
        let sequences = batches.iter().flat_map(|b| &b.microbatches);
        let documents = sequences.clone().map(|m| m.documents.iter().max().map_or(1, |d| d + 1));
        let documents = documents.sum::<u32>() as usize / sequences.count().max(1);
        // One round of it at a time: they take turns with the plans.
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

    /// Measures what the stages cost now.
    fn measure(&mut self) -> Result<()> {
        let device = cpu_devices(1).remove(0);
        let profile = profile::<Cpu>(&self.model, &device, self.settings, "prediction".into())?;
        self.profiles.push(profile);
        Ok(())
    }

    /// What the stages cost over all rounds.
    fn cost(&self) -> MeasuredCost {
        let all: Vec<_> = self.profiles.iter().map(|p| &p.entries).collect();
        let entries = combined(&all, undisturbed);
        MeasuredCost::new(&Profile { entries, ..self.profiles[0].clone() })
    }

    fn partition(&self, way: Way) -> Result<Partition> {
        let cost = self.cost();
        let mut partitioner = Partitioner::new(&self.model, RANKS, &cost)
            .with_representative(self.batches[0].meta.microbatches[0].clone());
        match way.cut {
            Cut::Usual => {}
            Cut::Segments(n) => {
                for m in 0..self.model.modules.len() {
                    partitioner = partitioner.with_segments(ModuleId::from(m), n);
                }
            }
            Cut::Slices(n) => partitioner = partitioner.with_sub_microbatch(ModuleId(0), n),
            Cut::Clips(n) => {
                for m in 0..self.model.modules.len() {
                    partitioner = partitioner.with_sub_microbatch(ModuleId::from(m), n);
                }
            }
            Cut::Layers(first) => return Ok(self.cut_after(first)),
        }
        let schedule = schedule_by_name(way.schedule).context("the schedule is built in")?;
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

    fn run(&self, way: Way) -> Result<Run> {
        let partition = self.partition(way)?;
        let init = PipelineInit::new(&self.model, &partition, cpu_devices(RANKS))
            .with_optimizer(self.config.optimizer.clone());
        let pipeline = Pipeline::new(&init)?;
        let plan = |uncut: &Uncut| self.plan(way, &partition, uncut);
        let batches = self.batches.iter().map(plan).collect::<Result<Vec<_>>>()?;
        let measured = vec![Vec::new(); batches.len()];
        let activations = vec![Bytes::ZERO; batches.len()];
        let stages = vec![Stages::default(); batches.len()];
        Ok(Run { way, pipeline, partition, batches, measured, stages, activations })
    }

    fn plan(&self, way: Way, partition: &Partition, uncut: &Uncut) -> Result<(Plan, Arc<Batch>)> {
        let mut microbatches = uncut.microbatches.clone();
        microbatches.truncate(way.microbatches);
        let (graph, split) = self.graph(way, partition, uncut)?;
        let schedule = schedule_by_name(way.schedule).context("the schedule is built in")?;
        let budget = Budget::Iterations(BUDGET);
        let plan = schedule.plan(&graph, &Environment { budget, ..Environment::default() })?;
        anyhow::ensure!(check_plan(&plan).is_empty(), "the plan of {} is not valid", way.name);
        let trained_tokens = microbatches.iter().map(Microbatch::trained_tokens).sum();
        Ok((plan, Arc::new(Batch { microbatches, split, trained_tokens })))
    }

    fn graph(
        &self,
        way: Way,
        partition: &Partition,
        uncut: &Uncut,
    ) -> Result<(TaskGraph, BatchSplit)> {
        let mut meta = uncut.meta.clone();
        meta.microbatches.truncate(way.microbatches);
        let mut cluster = presets::cluster("cpu").context("the preset is built in")?;
        cluster.device.memory_bytes = Bytes(u64::MAX);
        let cost = self.cost().with_weight_split(way.split);
        let cost = Arc::new(Only(cost, Strategy::new(way.strategy)));
        let planning = Planning::on_ranks(&self.model, &cluster, cost, RANKS)?
            .with_partition(partition.clone())
            .with_weight_split(way.split);
        Ok((planning.graph(&meta)?, planning.split(&meta)))
    }

    /// Predicted and measured seconds of each batch, both of undisturbed rounds.
    fn pairs(&self, run: &Run) -> Result<Vec<(f64, f64)>> {
        let pair = |((plan, _), (uncut, measured)): (&(Plan, _), (&Uncut, &Vec<f64>))| {
            let (graph, _) = self.graph(run.way, &run.partition, uncut)?;
            let predicted = Timeline::evaluate(&graph, &plan.order)?.makespan.0;
            Ok((predicted, undisturbed(&mut measured.clone())))
        };
        let measured = self.batches.iter().zip(&run.measured);
        run.batches.iter().zip(measured).map(pair).collect()
    }
}

impl Run {
    /// Runs every batch. The first once more before: another pipeline has used the caches.
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

    /// Predicted and measured MiB of activations on the rank that has most, of each batch.
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

/// Runs all ways in turn and prints every pair.
fn compare(mut study: Study, ways: &[Way], rounds: usize) -> Result<Vec<(f64, f64)>> {
    let mut runs = ways.iter().map(|&way| study.run(way)).collect::<Result<Vec<_>>>()?;
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
                run.way.name,
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
        for (uncut, stages) in study.batches.iter().zip(&run.stages) {
            let (graph, _) = study.graph(run.way, &run.partition, uncut)?;
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
    let studies = [
        (drawn(&vlm, &config)?, vlm, VLM),
        (texts(&decoder), decoder, DECODER),
        (drawn(&video, &config)?, video, VIDEO),
    ];
    let mut all = Vec::new();
    for (batches, model, ways) in studies {
        if only.as_ref().is_none_or(|name| *name == model.name) {
            let study = Study::new(model, config.clone(), batches)?;
            all.extend(compare(study, ways, rounds)?);
        }
    }
    println!();
    summary("all", &all, &all);
    Ok(())
}
