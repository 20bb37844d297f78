//! The preemptive one-machine bound of Jackson: tasks released at their heads, delivered by their tails.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A task for the one-machine bound.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MachineJob {
    /// Earliest start.
    pub(crate) head: f64,
    /// Duration.
    pub(crate) dur: f64,
    /// Time from its end to the end of everything.
    pub(crate) tail: f64,
}

/// Computes the bound. Its arrays are reused.
#[derive(Debug, Default)]
pub(crate) struct Jackson {
    jobs: Vec<MachineJob>,
    waiting: BinaryHeap<ReleasedJob>,
}

impl Jackson {
    /// The end of Jackson's preemptive schedule, which always runs the released task with the longest tail. No order of the tasks on
    /// one machine ends earlier. The bound is at least (least head + load + least tail) of every subset of tasks.
    pub(crate) fn bound(&mut self, jobs: impl Iterator<Item = MachineJob>) -> f64 {
        self.jobs.clear();
        self.jobs.extend(jobs);
        self.jobs.sort_unstable_by(|a, b| a.head.total_cmp(&b.head));
        let (jobs, waiting) = (&self.jobs, &mut self.waiting);
        let (mut now, mut bound, mut next) = (0.0f64, 0.0f64, 0);
        while next < jobs.len() || !waiting.is_empty() {
            if waiting.is_empty() {
                now = now.max(jobs[next].head);
            }
            while let Some(job) = jobs.get(next).filter(|job| job.head <= now) {
                waiting.push(ReleasedJob { tail: job.tail, left: job.dur });
                next += 1;
            }
            let Some(mut top) = waiting.pop() else { continue };
            let until = jobs.get(next).map_or(f64::INFINITY, |job| job.head);
            if now + top.left <= until {
                now += top.left;
                bound = bound.max(now + top.tail);
            } else {
                top.left -= until - now;
                now = until;
                waiting.push(top);
            }
        }
        bound
    }
}

/// A released task; the longest tail goes first.
#[derive(Debug)]
struct ReleasedJob {
    tail: f64,
    left: f64,
}

impl PartialEq for ReleasedJob {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ReleasedJob {}

impl PartialOrd for ReleasedJob {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ReleasedJob {
    fn cmp(&self, other: &Self) -> Ordering {
        self.tail.total_cmp(&other.tail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_tail_interrupts() {
        let job = |head, dur, tail| MachineJob { head, dur, tail };
        let jobs = [job(0.0, 4.0, 1.0), job(1.0, 2.0, 9.0)];
        assert_eq!(Jackson::default().bound(jobs.into_iter()), 12.0);
    }
}
