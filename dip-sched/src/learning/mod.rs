//! Costs that learn from measured iterations.
//!
//! ```text
//! task graph of a batch (base) -> correct -> plan -> trained                  learned so far
//! base, plan, trace            -> learn   -> the corrections of the next batch
//! ```
//!
//! A correction is a factor on the time of a task, a product over [`Scope`]s: all tasks, the kind of task of a module, its rank, its
//! chunk, and its size. Scopes that hold few measurements stay near 1, so tasks that were never measured get the factors of the
//! larger scopes. The measured times decide, whatever their cause: caches, other work on the machine, a slow device.

mod estimate;
mod notices;
mod scope;
mod tracker;

use std::collections::BTreeMap;

use dip_core::{Plan, Seconds, SpecError, Task, TaskGraph, TaskKind, Timeline, Trace};
use serde::{Deserialize, Serialize};

use estimate::{DEVIATION_OF_MEDIAN, Estimate, median, robust_mean};
use notices::Reported;
use scope::{Level, Place, Scope, Work};
use tracker::Tracker;

/// The schema name of a file of learned costs.
pub const COSTS_SCHEMA: &str = "dip.costs/v1";
/// Deviation of stage times before any is measured.
const USUAL_DEVIATION: f64 = 0.1;
/// Weight of an iteration in the deviation.
const GAIN_OF_DEVIATION: f64 = 0.1;
/// Minimum of the deviation.
const MIN_DEVIATION: f64 = 1e-3;
/// Iterations whose times have more in common than so many times the usual are disturbed.
const SURPRISES: f64 = 3.0;
/// Minimum of what the times of an iteration usually have in common.
const MIN_SURPRISE: f64 = 0.01;
/// Maximum absolute logarithm of a correction.
const MAX_LOG: f64 = 3.0;

/// What measured iterations have taught about the costs of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearnedCosts {
    schema: String,
    /// Names the costs that are corrected, such as the key of a profile.
    key: String,
    /// The placement on which chunks were measured.
    placement: String,
    /// Learned iterations.
    iterations: u64,
    /// The estimates of all scopes, in order.
    #[serde(with = "scope::as_list")]
    scopes: BTreeMap<Scope, Estimate>,
    /// Standard deviation of the time of a stage, relative to its corrected time.
    deviation: f64,
    /// Mean absolute logarithm of what the times of an iteration have in common, after corrections.
    surprise: f64,
    /// The logarithm of measured makespans over those of the corrected stage times: waits that noise causes, and the runtime.
    overhead: Tracker,
    #[serde(default)]
    reported: Reported,
}

/// A plan that has run.
#[derive(Debug, Clone, Copy)]
pub struct MeasuredPlan<'a> {
    /// The task graph of its batch before corrections.
    pub base: &'a TaskGraph,
    /// The plan.
    pub plan: &'a Plan,
    /// When its stages ran.
    pub trace: &'a Trace,
}

impl LearnedCosts {
    /// Nothing learned yet about the costs with this key.
    pub fn new(key: impl Into<String>) -> Self {
        Self {
            schema: COSTS_SCHEMA.into(),
            key: key.into(),
            placement: String::new(),
            iterations: 0,
            scopes: BTreeMap::new(),
            deviation: USUAL_DEVIATION,
            surprise: USUAL_DEVIATION,
            overhead: Tracker::default(),
            reported: Reported::default(),
        }
    }

    /// Reads what was learned. `None` if it belongs to other costs than `key`, or to another version.
    ///
    /// # Errors
    /// [`SpecError`] if the text is no file of learned costs.
    pub fn from_json(text: &str, key: &str) -> Result<Option<Self>, SpecError> {
        let found: Self = dip_core::from_json(text)?;
        let sound = found.scopes.values().all(Estimate::is_sound)
            && found.overhead.is_sound()
            && [found.deviation, found.surprise].iter().all(|x| x.is_finite() && *x > 0.0);
        Ok(Some(found).filter(|f| f.schema == COSTS_SCHEMA && f.key == key && sound))
    }

    /// Writes JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data has a JSON form")
    }

    /// What is known of other placements: leaves out what was learned about single chunks.
    #[must_use]
    pub fn of_any_placement(&self) -> Self {
        let mut coarse = self.clone();
        coarse.scopes.retain(|scope, _| scope.segment.is_none());
        coarse
    }

    /// The same for the placement with this description: all that is known if it was learned there.
    #[must_use]
    pub fn on_placement(self, placement: &str) -> Self {
        let known = if self.placement == placement { self } else { self.of_any_placement() };
        Self { placement: placement.to_owned(), ..known }
    }

    /// Learned iterations.
    pub fn iterations(&self) -> u64 {
        self.iterations
    }

    /// Standard deviation of the time of a stage, relative to its corrected time.
    pub fn deviation(&self) -> f64 {
        self.deviation
    }

    /// Multiplies the durations of tasks and candidates by their corrections.
    pub fn correct(&self, graph: &mut TaskGraph) {
        if self.scopes.is_empty() {
            return;
        }
        for task in &mut graph.tasks {
            let mut candidates = std::mem::take(&mut task.candidates);
            let place = Place::of(task);
            for candidate in &mut candidates {
                let strategy = &candidate.strategy;
                let (forward, backward) = (candidate.forward_s, candidate.backward_s);
                candidate.forward_s =
                    self.corrected(&place, &Work::new(TaskKind::Forward, strategy, forward));
                candidate.backward_s =
                    self.corrected(&place, &Work::new(TaskKind::Backward, strategy, backward));
            }
            let work = Work::new(task.kind, &task.strategy, task.duration_s);
            task.duration_s = self.corrected(&place, &work);
            task.candidates = candidates;
        }
    }

    /// The makespan to expect of a plan of `base` with what is known by now.
    pub fn expected(&self, base: &TaskGraph, plan: &Plan) -> Seconds {
        let base_s = base_seconds(base, plan);
        let retimed = base_s.and_then(|base_s| self.retimed(&base_s, plan));
        retimed.unwrap_or(plan.predicted.makespan_s) * self.overhead.value().exp()
    }

    /// Learns from a plan that has run. Returns what is worth telling: drift, and ranks that are slower than others. Traces that do not
    /// cover their plan teach nothing.
    pub fn learn(&mut self, run: MeasuredPlan<'_>) -> Vec<String> {
        let Some(base_s) = base_seconds(run.base, run.plan) else { return Vec::new() };
        let Some(measured) = measured_tasks(run, &base_s) else { return Vec::new() };
        self.iterations += 1;
        // The logarithm of the measured over the corrected time.
        let mut rest: Vec<f64> = measured
            .iter()
            .map(|m| m.log_ratio() - self.log_factor(&Place::of(m.task), &m.work()))
            .collect();
        self.shorten_disturbance(&mut rest);
        for level in Level::ALL {
            let mut tasks_of: BTreeMap<Scope, Vec<usize>> = BTreeMap::new();
            for (i, m) in measured.iter().enumerate() {
                tasks_of.entry(level.scope(&Place::of(m.task), &m.work())).or_default().push(i);
            }
            for (scope, tasks) in tasks_of {
                let errors = tasks.iter().map(|&i| (rest[i].exp() - 1.0, measured[i].base_s.0));
                let error = robust_mean(errors.collect(), self.deviation);
                let step = self.scopes.entry(scope).or_default().learn(error, level.pace());
                tasks.iter().for_each(|&i| rest[i] -= step);
            }
        }
        self.centre(&measured);
        rest.iter_mut().for_each(|rest| *rest = rest.abs());
        let spread = DEVIATION_OF_MEDIAN * median(&mut rest);
        let gain = GAIN_OF_DEVIATION.max(1.0 / self.iterations as f64);
        self.deviation += gain * (spread.clamp(MIN_DEVIATION, 1.0) - self.deviation);
        if let Some(retimed) = self.retimed(&base_s, run.plan).filter(|s| s.0 > 0.0) {
            self.overhead.learn((run.trace.makespan().0 / retimed.0).ln());
        }
        self.reported.notices(&self.scopes, self.iterations)
    }

    /// Moves what the factors of a level have in common to the factor of all tasks, which leaves the time of every measured task as it
    /// is. Otherwise one level could grow as another shrinks, and tasks that were never measured would get the factor of one alone.
    fn centre(&mut self, measured: &[MeasuredTask<'_>]) {
        let total: f64 = measured.iter().map(|m| m.base_s.0).sum();
        for level in Level::ALL.into_iter().filter(|level| !level.is_all()) {
            let value = |m: &MeasuredTask<'_>| {
                let scope = level.scope(&Place::of(m.task), &m.work());
                m.base_s.0 * self.scopes.get(&scope).map_or(0.0, Estimate::value)
            };
            let mean = measured.iter().map(value).sum::<f64>() / total;
            let of_level = self.scopes.iter_mut().filter(|(scope, _)| level.has(scope));
            of_level.for_each(|(_, estimate)| estimate.shift(-mean));
            self.scopes.entry(Scope::default()).or_default().shift(mean);
        }
    }

    /// Reduces what the times of an iteration have in common to what is usual. One disturbed iteration teaches little then; if more
    /// follow, they become usual.
    fn shorten_disturbance(&mut self, rest: &mut [f64]) {
        let common = median(&mut rest.to_vec());
        let limit = SURPRISES * self.surprise;
        let usual = common.clamp(-limit, limit);
        rest.iter_mut().for_each(|rest| *rest += usual - common);
        let gain = GAIN_OF_DEVIATION.max(1.0 / self.iterations as f64);
        let surprise = self.surprise + gain * (usual.abs() - self.surprise);
        self.surprise = surprise.max(MIN_SURPRISE);
    }

    /// The makespan of a plan with corrected stage times.
    fn retimed(&self, base_s: &[Seconds], plan: &Plan) -> Option<Seconds> {
        let mut graph = plan.graph.clone();
        for (task, &base_s) in graph.tasks.iter_mut().zip(base_s) {
            let work = Work::new(task.kind, &task.strategy, base_s);
            task.duration_s = self.corrected(&Place::of(task), &work);
        }
        Timeline::evaluate(&graph, &plan.order).ok().map(|timeline| timeline.makespan)
    }

    fn corrected(&self, place: &Place<'_>, work: &Work<'_>) -> Seconds {
        work.base_s * self.log_factor(place, work).exp()
    }

    fn log_factor(&self, place: &Place<'_>, work: &Work<'_>) -> f64 {
        let of_level =
            |level: Level| self.scopes.get(&level.scope(place, work)).map_or(0.0, Estimate::value);
        Level::ALL.into_iter().map(of_level).sum::<f64>().clamp(-MAX_LOG, MAX_LOG)
    }
}

/// A task with its time before corrections, and as it was measured.
struct MeasuredTask<'a> {
    task: &'a Task,
    base_s: Seconds,
    measured_s: Seconds,
}

impl MeasuredTask<'_> {
    fn work(&self) -> Work<'_> {
        Work::new(self.task.kind, &self.task.strategy, self.base_s)
    }

    /// The logarithm of its measured over its uncorrected time.
    fn log_ratio(&self) -> f64 {
        (self.measured_s.0 / self.base_s.0).ln()
    }
}

/// The tasks that take time. `None` if the trace does not cover the plan.
fn measured_tasks<'a>(run: MeasuredPlan<'a>, base_s: &[Seconds]) -> Option<Vec<MeasuredTask<'a>>> {
    let tasks = &run.plan.graph.tasks;
    if run.trace.spans.len() != tasks.len() {
        return None;
    }
    let mut measured = Vec::with_capacity(tasks.len());
    for span in &run.trace.spans {
        let task = tasks.get(span.task.index())?;
        let (base_s, measured_s) = (base_s[span.task.index()], span.end - span.start);
        if base_s.0 > 0.0 && measured_s.0 > 0.0 {
            measured.push(MeasuredTask { task, base_s, measured_s });
        }
    }
    Some(measured).filter(|m| !m.is_empty())
}

/// The time of every task of a plan before corrections, with the strategies of the plan. `None` if `base` is no graph of the plan.
fn base_seconds(base: &TaskGraph, plan: &Plan) -> Option<Vec<Seconds>> {
    if base.tasks.len() != plan.graph.tasks.len() {
        return None;
    }
    let mut seconds: Vec<Seconds> = base.tasks.iter().map(|task| task.duration_s).collect();
    for pair in base.pairs() {
        let candidates = &base.task(pair.forward).candidates;
        if candidates.is_empty() {
            continue;
        }
        let chosen = &plan.graph.task(pair.forward).strategy;
        let chosen = candidates.iter().find(|candidate| candidate.strategy == *chosen)?;
        seconds[pair.forward.index()] = chosen.forward_s;
        if let Some(backward) = pair.backward {
            seconds[backward.index()] = chosen.backward_s;
        }
    }
    Some(seconds)
}
