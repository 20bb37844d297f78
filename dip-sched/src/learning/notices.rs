//! What is worth telling about measured times: drift of the machine, and ranks that are slower than others.

use std::collections::BTreeMap;

use dip_core::RankId;
use serde::{Deserialize, Serialize};

use super::estimate::{Estimate, median};
use super::scope::Scope;

/// A change of times is told if it is larger than this share.
const NOTABLE: f64 = 0.1;
/// Iterations before the first notice.
const FIRST: u64 = 10;
/// Iterations between two notices of drift: on a busy machine times change all the time.
const BETWEEN: u64 = 100;

/// What was told so far.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reported {
    /// The logarithm of the factor of all times.
    drift: f64,
    /// The iteration in which drift was told.
    told_in: Option<u64>,
    /// The same for each rank, relative to the other ranks.
    ranks: BTreeMap<RankId, f64>,
}

impl Reported {
    /// New notices. They come again only after another notable change.
    pub fn notices(&mut self, scopes: &BTreeMap<Scope, Estimate>, iterations: u64) -> Vec<String> {
        let mut notices = Vec::new();
        if iterations < FIRST {
            return notices;
        }
        let all = scopes.get(&Scope::default()).map_or(0.0, Estimate::value);
        let is_due = self.told_in.is_none_or(|told| iterations >= told + BETWEEN);
        if is_notable(all - self.drift) && is_due {
            (self.drift, self.told_in) = (all, Some(iterations));
            notices.push(format!("stages take {} than in the profile", relative(all)));
        }
        let ranks: Vec<(RankId, f64)> = scopes
            .iter()
            .filter_map(|(scope, estimate)| Some((alone(scope)?, estimate.value())))
            .collect();
        for &(rank, value) in &ranks {
            let mut others: Vec<f64> =
                ranks.iter().filter(|(r, _)| *r != rank).map(|(_, value)| *value).collect();
            if others.is_empty() {
                continue;
            }
            let slower = value - median(&mut others);
            let told = self.ranks.get(&rank).copied().unwrap_or(0.0);
            // If one rank is slower, all others are faster than it: only the slower is told.
            if is_notable(slower - told) && slower.max(told) > 0.0 {
                self.ranks.insert(rank, slower);
                notices.push(format!(
                    "the stages of rank {rank} take {} than those of the other ranks, compared with the profile",
                    relative(slower)
                ));
            }
        }
        notices
    }
}

/// The rank of a scope that names nothing else.
fn alone(scope: &Scope) -> Option<RankId> {
    let rank = scope.rank?;
    (*scope == Scope { rank: Some(rank), ..Scope::default() }).then_some(rank)
}

fn is_notable(log: f64) -> bool {
    log.abs() > NOTABLE.ln_1p()
}

/// Such as `12 % longer`.
fn relative(log: f64) -> String {
    let percent = 100.0 * log.exp_m1();
    let word = if percent < 0.0 { "less" } else { "longer" };
    format!("{:.0} % {word}", percent.abs())
}
