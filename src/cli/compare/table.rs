//! The comparison on the terminal.

use dip::plan::{Bytes, Seconds};

use super::result::{ModelResult, SystemResult};

const HEADS: [&str; 8] = ["system", "iteration", "", "bubbles", "MFU", "peak", "gap", "search"];

/// A headline, one line for each system, and the choices of the systems.
pub fn table(result: &ModelResult) -> String {
    let [data, tensor, pipeline] = result.parallel;
    let iterations = result.systems.iter().map(|s| s.records.len()).max().unwrap_or(0);
    let mut out = format!(
        "{}: data {data}, tensor {tensor}, pipeline {pipeline}; {iterations} iterations of {} microbatches\n",
        result.model, result.microbatches
    );
    let reference = result.reference();
    let mut rows = vec![HEADS.map(String::from)];
    if let Some(reference) = reference {
        rows[0][2] = format!("{} is faster by", reference.system);
    }
    let done = result.systems.iter().filter(|s| s.failure.is_none());
    rows.extend(done.map(|system| row(system, reference)));
    out.push_str(&aligned(&rows));
    for system in &result.systems {
        match &system.failure {
            Some(failure) => out.push_str(&format!("{}: {failure}\n", system.system)),
            None => out.push_str(&format!("{}: {}\n", system.system, system.choice)),
        }
    }
    out.push('\n');
    out
}

fn row(system: &SystemResult, reference: Option<&SystemResult>) -> [String; 8] {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let seconds = system.seconds();
    let faster = reference.filter(|r| r.system != system.system).map(|r| r.above(system));
    let has_gap = system.records.iter().all(|r| r.gap.is_some());
    let gap = system.spread(|r| r.gap.unwrap_or_default()).mean;
    [
        system.system.clone(),
        format!("{} ± {}", Seconds(seconds.mean), Seconds(seconds.deviation)),
        faster.map_or_else(String::new, |f| format!("{:+.1} %", 100.0 * f)),
        percent(system.spread(|r| r.bubble_ratio).mean),
        percent(system.spread(|r| r.mfu).mean),
        Bytes(system.records.iter().map(|r| r.peak_bytes.0).max().unwrap_or(0)).to_string(),
        if has_gap { percent(gap) } else { String::new() },
        Seconds(system.spread(|r| r.search_s.0).mean).to_string(),
    ]
}

/// Aligns the first column to the left and the others to the right.
pub fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |c: usize| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (i, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let pad = " ".repeat(width - cell.chars().count());
            let cell = if i == 0 { format!("{cell}{pad}") } else { format!("  {pad}{cell}") };
            out.push_str(&cell);
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
    }
    out
}
