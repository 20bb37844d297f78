//! Noise on the times of stages, on the command line of commands that plan.

use anyhow::Result;
use clap::Args;
use dip::emulate::{Noise, NoiseJudge};
use dip::plan::MAX_WINDOW;
use dip::prelude::*;

/// The window of plans for noise. Larger ones gain nothing on the models of the paper.
const WINDOW_FOR_NOISE: u32 = 64;
/// Makes the samples that plans are judged by differ from those of a study with the same seed.
const JUDGE_SEED: u64 = 0x6a75_6467_6500;

/// Plans for stages that do not take their planned times.
#[derive(Debug, Clone, Copy, Args)]
pub struct NoiseArgs {
    /// Search for the plan with the shortest mean makespan under log-normal noise of this deviation on the time of every stage, such as
    /// 0.1
    #[arg(long, value_name = "DEVIATION")]
    noise: Option<f64>,
    /// Number of samples of the noise
    #[arg(long, default_value_t = 64, requires = "noise", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub samples: u32,
    /// Number of the next stages in its order among which a rank may choose while the first of them waits; 1 keeps the order; by default
    /// 64 with --noise, else 1
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_WINDOW)))]
    window: Option<u32>,
}

impl NoiseArgs {
    /// The window of plans.
    pub fn window(&self) -> u32 {
        self.window.unwrap_or(if self.noise.is_some() { WINDOW_FOR_NOISE } else { 1 })
    }

    /// The noise of a study; `None` without noise.
    pub fn study(&self, seed: u64) -> Result<Option<Noise>> {
        Ok(self.noise.map(|deviation| Noise::new(deviation, seed)).transpose()?)
    }

    /// The judge of plans; `None` without noise. Its samples are not those of a study.
    pub fn judge(&self, seed: u64) -> Result<Option<NoiseJudge>> {
        let noise = self.study(seed ^ JUDGE_SEED)?;
        Ok(noise.map(|noise| NoiseJudge::new(noise, self.samples, self.window())))
    }
}

/// The environment with a judge, if there is one.
pub fn judged<'a>(env: Environment<'a>, judge: Option<&'a NoiseJudge>) -> Environment<'a> {
    Environment { judge: judge.map(|judge| judge as &dyn dip::plan::PlanJudge), ..env }
}
