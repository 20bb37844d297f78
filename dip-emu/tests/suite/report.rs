use dip_core::{
    Bytes, Executor, Plan, RankId, Seconds, Span, TaskId, TaskKind, Timeline, Trace, TraceFile,
};
use dip_emu::report::{self, BubbleCause, TimelineRun};
use dip_emu::{LinkModel, VirtualExecutor, memory};
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
        let run = planned(&plan, &trace);
        let page = report::html(&[run, run]);
        let data = data_of(&page);
        let stages: usize = data["runs"][1]["lanes"].as_array().unwrap().iter()
            .map(|lane| lane["task"].as_array().unwrap().len()).sum();
        prop_assert_eq!(stages, plan.graph.tasks.len());
        prop_assert_eq!(data["graphs"].as_array().unwrap().len(), 1);
        prop_assert_eq!(page.matches("<script").count(), 2);
        prop_assert!(!page.contains("<ear>") && page.contains("&lt;ear&gt;"));
        let figure = report::svg(&[run]);
        prop_assert!(!figure.contains("<ear>") && !figure.contains("NaN"));
        let events: serde_json::Value = serde_json::from_str(&report::chrome(&[run])).unwrap();
        let events = events["traceEvents"].as_array().unwrap();
        let count = |phase: &str| events.iter().filter(|e| e["ph"] == phase).count();
        prop_assert_eq!(count("X"), plan.graph.tasks.len());
        let crossing = |t: &dip_core::Task| {
            t.deps.iter().filter(|d| plan.graph.task(d.task).rank != t.rank).count()
        };
        let messages: usize = plan.graph.tasks.iter().map(crossing).sum();
        prop_assert_eq!((count("s"), count("f")), (messages, messages));
        // A stage that takes no time encloses nothing.
        let all_take_time = plan.graph.tasks.iter().all(|task| task.duration_s.0 > 1e-8);
        for arrow in events.iter().filter(|e| all_take_time && (e["ph"] == "s" || e["ph"] == "f")) {
            prop_assert_eq!(slices_at(events, arrow), 1);
        }
        let table = report::table(&plan, &trace);
        let escape = '\u{1b}';
        prop_assert!(!table.contains(escape));
        prop_assert_eq!(table.lines().rev().take_while(|l| !l.is_empty()).count(), plan.graph.ranks as usize + 1);
    }
}

fn planned<'a>(plan: &'a Plan, trace: &'a Trace) -> TimelineRun<'a> {
    TimelineRun { label: "planned", plan, trace, end: None }
}

/// The data of a page.
fn data_of(page: &str) -> serde_json::Value {
    let (_, rest) = page.split_once("<script type=\"application/json\" id=\"data\">").unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

/// The number of stages that an arrow binds to: those of its track that have begun and not ended at its time. Perfetto reads
/// times as whole nanoseconds.
fn slices_at(events: &[serde_json::Value], arrow: &serde_json::Value) -> usize {
    let nanoseconds = |time: f64| (time * 1e3).round() as i64;
    let time = |e: &serde_json::Value| nanoseconds(e["ts"].as_f64().unwrap());
    let encloses = |e: &&serde_json::Value| {
        let end = nanoseconds(e["ts"].as_f64().unwrap() + e["dur"].as_f64().unwrap());
        e["pid"] == arrow["pid"] && time(e) <= time(arrow) && time(arrow) < end
    };
    events.iter().filter(|e| e["ph"] == "X").filter(encloses).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn stages_and_bubbles_fill_the_time_of_every_rank(plan in any_plan()) {
        let trace = run(&plan);
        let end = trace.spans.iter().map(|s| s.end).fold(Seconds::ZERO, Seconds::max);
        for (rank, waits) in report::bubbles(&plan, &trace).iter().enumerate() {
            let spans = trace.spans.iter().filter(|s| s.rank.index() == rank);
            let busy: Seconds = spans.map(|s| s.end - s.start).sum();
            let waiting: Seconds = waits.iter().map(|b| b.end - b.start).sum();
            prop_assert!((busy.0 + waiting.0 - end.0).abs() <= 1e-9 * (1.0 + end.0));
            // Nothing is late and nothing is overhead in virtual time.
            let measured = |b: &&report::Bubble| {
                matches!(b.cause, BubbleCause::Late | BubbleCause::Runtime) && (b.end - b.start).0 > 1e-9
            };
            prop_assert_eq!(waits.iter().find(measured), None);
        }
    }

    #[test]
    fn a_breakdown_adds_up(plan in any_plan()) {
        let trace = run(&plan);
        let parts = report::breakdown(&planned(&plan, &trace));
        let busy: Seconds = parts.busy.iter().map(report::ModuleTime::sum).sum();
        let waits: Seconds = parts.waits.iter().map(|w| w.1).sum();
        let near = |a: Seconds, b: Seconds| (a - b).0.abs() <= 1e-9 * (1.0 + b.0);
        prop_assert!(near(busy + waits, parts.total));
        let path: Seconds = parts.critical.iter().map(report::ModuleTime::sum).sum();
        prop_assert!(near(path + parts.messages + parts.idle, parts.makespan));
        prop_assert!(near(parts.idle, Seconds::ZERO));
    }

    #[test]
    fn the_critical_path_is_as_long_as_the_makespan(plan in any_plan()) {
        let trace = run(&plan);
        let path = report::critical_path(&plan, &trace);
        let graph = &plan.graph;
        let mut length = Seconds::ZERO;
        for (i, &id) in path.iter().enumerate() {
            let task = graph.task(id);
            let before = i.checked_sub(1).map(|b| path[b]);
            let comm = task.deps.iter().find(|d| Some(d.task) == before).map_or(Seconds::ZERO, |d| d.comm_s);
            length += task.duration_s + comm;
        }
        let end = trace.spans.iter().map(|s| s.end).fold(Seconds::ZERO, Seconds::max);
        prop_assert!((length.0 - end.0).abs() <= 1e-9 * (1.0 + end.0), "{length} of {end}");
    }

    #[test]
    fn a_trace_file_is_read_as_it_was_written(plan in any_plan()) {
        let trace = run(&plan);
        let file = TraceFile { iteration: 7, replica: 1, elapsed_s: trace.makespan(), plan, trace };
        let text = file.to_text();
        prop_assert!(TraceFile::is_one(&text) && !TraceFile::is_one(&file.plan.to_json()));
        let read = TraceFile::from_text(&text).unwrap();
        prop_assert_eq!((read.iteration, read.replica, &read.plan), (7, 1, &file.plan));
        for (a, b) in read.trace.spans.iter().zip(&file.trace.spans) {
            prop_assert_eq!((a.task, a.rank), (b.task, b.rank));
            prop_assert!((a.start - b.start).0.abs() + (a.end - b.end).0.abs() < 1e-12);
        }
        prop_assert!(TraceFile::from_text(&text.replace("\"start_s\":", "\"start_s\":-")).is_err());
        prop_assert!(TraceFile::from_text(&file.plan.to_json()).is_err());
    }
}

#[test]
fn bubbles_have_the_causes_that_the_plan_shows() {
    let plan = Plan::from_json(include_str!("two_ranks.json")).unwrap();
    let trace = run(&plan);
    let causes = |rank: usize, trace: &Trace| -> Vec<(String, f64)> {
        let waits = &report::bubbles(&plan, trace)[rank];
        waits.iter().map(|b| (b.cause.to_string(), (b.end - b.start).0)).collect()
    };
    let named = |causes: &[(&str, f64)]| -> Vec<(String, f64)> {
        causes.iter().map(|&(cause, time)| (cause.to_owned(), time)).collect()
    };
    assert_eq!(
        causes(1, &trace),
        named(&[("dependency", 1.0), ("communication", 0.5), ("imbalance", 2.5)])
    );
    // The first forward takes a second longer than planned: its consumer waits for a late input.
    let mut slow = trace.clone();
    for span in &mut slow.spans {
        if plan.graph.task(span.task).kind != TaskKind::Forward || span.rank != RankId(0) {
            span.start += Seconds(1.0);
        }
        span.end += Seconds(1.0);
    }
    assert!(
        causes(1, &slow).iter().any(|(cause, _)| cause == "late input"),
        "{:?}",
        causes(1, &slow)
    );
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
        assert!(report::html(&[planned(&plan, &trace)]).contains("</html>"));
        assert!(report::svg(&[planned(&plan, &trace)]).contains("</svg>"));
        assert!(report::chrome(&[planned(&plan, &trace)]).starts_with('{'));
        assert!(report::table(&plan, &trace).contains("rank"));
    }
}
