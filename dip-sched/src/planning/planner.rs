//! The asynchronous planner (paper section 4): while batch `k` trains, batch `k + 1` is planned on cores that are left over.
//!
//! A job is a closure that builds the task graph of a batch, so that also its cost estimates run on the planner's thread.
//! Plans are taken in the order in which their jobs were submitted. A search ends at its deadline, or when its plan is
//! called for; where none is ready then, a default schedule stands in and is counted.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dip_core::{Budget, Environment, Plan, PlanError, Schedule, Seconds, TaskGraph};

/// What a job builds its graph with.
type Build = Box<dyn FnOnce() -> Result<TaskGraph, PlanError> + Send>;

/// A plan, and what it took to get it.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// The plan.
    pub plan: Plan,
    /// How long [`Planner::take`] waited.
    pub stall: Seconds,
    /// How long the search ran.
    pub search: Seconds,
    /// Whether the default schedule stands in.
    pub fallback: bool,
}

/// What a planner has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PlannerStats {
    /// Plans that were taken.
    pub taken: u64,
    /// Of these, plans of the default schedule.
    pub fallbacks: u64,
    /// Time for which takers waited, in all.
    pub stall: Seconds,
    /// Time for which searches ran, in all.
    pub search: Seconds,
}

/// How a planner works.
#[derive(Clone)]
pub struct PlannerConfig {
    /// The searched schedule.
    pub schedule: Arc<dyn Schedule>,
    /// The schedule that stands in where none is ready.
    pub fallback: Arc<dyn Schedule>,
    /// Seed of the search; each batch adds its number.
    pub seed: u64,
    /// Limit of one search; [`Planner::measured`] shortens a limit in time to the iteration.
    pub budget: Budget,
    /// Threads of the search; by default half of the cores, at least one.
    pub threads: usize,
    /// How long a plan may be waited for before the default schedule stands in.
    pub patience: Seconds,
}

/// Plans batches on its own thread.
///
/// ```
/// # use dip_core::{PlanError, TaskGraph};
/// # fn example(graph: TaskGraph) -> Result<(), PlanError> {
/// let mut planner = dip_sched::PlannerConfig::default().start();
/// planner.submit(0, move || Ok(graph))?;
/// // Train the batch before, meanwhile.
/// let planned = planner.take()?;
/// println!("waited {}, {}", planned.stall, planned.plan.predicted.makespan_s);
/// # Ok(())
/// # }
/// ```
pub struct Planner {
    config: PlannerConfig,
    jobs: Option<Sender<Job>>,
    pending: VecDeque<Pending>,
    thread: Option<JoinHandle<()>>,
    limit: Arc<Mutex<Option<Duration>>>,
    stats: PlannerStats,
}

struct Job {
    build: Build,
    seed: u64,
    cancel: Arc<AtomicBool>,
    results: Sender<Message>,
}

enum Message {
    /// The graph, as soon as it is there: the default schedule may be needed for it.
    Graph(Arc<TaskGraph>),
    Done(Box<Result<(Plan, Seconds), PlanError>>),
}

struct Pending {
    cancel: Arc<AtomicBool>,
    results: Receiver<Message>,
}

impl Default for PlannerConfig {
    /// `dip` for at most 10 s on half of the cores, with 1F1B to stand in.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            schedule: Arc::new(crate::Dip),
            fallback: Arc::new(crate::OneFOneB),
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
        let (jobs, inbox) = channel::<Job>();
        let limit = Arc::new(Mutex::new(None));
        let worker = Worker { config: config.clone(), limit: limit.clone() };
        let thread = std::thread::Builder::new().name("dip-planner".into()).spawn(move || {
            let mut last = None;
            inbox.into_iter().for_each(|job| worker.work(job, &mut last));
        });
        let (thread, jobs) = match thread {
            Ok(thread) => (Some(thread), Some(jobs)),
            // Without a thread every submission reports that the planner is gone.
            Err(_) => (None, None),
        };
        let (pending, stats) = (VecDeque::new(), PlannerStats::default());
        Self { config, jobs, pending, thread, limit, stats }
    }

    /// Plans the graph that `build` makes. Returns at once. Equal numbers of a batch give equal searches.
    ///
    /// # Errors
    /// [`PlanError::Gone`] where the planning thread has ended.
    pub fn submit(
        &mut self,
        batch: u64,
        build: impl FnOnce() -> Result<TaskGraph, PlanError> + Send + 'static,
    ) -> Result<(), PlanError> {
        let (results, receiver) = channel();
        let cancel = Arc::new(AtomicBool::new(false));
        let seed = self.config.seed.wrapping_add(batch);
        let job = Job { build: Box::new(build), seed, cancel: cancel.clone(), results };
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.send(job).map_err(|_| gone())?;
        self.pending.push_back(Pending { cancel, results: receiver });
        Ok(())
    }

    /// The plan of the oldest job that was not yet taken. A search in time ends now, with the best plan it has; one with
    /// an iteration budget is waited for, so that its result is reproducible.
    ///
    /// # Errors
    /// [`PlanError::Empty`] where nothing was submitted; the errors of building and scheduling the graph.
    pub fn take(&mut self) -> Result<Planned, PlanError> {
        let pending = self.pending.pop_front().ok_or(PlanError::Empty)?;
        let start = Instant::now();
        let timed = matches!(self.config.budget, Budget::Time(_));
        let outcome = if timed { self.take_timed(&pending) } else { wait(&pending) };
        let stall = Seconds(start.elapsed().as_secs_f64());
        let (plan, search, fallback) = outcome?;
        self.stats.taken += 1;
        self.stats.fallbacks += u64::from(fallback);
        self.stats.stall += stall;
        self.stats.search += search;
        Ok(Planned { plan, stall, search, fallback })
    }

    /// Cancels the search, waits for its best plan, and has the default schedule stand in where none comes.
    fn take_timed(&self, pending: &Pending) -> Result<(Plan, Seconds, bool), PlanError> {
        pending.cancel.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + duration(self.config.patience);
        let mut graph = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match (pending.results.recv_timeout(left), graph.take()) {
                (Ok(Message::Graph(g)), _) => graph = Some(g),
                (Ok(Message::Done(done)), _) => return done.map(|(plan, s)| (plan, s, false)),
                (Err(RecvTimeoutError::Disconnected), _) => return Err(gone()),
                (Err(RecvTimeoutError::Timeout), Some(g)) => {
                    let env = Environment { seed: self.config.seed, ..Environment::default() };
                    let plan = self.config.fallback.plan(&g, &env)?;
                    return Ok((plan, Seconds::ZERO, true));
                }
                // Not even the graph is built: there is nothing to schedule before it is.
                (Err(RecvTimeoutError::Timeout), None) => match pending.results.recv() {
                    Ok(Message::Graph(g)) => graph = Some(g),
                    Ok(Message::Done(done)) => return done.map(|(plan, s)| (plan, s, false)),
                    Err(_) => return Err(gone()),
                },
            }
        }
    }

    /// Tells how long the last iteration took: the longest that the next search runs.
    pub fn measured(&mut self, iteration: Seconds) {
        let mut limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        *limit = Some(duration(iteration));
    }

    /// Jobs that were submitted and not yet taken.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// What it has done so far.
    pub fn stats(&self) -> PlannerStats {
        self.stats
    }
}

impl Drop for Planner {
    /// Cancels what runs and waits for the thread.
    fn drop(&mut self) {
        self.jobs = None;
        for pending in self.pending.drain(..) {
            pending.cancel.store(true, Ordering::Relaxed);
        }
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported by whoever waited for its plan.
            let _ = thread.join();
        }
    }
}

fn wait(pending: &Pending) -> Result<(Plan, Seconds, bool), PlanError> {
    loop {
        match pending.results.recv().map_err(|_| gone())? {
            Message::Graph(_) => {}
            Message::Done(done) => return done.map(|(plan, search)| (plan, search, false)),
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
struct Worker {
    config: PlannerConfig,
    limit: Arc<Mutex<Option<Duration>>>,
}

impl Worker {
    /// Plans a job; `last` is the plan of the one before.
    fn work(&self, job: Job, last: &mut Option<Plan>) {
        let start = Instant::now();
        let graph = match (job.build)() {
            Ok(graph) => Arc::new(graph),
            Err(error) => {
                // Whoever asked may be gone; then nobody needs the answer.
                let _ = job.results.send(Message::Done(Box::new(Err(error))));
                return;
            }
        };
        let _ = job.results.send(Message::Graph(graph.clone()));
        let env = Environment {
            seed: job.seed,
            budget: self.budget(start),
            threads: self.config.threads,
            progress: None,
            cancel: Some(&job.cancel),
            // Under an iteration budget the plan of a batch depends on nothing before it, also where a run is resumed.
            previous: last.as_ref().filter(|_| matches!(self.config.budget, Budget::Time(_))),
        };
        let plan = self.config.schedule.plan(&graph, &env).map_err(PlanError::from);
        let search = Seconds(start.elapsed().as_secs_f64());
        *last = plan.as_ref().ok().cloned();
        let _ = job.results.send(Message::Done(Box::new(plan.map(|plan| (plan, search)))));
    }

    /// What is left of the time behind one iteration.
    fn budget(&self, start: Instant) -> Budget {
        let limit = *self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        match (self.config.budget, limit) {
            (Budget::Time(most), Some(limit)) => {
                let left = Seconds(limit.saturating_sub(start.elapsed()).as_secs_f64());
                Budget::Time(most.min(left))
            }
            (budget, _) => budget,
        }
    }
}
