//! The budget, threads and seed of a search, which every command that searches takes.

use clap::Args;
use dip::prelude::*;

/// What a search may use.
#[derive(Debug, Clone, Copy, Args)]
pub struct SearchArgs {
    /// Time of one search, such as 2s or 500ms; by default 2s, or 1s in commands that search many setups
    #[arg(long, value_parser = seconds)]
    budget: Option<Seconds>,
    /// Iterations of one search, instead of a time: reproducible
    #[arg(long, value_name = "N")]
    iterations_budget: Option<u64>,
    /// Threads of a search; by default half of the cores
    #[arg(long)]
    threads: Option<usize>,
    /// Seed of the searches and of sampled batches
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// The time of a search.
pub const USUAL: Seconds = Seconds(2.0);
/// The time of each of many searches.
pub const OF_MANY: Seconds = Seconds(1.0);

impl SearchArgs {
    /// The environment of a search that takes `usual` if no budget is given.
    pub fn environment(&self, usual: Seconds) -> Environment<'static> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Environment {
            seed: self.seed,
            budget: match self.iterations_budget {
                Some(n) => Budget::Iterations(n),
                None => Budget::Time(self.budget.unwrap_or(usual)),
            },
            threads: self.threads.unwrap_or(cores.div_ceil(2)).max(1),
            ..Environment::default()
        }
    }
}

/// Parses a time with its unit.
fn seconds(text: &str) -> Result<Seconds, String> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1e-3),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    match number.trim().parse::<f64>() {
        Ok(n) if n.is_finite() && n >= 0.0 => Ok(Seconds(n * unit)),
        _ => Err("must be a time such as 2s or 500ms".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit_or_is_in_seconds() {
        assert_eq!(seconds("2s"), Ok(Seconds(2.0)));
        assert_eq!(seconds("500ms"), Ok(Seconds(0.5)));
        assert_eq!(seconds("3"), Ok(Seconds(3.0)));
        assert!(["", "s", "-1s", "nan", "infs", "2m"].iter().all(|t| seconds(t).is_err()));
    }
}
