//! Damaged files for tests: readers must refuse them without a panic, and say where and why.

use rand::Rng;
use serde_json::{Value, json};

/// A file with a few bytes changed, removed, repeated or cut off.
pub(crate) fn damaged(bytes: &[u8], rng: &mut impl Rng) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..rng.random_range(1..5) {
        if out.is_empty() {
            break;
        }
        let at = rng.random_range(0..out.len());
        let length = rng.random_range(1..64).min(out.len() - at);
        match rng.random_range(0..6) {
            0 => out[at] = rng.random(),
            1 => out[at] ^= 1 << rng.random_range(0..8),
            2 => drop(out.drain(at..at + length)),
            3 => out.truncate(at),
            4 => {
                let part = out[at..at + length].to_vec();
                out.splice(at..at, part);
            }
            // Numbers and brackets change more than other bytes do.
            _ => out[at] = b"0129-[]{}\"\\,:\0\xff"[rng.random_range(0..15)],
        }
    }
    out
}

/// A JSON text in which one value is of another size or kind, absent, or twice there. Damaged bytes seldom leave valid JSON.
pub(crate) fn damaged_json(text: &[u8], rng: &mut impl Rng) -> Vec<u8> {
    let mut json: Value = serde_json::from_slice(text).expect("the whole file is JSON");
    let target = rng.random_range(0..count(&json));
    change(&mut json, target, rng);
    serde_json::to_vec(&json).expect("plain data has a JSON form")
}

fn children(json: &mut Value) -> Vec<&mut Value> {
    match json {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(fields) => fields.values_mut().collect(),
        _ => Vec::new(),
    }
}

/// Values in a JSON, itself included.
fn count(json: &Value) -> usize {
    match json {
        Value::Array(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Object(fields) => 1 + fields.values().map(count).sum::<usize>(),
        _ => 1,
    }
}

/// Changes value number `target`, counted from the root.
fn change(json: &mut Value, target: usize, rng: &mut impl Rng) {
    if target == 0 {
        *json = changed(json, rng);
        return;
    }
    let mut before = 1;
    for child in children(json) {
        let inside = count(child);
        if target < before + inside {
            return change(child, target - before, rng);
        }
        before += inside;
    }
}

fn changed(json: &Value, rng: &mut impl Rng) -> Value {
    let other = [
        json!(null),
        json!(true),
        json!(0),
        json!(1),
        json!(-1),
        json!(3),
        json!(65_536),
        json!(u32::MAX),
        json!(u64::MAX),
        json!(0.5),
        json!(1e-300),
        json!(1e300),
        json!(""),
        json!("\u{0}../x"),
        json!([]),
        json!([null, -1, "x"]),
        json!({}),
        json!({"a": {"a": []}}),
    ];
    match rng.random_range(0..8) {
        0 => json!([json, json]),
        1 => json!({ "content": json }),
        _ => other[rng.random_range(0..other.len())].clone(),
    }
}
