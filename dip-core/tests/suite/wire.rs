use dip_core::{FormatError, MAX_TASKS, Plan, TaskGraph, check_plan, check_plan_json};
use proptest::prelude::*;
use serde_json::Value;

use crate::GOLDEN;
use crate::random::{self, Random, Size};

fn syntax(text: &str) -> (usize, usize, String) {
    match check_plan_json(text) {
        Err(FormatError::Syntax { line, column, message }) => (line, column, message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_text_that_is_not_json_names_line_and_column() {
    let at = |text: &str| {
        let (line, column, _) = syntax(text);
        (line, column)
    };
    assert_eq!(at(""), (1, 1));
    assert_eq!(at("order: 1"), (1, 1));
    assert_eq!(at("{\"model\": \"ü\",\n \"ranks\" 2}"), (2, 10));
    assert_eq!(at("{\"model\": 01}"), (1, 12));
    assert_eq!(at("{\"model\": 1.}"), (1, 13));
    assert_eq!(at("{\"model\": nan}"), (1, 11));
    assert_eq!(at("{\"model\": \"a\n\"}"), (1, 13));
    assert_eq!(at("{\"model\": \"\\x\"}"), (1, 13));
    assert_eq!(at("{\"model\": \"\\ud800\"}"), (1, 13));
    assert_eq!(at("{\"order\": [1,]}"), (1, 14));
    assert_eq!(at("{} {}"), (1, 4));
    let message = check_plan_json("{\"ranks\": }").unwrap_err().to_string();
    assert_eq!(message, "line 1, column 11: not JSON: found '}', but expected a value");
}

#[test]
fn a_truncated_text_says_so() {
    let (_, _, message) = syntax(&GOLDEN[..GOLDEN.len() / 2]);
    assert!(message.contains("truncated"), "{message}");
}

#[test]
fn deep_nesting_is_an_error_and_not_a_stack_overflow() {
    for open in ["[", "{\"a\":", "{\"tasks\":[", "{\"order\":[["] {
        let (_, _, message) = syntax(&open.repeat(1_000_000));
        assert!(message.contains("nested deeper"), "{message}");
    }
}

#[test]
fn another_schema_is_refused_with_the_supported_one() {
    let newer = check_plan_json(&GOLDEN.replace("dip.plan/v1", "dip.plan/v2")).unwrap_err();
    let text = newer.to_string();
    assert!(text.contains("\"dip.plan/v2\", but only \"dip.plan/v1\" is supported"), "{text}");
    let graph = Plan::from_json(GOLDEN).unwrap().graph.to_json();
    let text = check_plan_json(&graph).unwrap_err().to_string();
    assert!(text.contains("dip plan --graph"), "{text}");
    let text = TaskGraph::from_json(GOLDEN).unwrap_err().to_string();
    assert!(text.contains("only \"dip.graph/v1\""), "{text}");
}

#[test]
fn fields_may_be_in_any_order() {
    let value: Value = serde_json::from_str(GOLDEN).unwrap();
    let sorted = value.to_string();
    assert!(sorted.starts_with("{\"cluster\""), "the map of serde_json is sorted by key");
    assert_eq!(Plan::from_json(&sorted).unwrap(), Plan::from_json(GOLDEN).unwrap());
}

#[test]
fn escapes_in_texts_are_read() {
    let text = GOLDEN.replace("\"golden\"", r#""a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00é""#);
    let plan = Plan::from_json(&text).unwrap();
    assert_eq!(plan.graph.model, "a\"\\/\u{8}\u{c}\n\r\té😀é");
}

#[test]
fn python_tokens_inside_texts_are_texts() {
    let text = GOLDEN.replace("\"golden\"", "\"NaN, Infinity\"");
    assert_eq!(Plan::from_json(&text).unwrap().graph.model, "NaN, Infinity");
}

#[test]
fn an_error_shows_the_first_violations_and_counts_the_rest() {
    let text = GOLDEN.replace("\"strategy\": \"keep\", \"deps\"", "\"deps\"");
    let error = Plan::from_json(&text).unwrap_err().to_string();
    let lines: Vec<_> = error.lines().collect();
    assert_eq!(lines[0], "9 violations");
    assert_eq!(lines[1], "  missing-field at tasks[0].strategy: the field is missing; add it");
    assert_eq!((lines.len(), lines[6]), (7, "  and 4 more"));
}

#[test]
fn an_invalid_graph_is_refused() {
    let plan = Plan::from_json(GOLDEN).unwrap();
    let refused = |change: &dyn Fn(&mut TaskGraph)| {
        let mut graph = plan.graph.clone();
        change(&mut graph);
        TaskGraph::from_json(&graph.to_json()).unwrap_err().to_string()
    };
    let cycle = refused(&|g| g.tasks[1].deps[0].task = dip_core::TaskId(5));
    assert!(cycle.contains("dependency-cycle"), "{cycle}");
    let unpaired = refused(&|g| g.tasks.truncate(5));
    assert!(unpaired.contains("unpaired-stage at tasks[1]"), "{unpaired}");
    let limit = refused(&|g| g.static_bytes[1] = dip_core::Bytes(101));
    assert!(limit.contains("static-over-limit at static_bytes[1]: 101"), "{limit}");
}

#[test]
fn a_plan_that_cannot_run_is_refused() {
    let text = GOLDEN.replace("[0, 1, 6, 5, 10]", "[0, 5, 1, 6, 10]");
    assert!(Plan::from_json(&text).unwrap_err().to_string().contains("order-deadlock"));
}

#[test]
fn an_unknown_field_with_an_odd_name_is_quoted_and_shortened() {
    let key = "a.b\\n".to_owned() + &"x".repeat(1000);
    let text = GOLDEN.replace("\"model\"", &format!("\"{key}\": 1, \"model\""));
    let report = check_plan_json(&text).unwrap();
    assert!(report.violations[0].path.starts_with("\"a.b\\nxxx"), "{report}");
    assert!(report.violations[0].path.len() < 100);
}

/// Tokens that replace a part of a text.
const TOKENS: [&str; 24] = [
    "",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "0",
    "-1",
    "1e999",
    "NaN",
    "-Infinity",
    "null",
    "true",
    "\"keep\"",
    "\"forward\"",
    "99999999999999999999",
    "0.5",
    "[]",
    "{}",
    "\u{e9}",
    "\"id\":0,",
];

/// Replaces, repeats or removes random parts of a text.
fn mutated(mut text: String, random: &mut Random) -> String {
    for _ in 0..1 + random.below(4) {
        let boundary = |random: &mut Random, text: &str| {
            let at = random.below(text.len() + 1);
            (at..=text.len()).find(|&i| text.is_char_boundary(i)).unwrap_or(text.len())
        };
        let from = boundary(random, &text);
        let length = [0, 1, 1, 2, 10][random.below(5)];
        let to = text[from..].char_indices().nth(length).map_or(text.len(), |(i, _)| from + i);
        match random.below(10) {
            0 => text.truncate(from),
            1 => text.insert_str(from, &text[from..to].repeat(3)),
            _ => text.replace_range(from..to, TOKENS[random.below(TOKENS.len())]),
        }
    }
    text
}

/// Replaces random values of a text, so that it stays JSON.
fn with_replaced_values(text: &str, random: &mut Random) -> String {
    let mut value: Value = serde_json::from_str(text).unwrap();
    for _ in 0..1 + random.below(3) {
        replace_value(&mut value, random);
    }
    value.to_string()
}

/// Replaces a random value inside `value`.
fn replace_value(value: &mut Value, random: &mut Random) {
    const OTHERS: [&str; 12] = [
        "0",
        "1",
        "5",
        "-3",
        "1e300",
        "1.5",
        "null",
        "[]",
        "{}",
        "\"weight\"",
        "[0, 1]",
        "4294967295",
    ];
    let deeper = random.chance(95);
    match value {
        Value::Array(items) if !items.is_empty() && deeper => {
            let i = random.below(items.len());
            replace_value(&mut items[i], random);
        }
        Value::Object(fields) if !fields.is_empty() && deeper => {
            let i = random.below(fields.len());
            replace_value(fields.values_mut().nth(i).unwrap(), random);
        }
        leaf => *leaf = serde_json::from_str(OTHERS[random.below(OTHERS.len())]).unwrap(),
    }
}

/// Runs every reader on one text. None may panic, and their results must agree.
fn read_all(text: &str) {
    let json = serde_json::from_str::<Value>(text);
    let python = ["NaN", "Infinity", "e999"].iter().any(|t| text.contains(t));
    let report = check_plan_json(text);
    let _ = TaskGraph::from_json(text);
    match &report {
        Err(FormatError::Syntax { .. }) => assert!(json.is_err(), "{text}"),
        Err(_) => {}
        Ok(report) => {
            assert!(json.is_ok() || python, "{text}");
            let loaded = Plan::from_json(text);
            if report.is_ok() {
                let plan = loaded.expect("a plan without violations is loaded");
                assert_eq!(check_plan(&plan), []);
            } else if let Ok(plan) = loaded {
                assert_eq!(check_plan(&plan), report.violations);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn no_mutation_of_the_golden_plan_makes_a_reader_panic(seed: u64) {
        read_all(&mutated(GOLDEN.into(), &mut Random(seed)));
    }

    #[test]
    fn no_replaced_value_makes_a_reader_panic(seed: u64) {
        let mut random = Random(seed);
        let plan = random::plan(seed, Size { microbatches: 2, segments: 2, ..Size::default() });
        read_all(&with_replaced_values(&plan.to_json(), &mut random));
        read_all(&with_replaced_values(GOLDEN, &mut random));
        let graph = with_replaced_values(&plan.graph.to_json(), &mut random);
        if let Ok(graph) = TaskGraph::from_json(&graph) {
            prop_assert_eq!(dip_core::check_graph(&graph), []);
        }
    }

    #[test]
    fn no_text_makes_a_reader_panic(text in ".{0,200}") {
        read_all(&text);
    }

    #[test]
    fn numbers_are_read_as_serde_json_reads_them(
        text in "-?[0-9]{1,3}(\\.[0-9]{0,3})?([eE][-+]?[0-9]{0,2})?",
    ) {
        let document = format!("{{\"schema\": {text}}}");
        let ours = !matches!(check_plan_json(&document), Err(FormatError::Syntax { .. }));
        let theirs = serde_json::from_str::<Value>(&document);
        prop_assert_eq!(ours, theirs.is_ok(), "{}", text);
    }
}

/// Run with `cargo test --release -p dip-core --test main -- --ignored --nocapture a_million`.
#[test]
#[ignore = "takes some seconds and a gigabyte"]
fn a_million_tasks_are_checked_in_seconds() {
    let mut random = Random(7);
    let size =
        Size { ranks: 16, modules: 4, segments: 4, microbatches: 6000, slices: 8, cross: 20 };
    let mut graph = random::graph(&mut random, size);
    while !(1_000_000..=MAX_TASKS).contains(&graph.tasks.len()) {
        graph = random::graph(&mut random, size);
    }
    let order = random::order(&mut random, &graph);
    let time = std::time::Instant::now();
    let plan = Plan::new(graph, "random", order, dip_core::Seconds::ZERO).unwrap();
    println!("{} tasks on {} ranks", plan.graph.tasks.len(), plan.graph.ranks);
    println!("timeline {:?}", time.elapsed());
    let time = std::time::Instant::now();
    assert_eq!(check_plan(&plan), []);
    println!("check_plan {:?}", time.elapsed());
    let time = std::time::Instant::now();
    let text = plan.to_json();
    println!("to_json {:?}, {} MB", time.elapsed(), text.len() / 1_000_000);
    let time = std::time::Instant::now();
    assert!(check_plan_json(&text).unwrap().is_ok());
    println!("check_plan_json {:?}", time.elapsed());
    let time = std::time::Instant::now();
    assert_eq!(Plan::from_json(&text).unwrap(), plan);
    println!("Plan::from_json {:?}", time.elapsed());
}
