//! Graphs and models that tests share.

use dip_core::{
    Bytes, Dep, Environment, MicrobatchId, ModelSpec, Placement, Plan, RankId, Schedule,
    ScheduleError, Seconds, SegmentId, StageCost, StageQuery, Strategy, SubMicrobatchId, Task,
    TaskGraph, TaskId, TaskKind,
};
use dip_sched::OneFOneB;

/// A schedule as another crate may define it: 1F1B under another name, on virtual pipelines, described as a search.
pub struct OutsideSchedule;

impl Schedule for OutsideSchedule {
    fn name(&self) -> &str {
        "outside"
    }

    fn placement(&self) -> Placement {
        Placement::Contiguous { runs_per_rank: 2, route: dip_core::Route::Loop }
    }

    fn searches(&self) -> bool {
        true
    }

    fn plan(&self, graph: &TaskGraph, env: &Environment<'_>) -> Result<Plan, ScheduleError> {
        let plan = OneFOneB.plan(graph, env)?;
        Ok(Plan { schedule: self.name().into(), ..plan })
    }
}

/// A chain of stages for every microbatch: stage `s` on rank `s mod ranks`, segment `s / ranks`.
#[derive(Clone)]
pub struct Chain {
    pub ranks: u32,
    pub microbatches: u32,
    /// Seconds of each forward, by stage.
    pub forward: Vec<f64>,
    /// Seconds of each backward, by stage; only the input gradient if there are weight tasks.
    pub backward: Vec<f64>,
    /// Seconds of each weight gradient, by stage; empty for no weight tasks.
    pub weight: Vec<f64>,
    pub comm: f64,
    /// Bytes of every pair.
    pub bytes: u64,
    pub limit: u64,
}

impl Chain {
    /// `chunks` equal stages per rank. Together they take 1000 s forward and 2000 s backward on each rank.
    pub fn uniform(ranks: u32, microbatches: u32, chunks: u32) -> Self {
        let stages = (ranks * chunks) as usize;
        Self {
            ranks,
            microbatches,
            forward: vec![1000.0 / f64::from(chunks); stages],
            backward: vec![2000.0 / f64::from(chunks); stages],
            weight: Vec::new(),
            comm: 0.0,
            bytes: 1,
            limit: u64::MAX,
        }
    }

    /// Splits the weight gradient, half of the backward, into tasks of its own.
    pub fn split(mut self) -> Self {
        self.backward.iter_mut().for_each(|b| *b /= 2.0);
        self.weight = self.backward.clone();
        self
    }

    pub fn graph(&self) -> TaskGraph {
        let stages = self.forward.len() as u32;
        let kinds = if self.weight.is_empty() { 2 } else { 3 };
        let id = |m: u32, s: u32, kind: u32| TaskId((m * stages + s) * kinds + kind);
        let dep = |task: TaskId, comm: f64| Dep { task, comm_s: Seconds(comm) };
        let mut tasks = Vec::new();
        for m in 0..self.microbatches {
            for s in 0..stages {
                for k in 0..kinds {
                    let (kind, duration, deps) = match k {
                        0 if s == 0 => (TaskKind::Forward, self.forward[s as usize], vec![]),
                        0 => {
                            let before = vec![dep(id(m, s - 1, 0), self.comm)];
                            (TaskKind::Forward, self.forward[s as usize], before)
                        }
                        1 => {
                            let mut deps = vec![dep(id(m, s, 0), 0.0)];
                            if s + 1 < stages {
                                deps.push(dep(id(m, s + 1, 1), self.comm));
                            }
                            (TaskKind::Backward, self.backward[s as usize], deps)
                        }
                        _ => {
                            let after = vec![dep(id(m, s, 1), 0.0)];
                            (TaskKind::Weight, self.weight[s as usize], after)
                        }
                    };
                    tasks.push(Task {
                        id: id(m, s, k),
                        rank: RankId(s % self.ranks),
                        kind,
                        module: "m".into(),
                        segment: SegmentId(s / self.ranks),
                        microbatch: MicrobatchId(m),
                        sub_microbatch: SubMicrobatchId(0),
                        duration_s: Seconds(duration),
                        activation_bytes: Bytes(if k == 0 { self.bytes } else { 0 }),
                        strategy: Strategy::keep(),
                        deps,
                        candidates: Vec::new(),
                    });
                }
            }
        }
        TaskGraph {
            model: "chain".into(),
            cluster: "none".into(),
            ranks: self.ranks,
            memory_limit_bytes: vec![Bytes(self.limit); self.ranks as usize],
            static_bytes: vec![Bytes(0); self.ranks as usize],
            tasks,
        }
    }
}

/// An encoder and a backbone with these numbers of layers. An image has 16 patches and 4 tokens.
pub fn vision_language(vision: u32, language: u32) -> ModelSpec {
    let text = format!(
        "name = 'test'\nsequence_tokens = 64\nmax_images = 8\n\
         [[module]]\nname = 'vision'\nlayers = {vision}\nhidden = 8\nffn = 8\nheads = 2\n\
         kind.vit = {{ image_px = 16, patch_px = 4, merge = 2 }}\n\
         [[module]]\nname = 'language'\nlayers = {language}\nhidden = 8\nffn = 8\nheads = 2\n\
         inputs = ['vision']\nkind.decoder = {{ vocab = 32 }}\n"
    );
    ModelSpec::from_toml(&text).unwrap()
}

/// The cost of a stage pair that holds and sends one byte.
pub fn stage_of(query: &StageQuery<'_>, forward: Seconds, backward: Seconds) -> StageCost {
    StageCost {
        strategy: query.strategy.clone(),
        forward,
        backward,
        weight: None,
        activation_bytes: Bytes(1),
        output_bytes: Bytes(1),
    }
}
