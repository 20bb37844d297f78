//! Judges plans by their mean makespan under noise.

use dip_core::{Plan, PlanJudge, Seconds, compile};

use crate::execute::{LinkModel, Noise, VirtualExecutor};

/// The mean makespan of plans over samples of noise on the times of their stages. Equal samples slow the same stages of all plans of
/// a graph.
#[derive(Debug, Clone, PartialEq)]
pub struct NoiseJudge {
    noise: Noise,
    samples: u32,
    window: u32,
    links: LinkModel,
}

impl NoiseJudge {
    /// A judge with at least one sample. Plans run with [`window`](Plan::window) `window`.
    pub fn new(noise: Noise, samples: u32, window: u32) -> Self {
        Self { noise, samples: samples.max(1), window, links: LinkModel::Uncontended }
    }
}

impl PlanJudge for NoiseJudge {
    fn scenarios(&self) -> u32 {
        self.samples
    }

    fn expected(&self, plan: &Plan, scenarios: u32) -> Seconds {
        let mut program = compile(plan);
        program.window = self.window.max(1) as usize;
        let executor = VirtualExecutor::new(self.links);
        let count = scenarios.clamp(1, self.samples);
        let makespan = |sample: u32| {
            let durations = self.noise.durations(&plan.graph, sample.into());
            let trace = executor.run(&program, &plan.graph, &durations);
            trace.map_or(f64::INFINITY, |trace| trace.makespan().0)
        };
        Seconds((0..count).map(makespan).sum::<f64>() / f64::from(count))
    }

    fn deviation(&self) -> f64 {
        self.noise.deviation()
    }
}
