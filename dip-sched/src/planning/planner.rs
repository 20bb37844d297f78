//! The asynchronous planner (paper section 4): while batch `k` trains, it plans batch `k + 1` on free cores.
//!
//! A job is a closure that builds the task graph of a batch, so cost estimates run on the planning thread too. Plans are taken in the
//! order in which their jobs were submitted. A search ends at its deadline, or when its plan is taken. If no plan is ready then, a
//! fallback schedule stands in and is counted.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dip_core::{Budget, Environment, Plan, PlanError, PlanJudge, Schedule, Seconds, TaskGraph};

use crate::schedules::{Dip, OneFOneB};

/// Builds the graph of a job.
type Build = Box<dyn FnOnce() -> Result<TaskGraph, PlanError> + Send>;

/// A plan, with the time it took.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// The plan.
    pub plan: Plan,
    /// How long [`Planner::take`] waited.
    pub stall: Seconds,
    /// How long the search ran.
    pub search: Seconds,
    /// True if the plan is of the fallback schedule.
    pub fallback: bool,
}

/// Counts and times of a planner so far.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PlannerStats {
    /// Plans taken.
    pub taken: u64,
    /// Plans taken that are of the fallback schedule.
    pub fallbacks: u64,
    /// Total time that [`Planner::take`] waited.
    pub stall: Seconds,
    /// Total time that searches ran.
    pub search: Seconds,
}

/// The settings of a planner.
#[derive(Clone)]
pub struct PlannerConfig {
    /// The schedule of the plans.
    pub schedule: Arc<dyn Schedule>,
    /// The schedule that stands in if a plan is not ready in time.
    pub fallback: Arc<dyn Schedule>,
    /// Seed of the search. The number of the batch is added.
    pub seed: u64,
    /// Limit of one search. After [`Planner::measured`], a limit in time is at most the time of the last iteration.
    pub budget: Budget,
    /// Threads of the search.
    pub threads: usize,
    /// How long [`Planner::take`] waits before the fallback schedule stands in.
    pub patience: Seconds,
}

/// Plans batches on its own thread.
///
/// ```
/// # use dip_core::{PlanError, TaskGraph};
/// # fn example(graph: TaskGraph) -> Result<(), PlanError> {
/// let mut planner = dip_sched::PlannerConfig::default().start();
/// planner.submit(0, move || Ok(graph))?;
/// // Meanwhile, train the previous batch.
/// let planned = planner.take()?;
/// println!("waited {}, {}", planned.stall, planned.plan.predicted.makespan_s);
/// # Ok(())
/// # }
/// ```
pub struct Planner {
    config: PlannerConfig,
    jobs: Option<Sender<PlanJob>>,
    pending: VecDeque<Pending>,
    thread: Option<JoinHandle<()>>,
    limit: Arc<Mutex<Option<Duration>>>,
    judge: Option<Arc<dyn PlanJudge>>,
    stats: PlannerStats,
}

/// A plan and the time of its search.
struct Outcome {
    plan: Plan,
    search: Seconds,
    fallback: bool,
}

struct PlanJob {
    build: Build,
    seed: u64,
    judge: Option<Arc<dyn PlanJudge>>,
    cancel: Arc<AtomicBool>,
    results: Sender<PlannerMessage>,
}

enum PlannerMessage {
    /// The graph, sent as soon as it is built: the fallback schedule may need it.
    Graph(Arc<TaskGraph>),
    /// The plan, when the search has ended.
    Done(Box<Result<Outcome, PlanError>>),
}

struct Pending {
    cancel: Arc<AtomicBool>,
    results: Receiver<PlannerMessage>,
}

impl Default for PlannerConfig {
    /// [`Dip`] for at most 10 s on half of the cores, with 1F1B as fallback.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            schedule: Arc::new(Dip),
            fallback: Arc::new(OneFOneB),
            seed: 0,
            budget: Budget::Time(Seconds(10.0)),
            threads: (cores / 2).max(1),
            patience: Seconds(0.05),
        }
    }
}

impl PlannerConfig {
    /// Starts a planner with its thread.
    pub fn start(self) -> Planner {
        Planner::new(self)
    }
}

impl Planner {
    /// Starts a planner with its thread.
    pub fn new(config: PlannerConfig) -> Self {
        let (jobs, inbox) = channel::<PlanJob>();
        let limit = Arc::new(Mutex::new(None));
        let worker = PlanningThread { config: config.clone(), limit: limit.clone() };
        let thread = std::thread::Builder::new().name("dip-planner".into()).spawn(move || {
            let mut last = None;
            inbox.into_iter().for_each(|job| worker.work(job, &mut last));
        });
        let (thread, jobs) = match thread {
            Ok(thread) => (Some(thread), Some(jobs)),
            // Without a thread, every submission reports that the planner is gone.
            Err(_) => (None, None),
        };
        let (pending, stats) = (VecDeque::new(), PlannerStats::default());
        Self { config, jobs, pending, thread, limit, judge: None, stats }
    }

    /// Plans the graph that `build` returns, on the planning thread. Returns at once. Equal batch numbers give equal searches.
    ///
    /// # Errors
    /// [`PlanError::Gone`] if the planning thread has ended.
    pub fn submit(
        &mut self,
        batch: u64,
        build: impl FnOnce() -> Result<TaskGraph, PlanError> + Send + 'static,
    ) -> Result<(), PlanError> {
        let (results, receiver) = channel();
        let cancel = Arc::new(AtomicBool::new(false));
        let seed = self.config.seed.wrapping_add(batch);
        let judge = self.judge.clone();
        let job = PlanJob { build: Box::new(build), seed, judge, cancel: cancel.clone(), results };
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.send(job).map_err(|_| gone())?;
        self.pending.push_back(Pending { cancel, results: receiver });
        Ok(())
    }

    /// Takes the plan of the oldest pending job. A search with a budget in time ends now, with its best plan. A search with an iteration
    /// budget runs to its end, so that its plan is reproducible.
    ///
    /// # Errors
    /// [`PlanError::Empty`] if nothing is pending; errors of building and scheduling the graph.
    pub fn take(&mut self) -> Result<Planned, PlanError> {
        let pending = self.pending.pop_front().ok_or(PlanError::Empty)?;
        let start = Instant::now();
        let timed = matches!(self.config.budget, Budget::Time(_));
        let outcome = if timed { self.take_timed(&pending) } else { wait(&pending) };
        let stall = Seconds(start.elapsed().as_secs_f64());
        let Outcome { plan, search, fallback } = outcome?;
        self.stats.taken += 1;
        self.stats.fallbacks += u64::from(fallback);
        self.stats.stall += stall;
        self.stats.search += search;
        Ok(Planned { plan, stall, search, fallback })
    }

    /// Cancels the search and waits for its best plan; after the patience has run out, plans with the fallback schedule.
    fn take_timed(&self, pending: &Pending) -> Result<Outcome, PlanError> {
        pending.cancel.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + duration(self.config.patience);
        let mut graph = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match (pending.results.recv_timeout(left), graph.take()) {
                (Ok(PlannerMessage::Graph(g)), _) => graph = Some(g),
                (Ok(PlannerMessage::Done(done)), _) => {
                    return *done;
                }
                (Err(RecvTimeoutError::Disconnected), _) => return Err(gone()),
                (Err(RecvTimeoutError::Timeout), Some(g)) => {
                    let env = Environment { seed: self.config.seed, ..Environment::default() };
                    let plan = self.config.fallback.plan(&g, &env)?;
                    return Ok(Outcome { plan, search: Seconds::ZERO, fallback: true });
                }
                // The graph is not built yet, and nothing can be scheduled before it is.
                (Err(RecvTimeoutError::Timeout), None) => match pending.results.recv() {
                    Ok(PlannerMessage::Graph(g)) => graph = Some(g),
                    Ok(PlannerMessage::Done(done)) => {
                        return *done;
                    }
                    Err(_) => return Err(gone()),
                },
            }
        }
    }

    /// Reports the time of the last iteration. The next search runs no longer than that.
    pub fn measured(&mut self, iteration: Seconds) {
        let mut limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        *limit = Some(duration(iteration));
    }

    /// Lets `judge` choose among the plans of later jobs.
    pub fn judge_by(&mut self, judge: Arc<dyn PlanJudge>) {
        self.judge = Some(judge);
    }

    /// Jobs submitted and not yet taken.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Counts and times so far.
    pub fn stats(&self) -> PlannerStats {
        self.stats
    }
}

impl Drop for Planner {
    /// Cancels all jobs and waits for the thread.
    fn drop(&mut self) {
        self.jobs = None;
        for pending in self.pending.drain(..) {
            pending.cancel.store(true, Ordering::Relaxed);
        }
        if let Some(thread) = self.thread.take() {
            // The caller that waited for the plan has reported a panic of the thread.
            let _ = thread.join();
        }
    }
}

fn wait(pending: &Pending) -> Result<Outcome, PlanError> {
    loop {
        match pending.results.recv().map_err(|_| gone())? {
            PlannerMessage::Graph(_) => {}
            PlannerMessage::Done(done) => return *done,
        }
    }
}

fn gone() -> PlanError {
    PlanError::Gone("it panicked or could not be started; start a new planner".into())
}

/// A duration that a clock can hold.
fn duration(seconds: Seconds) -> Duration {
    Duration::try_from_secs_f64(seconds.0.clamp(0.0, 1e9)).unwrap_or_default()
}

/// The planning thread.
struct PlanningThread {
    config: PlannerConfig,
    limit: Arc<Mutex<Option<Duration>>>,
}

impl PlanningThread {
    /// Plans a job. `last` is the plan of the previous job.
    fn work(&self, job: PlanJob, last: &mut Option<Plan>) {
        let start = Instant::now();
        let graph = match (job.build)() {
            Ok(graph) => Arc::new(graph),
            Err(error) => {
                // If the receiver is gone, nobody needs the answer.
                let _ = job.results.send(PlannerMessage::Done(Box::new(Err(error))));
                return;
            }
        };
        let _ = job.results.send(PlannerMessage::Graph(graph.clone()));
        let env = Environment {
            seed: job.seed,
            budget: self.budget(start),
            threads: self.config.threads,
            progress: None,
            cancel: Some(&job.cancel),
            // Under an iteration budget a plan depends on its batch alone, so that a resumed run repeats it.
            judge: job.judge.as_deref().map(|judge| judge as &dyn PlanJudge),
            previous: last.as_ref().filter(|_| matches!(self.config.budget, Budget::Time(_))),
        };
        let plan = self.config.schedule.plan(&graph, &env).map_err(PlanError::from);
        let search = Seconds(start.elapsed().as_secs_f64());
        *last = plan.as_ref().ok().cloned();
        let outcome = plan.map(|plan| Outcome { plan, search, fallback: false });
        let _ = job.results.send(PlannerMessage::Done(Box::new(outcome)));
    }

    /// The budget of this job. A budget in time is at most the time of the last iteration, less the time since `start`.
    fn budget(&self, start: Instant) -> Budget {
        let limit = *self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        match (self.config.budget, limit) {
            (Budget::Time(budget), Some(limit)) => {
                let left = Seconds(limit.saturating_sub(start.elapsed()).as_secs_f64());
                Budget::Time(budget.min(left))
            }
            (budget, _) => budget,
        }
    }
}
