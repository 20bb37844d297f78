//! Runs systems over batches.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use dip::emulate::{
    FsdpStep, LinkModel, fsdp, model_flops, noise_study, step_figures, trained_tokens, utilisation,
};
use dip::plan::did_you_mean;
use dip::plan::systems::{self, Deployment, SystemInputs};
use dip::prelude::*;
use indicatif::{ProgressBar, ProgressStyle};

use super::result::{ModelResult, Noisy, Record, SystemResult};
use crate::cli::noise::{NoiseArgs, judged};
use crate::cli::search::{self, SearchArgs};
use crate::cli::terminal;

/// Batches that systems see before training.
const HISTORY: u64 = 3;
/// Makes the seed of the history differ from the seed of the comparison.
const HISTORY_SEED: u64 = 0x6869_7374_6f72_7900;

/// A training system.
pub enum Contestant {
    /// A pipeline.
    Pipeline(Box<dyn systems::System>),
    /// Fully sharded data parallelism.
    Fsdp,
}

impl Contestant {
    /// The systems of these names, each once.
    pub fn all(names: &[String]) -> Result<Vec<Self>> {
        let mut all: Vec<Self> = Vec::new();
        for name in names {
            if all.iter().any(|s| s.name() == name) {
                bail!("--schedules has {name:?} twice, but each may be listed once; remove one");
            }
            all.push(Self::new(name)?);
        }
        Ok(all)
    }

    fn new(name: &str) -> Result<Self> {
        if name == "fsdp" {
            return Ok(Self::Fsdp);
        }
        systems::system_by_name(name).map(Self::Pipeline).ok_or_else(|| {
            let names: Vec<_> = systems::system_names().chain(["fsdp"]).collect();
            anyhow!(
                "--schedules has {name:?}, but must be of {}{}; correct the name",
                names.join(", "),
                did_you_mean(name, names.iter().copied())
            )
        })
    }

    pub fn name(&self) -> &str {
        match self {
            Self::Pipeline(system) => system.name(),
            Self::Fsdp => "fsdp",
        }
    }
}

/// The conditions of the comparison, the same for all systems.
pub struct Contest<'a> {
    pub cluster: &'a ClusterSpec,
    pub search: SearchArgs,
    pub noise: NoiseArgs,
    pub offload: bool,
}

impl Contest<'_> {
    /// The model on the cluster of the comparison, at these costs.
    pub fn planning(&self, model: &ModelSpec, cost: &Arc<AnalyticCost>) -> Result<Planning> {
        Ok(Planning::new(model, self.cluster, cost.clone())?)
    }

    /// The inputs of a system before training.
    pub fn inputs<'b>(&self, planning: &'b Planning, history: &'b [BatchMeta]) -> SystemInputs<'b> {
        SystemInputs { planning, history, offload: self.offload }
    }

    /// Runs every system over every batch. A system that does not fit in memory has a failure in place of records.
    pub fn run(
        &self,
        model: &ModelSpec,
        systems: &[Contestant],
        batches: &[BatchMeta],
    ) -> Result<ModelResult> {
        self.run_after(&self.history(model), model, systems, batches)
    }

    /// The same, with `history` as the batches that systems see before training.
    pub fn run_after(
        &self,
        history: &[BatchMeta],
        model: &ModelSpec,
        systems: &[Contestant],
        batches: &[BatchMeta],
    ) -> Result<ModelResult> {
        let cost = Arc::new(AnalyticCost::new(model, self.cluster));
        let planning = self.planning(model, &cost)?;
        let inputs = self.inputs(&planning, history);
        let mut result = ModelResult::new(model, batches);
        for system in systems {
            let bar = bar(batches.len(), &format!("{} {}", model.name, system.name()));
            let found = match system {
                Contestant::Pipeline(system) => {
                    self.pipeline(&**system, &inputs, &cost, batches, &bar)
                }
                Contestant::Fsdp => self.fsdp(model, batches),
            };
            bar.finish_and_clear();
            result
                .systems
                .push(found.with_context(|| format!("{}, {}", model.name, system.name()))?);
        }
        Ok(result)
    }

    /// Other batches of the same distribution.
    pub fn history(&self, model: &ModelSpec) -> Vec<BatchMeta> {
        dip::emulate::sample(model, HISTORY, self.search.seed ^ HISTORY_SEED, None)
    }

    /// A light, a medium and a heavy batch of a sweep.
    pub fn swept_history(&self, model: &ModelSpec) -> Vec<BatchMeta> {
        let mut rising =
            dip::emulate::sweep(model, 2 * HISTORY - 1, self.search.seed ^ HISTORY_SEED, None);
        rising.truncate(HISTORY as usize);
        rising
    }

    pub fn environment(&self) -> Environment<'static> {
        self.search.environment(search::USUAL)
    }

    fn pipeline(
        &self,
        system: &dyn systems::System,
        inputs: &SystemInputs<'_>,
        cost: &AnalyticCost,
        batches: &[BatchMeta],
        bar: &ProgressBar,
    ) -> Result<SystemResult> {
        let start = Instant::now();
        let deployment = match system.deploy(inputs) {
            Ok(deployment) => deployment,
            Err(error) => return Ok(SystemResult::failed(system.name(), error.to_string())),
        };
        let mut result = SystemResult::new(system.name(), &deployment.choice, start.elapsed());
        for batch in batches {
            match self.plan(&deployment, batch)? {
                Ok((plan, search)) => {
                    let step = step_figures(cost, deployment.planning.partition(), batch, &plan);
                    let seconds = step.seconds(plan.predicted.makespan_s);
                    result.records.push(Record {
                        iteration: batch.iteration,
                        seconds,
                        pipeline_s: plan.predicted.makespan_s,
                        exchange_s: step.exchange(),
                        bubble_ratio: plan.predicted.bubble_ratio,
                        mfu: step.utilisation(seconds),
                        tokens_per_s: step.tokens_per_s(seconds),
                        peak_bytes: plan
                            .predicted
                            .peak_bytes
                            .iter()
                            .copied()
                            .max()
                            .unwrap_or_default(),
                        gap: Some(plan.gap()),
                        noisy: self.noisy(&plan)?,
                        search_s: search,
                    });
                }
                Err(error) => return Ok(SystemResult::failed(system.name(), error)),
            }
            bar.inc(1);
        }
        Ok(result)
    }

    /// The checked plan of a batch and its planning time, or why there is no plan.
    pub fn plan(
        &self,
        deployment: &Deployment,
        batch: &BatchMeta,
    ) -> Result<Result<(Plan, Seconds), String>> {
        let start = Instant::now();
        let judge = self.noise.judge(self.search.seed)?;
        let plan = match deployment.plan(batch, &judged(self.environment(), judge.as_ref())) {
            Ok(plan) => Plan { window: self.noise.window(), ..plan },
            Err(error) => return Ok(Err(format!("iteration {}: {error}", batch.iteration))),
        };
        let elapsed = Seconds(start.elapsed().as_secs_f64());
        let violations = check_plan(&plan);
        if let Some(first) = violations.first() {
            let count = violations.len();
            bail!(
                "the plan of iteration {} has {count} violations, the first: {first}",
                batch.iteration
            );
        }
        Ok(Ok((plan, elapsed)))
    }

    /// What a plan takes under noise; `None` without noise.
    fn noisy(&self, plan: &Plan) -> Result<Option<Noisy>> {
        let Some(noise) = self.noise.study(self.search.seed)? else { return Ok(None) };
        let study = noise_study(plan, LinkModel::Uncontended, noise, self.noise.samples)?;
        let over_bound = study.mean_s.0 / plan.lower_bound_s.0 - 1.0;
        Ok(Some(Noisy { pipeline_s: study.mean_s, over_bound }))
    }

    fn fsdp(&self, model: &ModelSpec, batches: &[BatchMeta]) -> Result<SystemResult> {
        let mut result: Option<SystemResult> = None;
        for batch in batches {
            let Some(step) = fsdp(model, self.cluster, batch)? else {
                let memory = self.cluster.device.memory_bytes;
                return Ok(SystemResult::failed("fsdp", format!("does not fit in {memory}")));
            };
            let FsdpStep { seconds, bubble_ratio, peak, tensor } = step;
            let flops = model_flops(model, batch);
            let devices = f64::from(model.parallel.tensor) * f64::from(model.parallel.pipeline);
            let tokens = trained_tokens(model, batch) as f64;
            let choice = format!("{tensor} devices share each layer");
            let made = || SystemResult::new("fsdp", &choice, std::time::Duration::ZERO);
            result.get_or_insert_with(made).records.push(Record {
                iteration: batch.iteration,
                seconds,
                pipeline_s: seconds,
                exchange_s: Seconds::ZERO,
                bubble_ratio,
                mfu: utilisation(model, self.cluster, flops, seconds),
                tokens_per_s: tokens / (devices * seconds.0),
                peak_bytes: peak,
                gap: None,
                noisy: None,
                search_s: Seconds::ZERO,
            });
        }
        result.context("there is no batch; raise --iterations")
    }
}

fn bar(batches: usize, label: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:24} {wide_bar} {pos}/{len} {elapsed}");
    let bar = match terminal::is_quiet() {
        true => ProgressBar::hidden(),
        false => ProgressBar::new(batches as u64),
    };
    let bar = bar.with_message(label.to_owned());
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
