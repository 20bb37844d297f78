//! The table for terminals.

use dip_core::{Plan, Trace};

use super::summary::{Summary, limit_text};

/// Returns the headline figures and one line per rank: busy time, its parts, bubbles, peak memory and memory limit.
pub fn table(plan: &Plan, trace: &Trace) -> String {
    let summary = Summary::of(plan, trace);
    let mut out = String::new();
    for (label, value) in summary.headline() {
        out.push_str(&format!("{label:<12} {}\n", printable(&value)));
    }
    let mut rows = vec![
        ["rank", "busy", "forward", "backward", "weight", "bubbles", "peak", "limit"]
            .map(String::from),
    ];
    for (i, rank) in summary.ranks.iter().enumerate() {
        rows.push([
            i.to_string(),
            rank.busy().to_string(),
            rank.forward.to_string(),
            rank.backward.to_string(),
            rank.weight.to_string(),
            format!("{:.1} %", 100.0 * rank.bubble_ratio(summary.makespan)),
            rank.memory.peak.to_string(),
            limit_text(rank.limit),
        ]);
    }
    out.push('\n');
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    for row in &rows {
        let cells: Vec<_> =
            row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:>width$}")).collect();
        out.push_str(&cells.join("  "));
        out.push('\n');
    }
    out
}

/// Replaces control characters. Names come from files and must not control the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
