//! What runs have learned about the costs of their stages, in the file `costs.json` of the output folder.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use dip_burn::runtime::ProcessGroup;
use dip_burn::train::{MetricSink, RunConfig, SinkError};
use dip_core::PlanJudge;
use dip_emu::{Noise, NoiseJudge};
use dip_files::{Kind, read_text, write_whole};
use dip_sched::{LearnedCosts, Learning, MakeJudge};

use super::RunError;

/// Samples of noise by which plans are judged.
const SAMPLES: u32 = 32;

/// What an earlier start of the run has learned.
pub(super) struct LearnedFile {
    path: PathBuf,
    costs: LearnedCosts,
    changes_plans: bool,
}

impl LearnedFile {
    /// Reads the file of the run; all processes take that of the first. Without one, or if it belongs to other costs than `key`,
    /// nothing is learned yet.
    ///
    /// # Errors
    /// [`RunError`] if the processes cannot meet.
    pub fn open(config: &RunConfig, key: &str, group: &dyn ProcessGroup) -> Result<Self, RunError> {
        let path = config.output.join("costs.json");
        let read = || read_text(&path, Kind::COSTS).unwrap_or_default().into_bytes();
        let text = group.compute_on_first(|| Ok::<_, RunError>(read()))?;
        let found = LearnedCosts::from_json(&String::from_utf8_lossy(&text), key).ok().flatten();
        let costs = found.unwrap_or_else(|| LearnedCosts::new(key));
        Ok(Self { path, costs, changes_plans: config.pipeline.learns_costs() })
    }

    /// What the placement search may use.
    pub fn of_any_placement(&self) -> Option<Arc<LearnedCosts>> {
        self.changes_plans.then(|| Arc::new(self.costs.of_any_placement()))
    }

    /// The learning of a planner on the placement with this description, and the sink that saves it with every checkpoint.
    pub fn learning(self, config: &RunConfig, placement: &str) -> (Learning, SaveLearned) {
        let costs = Arc::new(Mutex::new(self.costs.on_placement(placement)));
        let judge = self.changes_plans.then(|| judges(config.seed, config.pipeline.window));
        let saved = SaveLearned { path: self.path, costs: costs.clone() };
        (Learning { costs, changes_plans: self.changes_plans, judge }, saved)
    }
}

/// Judges by noise of the measured deviation.
fn judges(seed: u64, window: u32) -> MakeJudge {
    Arc::new(move |deviation| -> Arc<dyn PlanJudge> {
        let noise = Noise::new(deviation.min(Noise::MAX_DEVIATION), seed);
        Arc::new(NoiseJudge::new(noise.expect("the deviation is in range"), SAMPLES, window))
    })
}

/// Saves what is learned with every checkpoint.
pub(super) struct SaveLearned {
    path: PathBuf,
    costs: Arc<Mutex<LearnedCosts>>,
}

impl MetricSink for SaveLearned {
    fn checkpoint(&mut self, _: &Path) -> Result<(), SinkError> {
        let text = self.costs.lock().unwrap_or_else(PoisonError::into_inner).to_json();
        Ok(write_whole(&self.path, text.as_bytes())?)
    }
}
