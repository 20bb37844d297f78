//! Schedules by name.

use dip_core::Schedule;

use super::{Dip, Exact, GPipe, Interleaved, OneFOneB, Optimus, Reordered, ZeroBubble};

/// Every schedule, the default first.
const SCHEDULES: &[&dyn Schedule] = &[
    &Dip,
    &Exact,
    &Reordered::Mcts,
    &Reordered::Local,
    &Reordered::Random,
    &Reordered::DepthFirst,
    &GPipe,
    &OneFOneB,
    &Interleaved,
    &ZeroBubble,
    &Optimus,
];

/// The schedule of that name.
///
/// ```
/// let schedule = dip_sched::schedule_by_name("1f1b").unwrap();
/// assert_eq!(schedule.name(), "1f1b");
/// assert!(dip_sched::schedule_by_name("2f2b").is_none());
/// ```
pub fn schedule_by_name(name: &str) -> Option<Box<dyn Schedule>> {
    Some(match name {
        "dip" => Box::new(Dip),
        "exact" => Box::new(Exact),
        "dip-mcts" => Box::new(Reordered::Mcts),
        "dip-local" => Box::new(Reordered::Local),
        "dip-random" => Box::new(Reordered::Random),
        "dip-dfs" => Box::new(Reordered::DepthFirst),
        "gpipe" => Box::new(GPipe),
        "1f1b" => Box::new(OneFOneB),
        "interleaved" => Box::new(Interleaved),
        "zero_bubble" => Box::new(ZeroBubble),
        "optimus" => Box::new(Optimus),
        _ => return None,
    })
}

/// Names of all schedules, the default first.
pub fn names() -> impl Iterator<Item = &'static str> {
    SCHEDULES.iter().map(|schedule| schedule.name())
}

/// Name and one-line description of all schedules, the default first.
pub fn descriptions() -> impl Iterator<Item = (&'static str, &'static str)> {
    SCHEDULES.iter().map(|schedule| (schedule.name(), schedule.description()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_schedule_is_there_under_its_own_name() {
        for name in names() {
            let schedule = schedule_by_name(name).unwrap_or_else(|| panic!("{name} is missing"));
            assert_eq!(schedule.name(), name);
        }
    }
}
