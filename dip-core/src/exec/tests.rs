//! The interpreter with stages that only log their calls, and a link within one process.

use std::collections::HashMap;
use std::task::Poll;

use super::*;
use crate::cost::Strategy;
use crate::plan::{Dep, PairKey, Plan, Task, TaskGraph, TaskKind};
use crate::spec::{Bytes, MicrobatchId, RankId, Seconds, SegmentId, SubMicrobatchId, TaskId};

/// Two ranks: `a` on rank 0 feeds `b` on rank 1, which has the loss. Each has a forward and a backward.
fn plan() -> Plan {
    let task = |id: u32, rank: u32, kind, module: &str, deps: &[(u32, f64)]| Task {
        id: TaskId(id),
        rank: RankId(rank),
        kind,
        module: module.into(),
        segment: SegmentId(0),
        microbatch: MicrobatchId(0),
        sub_microbatch: SubMicrobatchId(0),
        duration_s: Seconds(1.0),
        activation_bytes: Bytes(u64::from(kind == TaskKind::Forward)),
        strategy: Strategy::keep(),
        deps: deps.iter().map(|&(t, c)| Dep { task: TaskId(t), comm_s: Seconds(c) }).collect(),
        candidates: Vec::new(),
    };
    let graph = TaskGraph {
        model: "m".into(),
        cluster: "c".into(),
        ranks: 2,
        memory_limit_bytes: vec![Bytes(10); 2],
        static_bytes: vec![Bytes(0); 2],
        tasks: vec![
            task(0, 0, TaskKind::Forward, "a", &[]),
            task(1, 1, TaskKind::Forward, "b", &[(0, 0.5)]),
            task(2, 1, TaskKind::Backward, "b", &[(1, 0.0)]),
            task(3, 0, TaskKind::Backward, "a", &[(0, 0.0), (2, 0.5)]),
        ],
    };
    let order = vec![vec![TaskId(0), TaskId(3)], vec![TaskId(1), TaskId(2)]];
    Plan::new(graph, "test", order, Seconds::ZERO).unwrap()
}

/// A stage that logs its calls. Its payloads are texts that describe them.
struct LoggingStage {
    log: Vec<String>,
}

impl LoggingStage {
    fn note(
        &mut self,
        what: &str,
        call: &StageCall,
        inputs: Vec<Received<String>>,
    ) -> Result<Vec<String>, StageError> {
        let inputs: Vec<_> =
            inputs.iter().map(|r| format!("{} from {}", r.payload, r.from.module)).collect();
        self.log.push(format!("{what} {}({})", call.pair.module, inputs.join(", ")));
        let name = |c: &PairKey| format!("{what} {} for {}", call.pair.module, c.module);
        Ok(call.consumers.iter().map(name).collect())
    }
}

impl Stage for LoggingStage {
    type Payload = String;

    fn forward(
        &mut self,
        call: &StageCall,
        inputs: Vec<Received<String>>,
    ) -> Result<Vec<String>, StageError> {
        self.note("fw", call, inputs)
    }

    fn backward(
        &mut self,
        call: &StageCall,
        gradients: Vec<Received<String>>,
    ) -> Result<Vec<String>, StageError> {
        self.note("bw", call, gradients)
    }
}

struct Host {
    stage: LoggingStage,
    steps: usize,
}

impl RankHost for Host {
    type Payload = String;

    fn now(&self) -> Seconds {
        Seconds(self.stage.log.len() as f64)
    }

    fn stage(&mut self, _: &str, _: SegmentId) -> Option<&mut dyn Stage<Payload = String>> {
        Some(&mut self.stage)
    }

    fn step(&mut self) -> Result<(), StageError> {
        self.steps += 1;
        Ok(())
    }
}

/// A link whose receives are pending until the message was sent.
#[derive(Default)]
struct Mailbox(HashMap<Message, String>);

impl Link for Mailbox {
    type Payload = String;

    fn isend(&mut self, message: &Message, payload: String) -> Result<(), LinkError> {
        self.0.insert(*message, payload);
        Ok(())
    }

    fn irecv(&mut self, _: &Message) -> Result<(), LinkError> {
        Ok(())
    }

    fn wait_isend(&mut self, _: &Message) -> Result<Poll<()>, LinkError> {
        Ok(Poll::Ready(()))
    }

    fn try_irecv(&mut self, message: &Message) -> Result<Poll<String>, LinkError> {
        Ok(self.0.remove(message).map_or(Poll::Pending, Poll::Ready))
    }

    fn wait_any(&mut self, _: &[Message]) -> Result<(), LinkError> {
        Ok(())
    }
}

fn host() -> Host {
    Host { stage: LoggingStage { log: Vec::new() }, steps: 0 }
}

#[test]
fn action_lists_read_as_in_the_paper() {
    let text = compile(&plan()).to_string();
    let names: Vec<_> = text.lines().filter_map(|l| l.split_whitespace().next()).collect();
    let rank_0 = ["rank", "irecv", "fw_stage", "isend", "wait_irecv", "bw_stage", "wait_isend"];
    assert_eq!(names[..7], rank_0, "{text}");
    assert_eq!(names.iter().filter(|n| **n == "step").count(), 2, "{text}");
}

#[test]
fn payloads_reach_the_stages_they_were_made_for() {
    let program = compile(&plan());
    let mut link = Mailbox::default();
    let mut hosts = [host(), host()];
    let mut ranks = [0, 1].map(|r| Interpreter::<String>::new(&program, RankId(r)));
    let mut idle = 0;
    while idle < 2 {
        idle = 0;
        for (rank, host) in ranks.iter_mut().zip(&mut hosts) {
            let mut progress = rank.advance(host, &mut link).unwrap();
            while progress == RankProgress::Advanced {
                progress = rank.advance(host, &mut link).unwrap();
            }
            idle += usize::from(progress == RankProgress::Done);
        }
    }
    assert_eq!(hosts[0].stage.log, ["fw a()", "bw a(bw b for a from b)"]);
    assert_eq!(hosts[1].stage.log, ["fw b(fw a for b from a)", "bw b()"]);
    assert_eq!(hosts.map(|h| h.steps), [1, 1]);
    let spans: Vec<_> = ranks.into_iter().flat_map(Interpreter::into_spans).collect();
    assert_eq!(spans.len(), 4);
}

#[test]
fn a_rank_that_is_run_alone_reports_what_it_waits_for() {
    let program = compile(&plan());
    let rank = Interpreter::<String>::new(&program, RankId(1));
    let error = rank.run(&mut host(), &mut Mailbox::default()).unwrap_err();
    assert!(error.to_string().contains("rank 1 waits for 0@0 -> 1@1"), "{error}");
}

/// A trace of `plan()` from (task, rank, start, end).
fn trace(spans: &[(u32, u32, f64, f64)]) -> Trace {
    let span = |&(task, rank, start, end): &(u32, u32, f64, f64)| Span {
        task: TaskId(task),
        rank: RankId(rank),
        start: Seconds(start),
        end: Seconds(end),
    };
    Trace { ranks: 2, spans: spans.iter().map(span).collect() }
}

#[test]
fn a_trace_is_checked_against_its_plan() {
    let order = |rank, ran, planned| Err(TraceError::Order { rank: RankId(rank), ran, planned });
    let (a, b) = ((0, 0, 0.0, 1.0), (1, 1, 1.5, 2.5));
    let (c, d) = ((2, 1, 2.5, 3.5), (3, 0, 4.0, 5.0));
    assert_eq!(trace(&[a, d, b, c]).check(&plan()), Ok(()));
    assert_eq!(trace(&[a, d, b]).check(&plan()), order(1, 1, 2));
    assert_eq!(trace(&[d, a, b, c]).check(&plan()), order(0, 0, 2));
    assert_eq!(trace(&[a, d, b, c, (0, 2, 0.0, 1.0)]).check(&plan()), order(2, 0, 0));
    let early = trace(&[a, d, (1, 1, 0.5, 1.5), c]).check(&plan());
    assert_eq!(early, Err(TraceError::Dependency { task: TaskId(1), dep: TaskId(0) }));
}

#[test]
fn a_lost_peer_is_a_consequence_and_not_a_cause() {
    let rank = RankId(0);
    let gone = LinkError::PeerGone { peer: RankId(1) };
    assert!(ExecError::Link { rank, source: gone }.is_consequence());
    assert!(
        ExecError::Stage { rank, source: StageError::PeerGone { peer: "it" } }.is_consequence()
    );
    let failed = StageError::Failed("out of memory".into());
    assert!(!ExecError::Stage { rank, source: failed }.is_consequence());
}
