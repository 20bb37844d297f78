use dip_core::{Bytes, Executor, Plan, RankId, Seconds, Span, TaskId, Timeline, Trace};
use dip_emu::{LinkModel, VirtualExecutor, memory, report};
use proptest::prelude::{ProptestConfig, prop_assert, prop_assert_eq, proptest};

use crate::support::any_plan;

fn run(plan: &Plan) -> Trace {
    VirtualExecutor::new(LinkModel::Uncontended).execute(plan).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn the_memory_curve_has_the_peak_of_the_timeline_and_ends_as_it_began(plan in any_plan()) {
        let timeline = Timeline::evaluate(&plan.graph, &plan.order).unwrap();
        let curves = memory(&plan.graph, &run(&plan));
        for (curve, peak) in curves.iter().zip(&timeline.peak) {
            prop_assert_eq!(curve.peak, *peak);
            prop_assert!(curve.points.windows(2).all(|w| w[0].0 <= w[1].0));
            prop_assert_eq!(curve.points.last().unwrap().1, Bytes(7));
            prop_assert!(curve.mean(timeline.makespan) <= curve.peak);
        }
    }

    #[test]
    fn reports_have_every_stage_and_no_markup_from_files(plan in any_plan()) {
        let mut plan = plan;
        plan.graph.model = "</title><script>alert(1)</script>\"'".into();
        plan.schedule = "a\u{1b}[2Jb".into();
        let trace = run(&plan);
        let page = report::html(&plan, &trace);
        prop_assert_eq!(page.matches("<rect class").count(), plan.graph.tasks.len());
        prop_assert_eq!(page.matches("<script>").count(), 1);
        prop_assert!(!page.contains("<ear>") && page.contains("&lt;ear&gt;"));
        prop_assert!(!page.contains("NaN") && !page.contains("inf%"));
        let events: serde_json::Value = serde_json::from_str(&report::chrome(&plan, &trace)).unwrap();
        let events = events["traceEvents"].as_array().unwrap();
        let count = |phase: &str| events.iter().filter(|e| e["ph"] == phase).count();
        prop_assert_eq!(count("X"), plan.graph.tasks.len());
        let crossing = |t: &dip_core::Task| {
            t.deps.iter().filter(|d| plan.graph.task(d.task).rank != t.rank).count()
        };
        let messages: usize = plan.graph.tasks.iter().map(crossing).sum();
        prop_assert_eq!((count("s"), count("f")), (messages, messages));
        let table = report::table(&plan, &trace);
        let escape = '\u{1b}';
        prop_assert!(!table.contains(escape));
        prop_assert_eq!(table.lines().rev().take_while(|l| !l.is_empty()).count(), plan.graph.ranks as usize + 1);
    }
}

#[test]
fn the_table_is_the_recorded_text() {
    let plan = Plan::from_json(include_str!("two_ranks.json")).unwrap();
    let expected = "\
model        pair
cluster      c
schedule     by hand
stages       4
makespan     7.00 s
planned      7.00 s
bubbles      57.1 %
lower bound  6.00 s
above bound  16.7 %

rank    busy  forward  backward   weight  bubbles  peak  limit
   0  3.00 s   1.00 s    2.00 s  0.00 ms   57.1 %  15 B   64 B
   1  3.00 s   1.00 s    2.00 s  0.00 ms   57.1 %  15 B   none
";
    assert_eq!(report::table(&plan, &run(&plan)), expected);
}

#[test]
fn reports_skip_spans_of_other_plans() {
    let plan = Plan::from_json(include_str!("two_ranks.json")).unwrap();
    let span = |task, rank| Span {
        task: TaskId(task),
        rank: RankId(rank),
        start: Seconds(1.0),
        end: Seconds(2.0),
    };
    let spans = vec![span(99, 0), span(0, 99), span(1, 1)];
    for trace in [Trace { ranks: 2, spans }, Trace::default()] {
        assert!(report::html(&plan, &trace).contains("</html>"));
        assert!(report::chrome(&plan, &trace).starts_with('{'));
        assert!(report::table(&plan, &trace).contains("rank"));
    }
}
