//! The comparison on the terminal.

use dip::plan::{Bytes, Seconds};

use super::result::{ModelResult, Spread, SystemResult};

/// A headline, one line for each system, and the choices of the systems. Columns without a value are left out.
pub fn table(result: &ModelResult) -> String {
    let [data, tensor, pipeline] = result.parallel;
    let iterations = result.systems.iter().map(|s| s.records.len()).max().unwrap_or(0);
    let mut out = format!(
        "{}: data {data}, tensor {tensor}, pipeline {pipeline}; {iterations} iterations of {} microbatches a replica\n",
        result.model, result.microbatches
    );
    let reference = result.reference();
    let faster = reference.map_or_else(String::new, |r| format!("{} is faster by", r.system));
    let faster_under_noise = faster.clone();
    let heads = [
        "system",
        "step",
        "exchange",
        &faster,
        "bubbles",
        "MFU",
        "tokens/s a device",
        "peak",
        "over bound",
        "under noise",
        &faster_under_noise,
        "over bound",
        "search",
    ];
    let mut rows = vec![heads.map(String::from)];
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

fn row(system: &SystemResult, reference: Option<&SystemResult>) -> [String; 13] {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let some =
        |seconds: f64| if seconds > 0.0 { Seconds(seconds).to_string() } else { String::new() };
    let faster = reference.filter(|r| r.system != system.system).map(|r| r.above(system));
    let has_gap = system.records.iter().all(|r| r.gap.is_some());
    let gap = system.spread(|r| r.gap.unwrap_or_default()).mean;
    let noisy = system.noisy_seconds();
    let others = reference.filter(|r| r.system != system.system);
    let of_reference = others.and_then(SystemResult::noisy_seconds);
    let faster_under_noise = noisy.zip(of_reference).map(|(own, reference)| own / reference - 1.0);
    let over_bound = system.spread(|r| r.noisy.map_or(0.0, |noisy| noisy.over_bound)).mean;
    [
        system.system.clone(),
        spread(system.seconds()),
        some(system.spread(|r| r.exchange_s.0).mean),
        faster.map_or_else(String::new, |f| format!("{:+.1} %", 100.0 * f)),
        percent(system.spread(|r| r.bubble_ratio).mean),
        percent(system.spread(|r| r.mfu).mean),
        format!("{:.0}", system.spread(|r| r.tokens_per_s).mean),
        Bytes(system.records.iter().map(|r| r.peak_bytes.0).max().unwrap_or(0)).to_string(),
        if has_gap { percent(gap) } else { String::new() },
        noisy.map_or_else(String::new, |seconds| Seconds(seconds).to_string()),
        faster_under_noise.map_or_else(String::new, |f| format!("{:+.1} %", 100.0 * f)),
        noisy.map_or_else(String::new, |_| percent(over_bound)),
        some(system.spread(|r| r.search_s.0).mean),
    ]
}

/// A mean and its deviation in one unit, such as `8.78 ± 0.02 s`.
fn spread(seconds: Spread) -> String {
    let mean = Seconds(seconds.mean).to_string();
    let Some((value, unit)) = mean.rsplit_once(' ').filter(|_| seconds.deviation > 0.0) else {
        return mean;
    };
    let scale = match unit {
        "s" => 1.0,
        "ms" => 1e3,
        _ => 1e6,
    };
    let digits = value.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    format!("{value} ± {:.digits$} {unit}", scale * seconds.deviation)
}

/// Aligns the first column to the left and the others to the right. Leaves out columns that have only a head.
pub fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let has_values = |c: usize| rows.iter().skip(1).any(|r| !r[c].is_empty());
    let columns: Vec<usize> = (0..N).filter(|&c| c == 0 || has_values(c)).collect();
    let width = |c: usize| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for row in rows {
        for &c in &columns {
            let cell = &row[c];
            let pad = " ".repeat(width(c) - cell.chars().count());
            let cell = if c == 0 { format!("{cell}{pad}") } else { format!("  {pad}{cell}") };
            out.push_str(&cell);
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_and_its_deviation_have_one_unit() {
        let of = |mean, deviation| spread(Spread { mean, deviation });
        assert_eq!(of(8.78, 0.02289), "8.78 ± 0.02 s");
        assert_eq!(of(0.0123, 0.0011), "12.30 ± 1.10 ms");
        assert_eq!(of(150.2, 2.6), "150 ± 3 s");
        assert_eq!(of(8.78, 0.0), "8.78 s");
    }

    #[test]
    fn columns_without_values_are_left_out() {
        let rows = [["a", "b", "c"], ["x", "", "1"], ["yy", "", ""]].map(|r| r.map(String::from));
        assert_eq!(aligned(&rows), "a   c\nx   1\nyy\n");
    }
}
