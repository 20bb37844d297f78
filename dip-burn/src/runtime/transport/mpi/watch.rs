//! Signs of life between neighbours. The processes form a ring: each one watches the one before it and the one after it, so that the
//! traffic does not grow with their number.

use std::time::{Duration, Instant};

/// Time between two signs of life.
const BEAT: Duration = Duration::from_millis(500);
/// How long a neighbour may be silent. Its MPI thread answers even while its ranks compute.
pub(super) const SILENCE: Duration = Duration::from_secs(5);
/// If this process itself was stopped for so long, it has heard nothing because it did not listen.
const OWN_PAUSE: Duration = Duration::from_secs(1);

/// The neighbours of a process.
pub(super) struct Watch {
    neighbours: Vec<(usize, Instant)>,
    beat: Instant,
    looked: Instant,
}

impl Watch {
    pub fn new(index: usize, size: usize) -> Self {
        let now = Instant::now();
        let mut neighbours = vec![(index + 1) % size, (index + size - 1) % size];
        neighbours.dedup();
        neighbours.retain(|&process| process != index);
        let neighbours = neighbours.into_iter().map(|process| (process, now)).collect();
        Self { neighbours, beat: now, looked: now }
    }

    /// The neighbours.
    pub fn neighbours(&self) -> Vec<usize> {
        self.neighbours.iter().map(|(process, _)| *process).collect()
    }

    /// Notes that a process lives.
    pub fn hear(&mut self, from: usize, now: Instant) {
        let neighbour = self.neighbours.iter_mut().find(|(process, _)| *process == from);
        if let Some((_, heard)) = neighbour {
            *heard = now;
        }
    }

    /// Stops to watch a process that has ended.
    pub fn forget(&mut self, process: usize) {
        self.neighbours.retain(|(neighbour, _)| *neighbour != process);
    }

    /// True if the next sign of life is due.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let is_due = now.duration_since(self.beat) >= BEAT;
        if is_due {
            self.beat = now;
        }
        is_due
    }

    /// A neighbour that has been silent for too long.
    pub fn silent(&mut self, now: Instant) -> Option<usize> {
        if now.duration_since(std::mem::replace(&mut self.looked, now)) > OWN_PAUSE {
            self.neighbours.iter_mut().for_each(|(_, heard)| *heard = now);
        }
        let is_silent = |(_, heard): &&(usize, Instant)| now.duration_since(*heard) > SILENCE;
        self.neighbours.iter().find(is_silent).map(|(process, _)| *process)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_process_watches_its_neighbours_in_the_ring() {
        let neighbours = |index, size| Watch::new(index, size).neighbours();
        assert_eq!(neighbours(0, 1), [] as [usize; 0]);
        assert_eq!(neighbours(1, 2), [0]);
        assert_eq!(neighbours(0, 5), [1, 4]);
        assert_eq!(neighbours(4, 5), [0, 3]);
    }

    #[test]
    fn a_silent_neighbour_is_found_but_not_after_a_pause_of_this_process() {
        let mut watch = Watch::new(0, 3);
        let begin = watch.looked;
        let at = |seconds: f64| begin + Duration::from_secs_f64(seconds);
        for tenth in 0..40 {
            watch.hear(2, at(0.1 * f64::from(tenth)));
            assert_eq!(watch.silent(at(0.1 * f64::from(tenth))), None);
        }
        let mut paused = Watch { neighbours: watch.neighbours.clone(), ..watch };
        assert_eq!(paused.silent(at(9.0)), None);
        for tenth in 0..60 {
            if let Some(process) = paused.silent(at(9.0 + 0.1 * f64::from(tenth))) {
                assert!((50..=52).contains(&tenth) && process == 1, "{process} after {tenth}");
                return;
            }
        }
        panic!("nobody is missed");
    }
}
