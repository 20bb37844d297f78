use dip_core::{
    Bytes, ExecError, Executor, Plan, PlanJudge, RankId, Seconds, TaskId, Timeline, Trace,
    check_plan,
};
use dip_emu::{LinkModel, Noise, NoiseJudge, VirtualExecutor, noise_study};
use proptest::prelude::{ProptestConfig, prop_assert, prop_assert_eq, proptest};

use crate::support::any_plan;

fn run(plan: &Plan, links: LinkModel) -> Trace {
    let executor: &mut dyn Executor = &mut VirtualExecutor::new(links);
    let trace = executor.execute(plan).unwrap();
    trace.check(plan).unwrap();
    trace
}

fn ports(latency: f64) -> LinkModel {
    LinkModel::Ports { latency: Seconds(latency) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn without_contention_stages_run_exactly_when_the_timeline_says(plan in any_plan()) {
        prop_assert!(check_plan(&plan).is_empty(), "{:?}", check_plan(&plan));
        let timeline = Timeline::evaluate(&plan.graph, &plan.order).unwrap();
        let trace = run(&plan, LinkModel::Uncontended);
        prop_assert_eq!(trace.spans.len(), plan.graph.tasks.len());
        for span in &trace.spans {
            let i = span.task.index();
            prop_assert_eq!((span.start, span.end), (timeline.start[i], timeline.end[i]));
        }
        let order: Vec<TaskId> = trace.spans.iter().map(|s| s.task).collect();
        prop_assert_eq!(order, plan.order.concat());
    }

    #[test]
    fn contention_never_makes_a_stage_earlier(plan in any_plan(), latency in 0.0f64..2.0) {
        let (free, contended) = (run(&plan, LinkModel::Uncontended), run(&plan, ports(latency)));
        for (a, b) in free.spans.iter().zip(&contended.spans) {
            prop_assert_eq!(a.task, b.task);
            prop_assert!(b.start >= a.start);
        }
        // Messages that occupy nothing do not contend.
        prop_assert_eq!(run(&plan, ports(1e9)), free);
    }
}

/// Bytes that a rank holds at most if its tasks run in the order of `trace`.
fn peak(plan: &Plan, trace: &Trace, rank: RankId) -> Bytes {
    let mut order = vec![Vec::new(); plan.order.len()];
    for span in &trace.spans {
        order[span.rank.index()].push(span.task);
    }
    Timeline::evaluate(&plan.graph, &order).unwrap().peak[rank.index()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn ranks_that_run_ahead_end_and_keep_their_memory(
        plan in any_plan(), window in 2u32..20, seed: u64, deviation in 0.0f64..1.0
    ) {
        let mut plan = Plan { window, ..plan };
        plan.graph.memory_limit_bytes = plan.predicted.peak_bytes.clone();
        let noise = Noise::new(deviation, seed).unwrap();
        let mut executor = VirtualExecutor::new(LinkModel::Uncontended).with_noise(noise, 3);
        let trace = executor.execute(&plan).unwrap();
        trace.check(&plan).unwrap();
        for (rank, &limit) in plan.graph.memory_limit_bytes.iter().enumerate() {
            prop_assert!(peak(&plan, &trace, RankId::from(rank)) <= limit);
        }
        let strict = Plan { window: 1, ..plan };
        let trace = executor.execute(&strict).unwrap();
        prop_assert!(trace.check(&strict).is_ok());
    }

    #[test]
    fn without_noise_running_ahead_delays_nothing(plan in any_plan(), window in 2u32..20) {
        let plan = Plan { window, ..plan };
        let trace = run(&plan, LinkModel::Uncontended);
        for span in &trace.spans {
            let planned = plan.predicted.start_s[span.task.index()];
            prop_assert!(span.start.0 <= planned.0 * (1.0 + 1e-12), "{:?} {planned}", span);
        }
    }
}

#[test]
fn equal_samples_of_noise_are_equal_and_have_mean_one() {
    let plan = two_messages();
    let times = |sample| Noise::new(0.2, 5).unwrap().durations(&plan.graph, sample);
    assert_eq!(times(7), times(7));
    assert_ne!(times(7), times(8));
    let mean = (0..4000).map(|sample| times(sample)[0].0).sum::<f64>() / 4000.0;
    assert!((mean - 1.0).abs() < 0.01, "{mean}");
    assert!(Noise::new(f64::NAN, 0).is_err() && Noise::new(-0.1, 0).is_err());
}

#[test]
fn a_study_of_noise_says_what_each_rank_waits() {
    let plan = two_messages();
    let still = Noise::new(0.0, 0).unwrap();
    let study = noise_study(&plan, LinkModel::Uncontended, still, 3).unwrap();
    assert_eq!(study.makespans_s, [Seconds(4.25); 3]);
    assert_eq!(
        (study.planned_s, study.p5_s, study.p95_s),
        (Seconds(4.25), Seconds(4.25), Seconds(4.25))
    );
    let waits: Vec<_> =
        study.ranks.iter().map(|r| (r.planned_s.0, (r.mean_s.0 * 1e9).round() / 1e9)).collect();
    assert_eq!(waits, [(2.25, 2.25), (3.75, 3.75)]);
    let noisy =
        noise_study(&plan, LinkModel::Uncontended, Noise::new(0.3, 1).unwrap(), 200).unwrap();
    assert!(noisy.p5_s < noisy.mean_s && noisy.mean_s < noisy.p95_s);
    assert!(noisy.makespans_s.is_sorted());
}

/// Two messages of 2 s from rank 0, sent at 1 s and 2 s, and the stages of rank 1 that take them.
fn two_messages() -> Plan {
    let text = r#"{"schema":"dip.plan/v1","model":"m","cluster":"c","schedule":"s","ranks":2,
        "memory_limit_bytes":[9,9],"static_bytes":[0,0],"tasks":[
        {"id":0,"rank":0,"kind":"forward","module":"a","segment":0,"microbatch":0,"sub_microbatch":0,"duration_s":1.0,
         "activation_bytes":0,"strategy":"keep","deps":[]},
        {"id":1,"rank":0,"kind":"forward","module":"a","segment":0,"microbatch":1,"sub_microbatch":0,"duration_s":1.0,
         "activation_bytes":0,"strategy":"keep","deps":[]},
        {"id":2,"rank":1,"kind":"forward","module":"b","segment":0,"microbatch":0,"sub_microbatch":0,"duration_s":0.25,
         "activation_bytes":0,"strategy":"keep","deps":[{"task":0,"comm_s":2.0}]},
        {"id":3,"rank":1,"kind":"forward","module":"b","segment":0,"microbatch":1,"sub_microbatch":0,"duration_s":0.25,
         "activation_bytes":0,"strategy":"keep","deps":[{"task":1,"comm_s":2.0}]}],
        "order":[[0,1],[2,3]],
        "predicted":{"makespan_s":4.25,"start_s":[0,1,3,4],"end_s":[1,2,3.25,4.25],"peak_bytes":[0,0],
        "bubble_ratio":0.7058823529411764},"lower_bound_s":0}"#;
    Plan::from_json(text).unwrap()
}

#[test]
fn messages_wait_for_an_occupied_port() {
    let starts =
        |links| run(&two_messages(), links).spans.iter().map(|s| s.start.0).collect::<Vec<_>>();
    assert_eq!(starts(LinkModel::Uncontended), [0.0, 1.0, 3.0, 4.0]);
    assert_eq!(starts(ports(0.0)), [0.0, 1.0, 3.0, 5.0], "the second leaves at 3 s");
    assert_eq!(starts(ports(0.5)), [0.0, 1.0, 3.0, 4.5], "the first leaves the port at 2.5 s");
}

#[test]
fn a_plan_in_deadlock_names_the_ranks_that_wait() {
    let mut plan = two_messages();
    plan.graph.tasks[0].deps.push(dip_core::Dep { task: TaskId(3), comm_s: Seconds(1.0) });
    let error = VirtualExecutor::default().execute(&plan).unwrap_err();
    let ExecError::Deadlock { stuck } = error else { panic!("{error}") };
    assert_eq!(stuck.iter().map(|(rank, _)| *rank).collect::<Vec<_>>(), [RankId(0), RankId(1)]);
}

#[test]
fn a_judge_expects_the_mean_of_the_study() {
    let plan = two_messages();
    let noise = Noise::new(0.2, 5).unwrap();
    for window in [1, 8] {
        let judge = NoiseJudge::new(noise, 7, window);
        let study = noise_study(&Plan { window, ..plan.clone() }, LinkModel::Uncontended, noise, 7)
            .unwrap();
        let expected = judge.expected(&plan, judge.scenarios());
        assert!((expected.0 / study.mean_s.0 - 1.0).abs() < 1e-9);
    }
}
