//! The schedules of this crate by name.

use dip_core::Schedule;

use super::{
    Dip, DualPipeV, Exact, GPipe, Interleaved, OneFOneB, Optimus, Reordered, VHalf, VMin, Zbv,
    ZeroBubble,
};

/// A row of the registry: a name and the constructor of its schedule.
type Row = (&'static str, fn() -> Box<dyn Schedule>);

/// All schedules, the default first.
const SCHEDULES: &[Row] = &[
    ("dip", || Box::new(Dip)),
    ("exact", || Box::new(Exact)),
    ("dip-mcts", || Box::new(Reordered::Mcts)),
    ("dip-local", || Box::new(Reordered::Local)),
    ("dip-random", || Box::new(Reordered::Random)),
    ("dip-dfs", || Box::new(Reordered::DepthFirst)),
    ("gpipe", || Box::new(GPipe)),
    ("1f1b", || Box::new(OneFOneB)),
    ("interleaved", || Box::new(Interleaved)),
    ("zero_bubble", || Box::new(ZeroBubble)),
    ("zbv", || Box::new(Zbv)),
    ("v_half", || Box::new(VHalf)),
    ("v_min", || Box::new(VMin)),
    ("dualpipe_v", || Box::new(DualPipeV)),
    ("optimus", || Box::new(Optimus)),
];

/// Returns the schedule with this name, or `None` if there is none.
///
/// ```
/// let schedule = dip_sched::schedule_by_name("1f1b").unwrap();
/// assert_eq!(schedule.name(), "1f1b");
/// assert!(dip_sched::schedule_by_name("2f2b").is_none());
/// ```
pub fn schedule_by_name(name: &str) -> Option<Box<dyn Schedule>> {
    SCHEDULES.iter().find(|row| row.0 == name).map(|row| row.1())
}

/// The names of all schedules, the default first.
pub fn schedule_names() -> impl Iterator<Item = &'static str> {
    SCHEDULES.iter().map(|row| row.0)
}

/// All schedules, the default first.
pub fn schedules() -> impl Iterator<Item = Box<dyn Schedule>> {
    SCHEDULES.iter().map(|row| row.1())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schedule_has_the_name_of_its_row_and_a_description() {
        for (name, schedule) in schedule_names().zip(schedules()) {
            assert_eq!(schedule.name(), name);
            assert!(!schedule.description().is_empty(), "{name}");
        }
    }
}
