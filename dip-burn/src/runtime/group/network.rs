//! Latency and bandwidth between the processes of a run, measured by messages that go to and fro.

use std::time::{Duration, Instant};

use dip_core::{RankId, Seconds};
use serde::{Deserialize, Serialize};

use super::{GroupError, Position, ProcessGrid, ProcessGroup};

/// Most processes of which all pairs are measured. Of more, neighbours are: the number of pairs would grow with the square.
const MAX_ALL_PAIRS: usize = 16;
/// Empty messages that go to and fro; their median counts.
const ROUND_TRIPS: usize = 15;
/// The first and the longest message whose time counts for the bandwidth, in bytes.
const SIZES: [usize; 2] = [64 << 10, 16 << 20];
/// A message that takes so long is long enough.
const LONG: Duration = Duration::from_millis(40);

/// The time of a message between two processes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LinkTime {
    /// Time of an empty message.
    pub latency: Seconds,
    /// Bytes per second of a long message.
    pub bytes_per_s: f64,
}

/// The links between the processes of a run that were measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// The machine of each process.
    hosts: Vec<String>,
    /// Two processes, the lower number first, and their link.
    links: Vec<(usize, usize, LinkTime)>,
}

impl LinkTime {
    fn slower(self, other: Self) -> Self {
        Self {
            latency: self.latency.max(other.latency),
            bytes_per_s: self.bytes_per_s.min(other.bytes_per_s),
        }
    }
}

impl Network {
    /// True if it was measured on these machines.
    pub fn is_of(&self, group: &dyn ProcessGroup) -> bool {
        let hosts = (0..group.size()).map(|process| group.host(process));
        hosts.eq(self.hosts.iter().cloned())
    }

    /// The link between two processes: as measured, or the slowest between two machines, or within one, as these two are.
    fn link(&self, a: usize, b: usize) -> Option<LinkTime> {
        let pair = (a.min(b), a.max(b));
        let measured = self.links.iter().find(|(x, y, _)| (*x, *y) == pair);
        if let Some((_, _, link)) = measured {
            return Some(*link);
        }
        let is_one = |x: usize, y: usize| self.hosts.get(x) == self.hosts.get(y);
        let alike = self.links.iter().filter(|(x, y, _)| is_one(*x, *y) == is_one(a, b));
        alike.map(|(_, _, link)| *link).reduce(LinkTime::slower)
    }

    /// For each rank the link to each other rank of its replica, the slowest of all replicas; `None` where both are in one process.
    pub fn of_ranks(&self, grid: &ProcessGrid) -> Vec<Vec<Option<LinkTime>>> {
        let host = |replica, rank: usize| grid.host(Position { replica, rank: RankId::from(rank) });
        let link = |from, to| {
            let hosts = (0..grid.replicas()).map(|r| (host(r, from), host(r, to)));
            let links = hosts.filter(|(a, b)| a != b).filter_map(|(a, b)| self.link(a, b));
            links.reduce(LinkTime::slower)
        };
        let row = |from| (0..grid.ranks()).map(|to| link(from, to)).collect();
        (0..grid.ranks()).map(row).collect()
    }
}

impl dyn ProcessGroup + '_ {
    /// Measures the links between the processes. All processes must call it, and get the same result.
    ///
    /// # Errors
    /// [`GroupError`] if a process has ended.
    pub fn measure_network(&self) -> Result<Network, GroupError> {
        let mut own = Vec::new();
        for round in rounds(self.size()) {
            let pair = round.iter().find(|(a, b)| [*a, *b].contains(&self.index()));
            match pair {
                Some(&(a, b)) if a == self.index() => own.push((a, b, self.measure_link(b)?)),
                Some(&(a, _)) => self.answer(a)?,
                None => {}
            }
        }
        let own = serde_json::to_vec(&own).expect("plain data has a JSON form");
        let mut links: Vec<(usize, usize, LinkTime)> = Vec::new();
        for (process, bytes) in self.all_gather(own)?.iter().enumerate() {
            let read = serde_json::from_slice::<Vec<(usize, usize, LinkTime)>>(bytes);
            links.extend(read.map_err(|error| GroupError::Gone {
                process,
                host: self.host(process),
                what: format!("has sent times of links that cannot be read: {error}"),
            })?);
        }
        links.sort_by_key(|(a, b, _)| (*a, *b));
        Ok(Network { hosts: (0..self.size()).map(|process| self.host(process)).collect(), links })
    }

    /// Sends messages to a process that answers each, and then an empty one.
    fn measure_link(&self, to: usize) -> Result<LinkTime, GroupError> {
        let round_trip = |bytes: usize| -> Result<Duration, GroupError> {
            let message = vec![1; bytes];
            let begin = Instant::now();
            self.send(to, message);
            self.receive(to)?;
            Ok(begin.elapsed())
        };
        let mut trips = (0..ROUND_TRIPS).map(|_| round_trip(1)).collect::<Result<Vec<_>, _>>()?;
        trips.sort_unstable();
        let round = trips[ROUND_TRIPS / 2];
        let mut bytes = SIZES[0];
        let long = loop {
            // The first of a size warms up.
            let long = round_trip(bytes)?.min(round_trip(bytes)?);
            if long >= LONG || bytes >= SIZES[1] {
                break long;
            }
            bytes *= 4;
        };
        self.send(to, Vec::new());
        let seconds = long.saturating_sub(round).max(Duration::from_nanos(1)).as_secs_f64();
        let latency = Seconds(round.as_secs_f64() / 2.0);
        Ok(LinkTime { latency, bytes_per_s: bytes as f64 / seconds })
    }

    /// Answers the messages of a process until an empty one comes.
    fn answer(&self, from: usize) -> Result<(), GroupError> {
        while !self.receive(from)?.is_empty() {
            self.send(from, vec![1]);
        }
        Ok(())
    }
}

/// Rounds of pairs of processes. No process is in two pairs of a round, so that pairs do not disturb each other.
fn rounds(size: usize) -> Vec<Vec<(usize, usize)>> {
    let ordered = |(a, b): (usize, usize)| (a.min(b), a.max(b));
    if size > MAX_ALL_PAIRS {
        let neighbours = |first| (first..size - 1).step_by(2).map(|a| (a, a + 1)).collect();
        return vec![neighbours(0), neighbours(1), vec![(0, size - 1)]];
    }
    // The circle method: one place stays, the others turn.
    let places = size + size % 2;
    let pair = |round: usize, k: usize| match k {
        0 => (round, places - 1),
        _ => ((round + k) % (places - 1), (round + places - 1 - k) % (places - 1)),
    };
    let round = |round| {
        let pairs = (0..places / 2).map(|k| ordered(pair(round, k)));
        pairs.filter(|&(_, b)| b < size).collect()
    };
    (0..places.saturating_sub(1)).map(round).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::group::ProcessPlacement;

    #[test]
    fn every_pair_meets_once_and_no_process_is_in_two_pairs_at_once() {
        for size in 1..=MAX_ALL_PAIRS {
            let mut met = std::collections::BTreeSet::new();
            for round in rounds(size) {
                let mut busy = std::collections::BTreeSet::new();
                for (a, b) in round {
                    assert!(a < b && b < size && busy.insert(a) && busy.insert(b), "{size}");
                    assert!(met.insert((a, b)), "{size}: {a} and {b} meet twice");
                }
            }
            assert_eq!(met.len(), size * (size - 1) / 2, "{size}");
        }
        let many: Vec<_> = rounds(100).concat();
        assert_eq!(many.len(), 100);
    }

    #[test]
    fn ranks_have_the_slowest_link_of_all_replicas_and_none_within_a_process() {
        let link = |milliseconds: f64| LinkTime {
            latency: Seconds(1e-3 * milliseconds),
            bytes_per_s: 1e9 / milliseconds,
        };
        let hosts = ["a", "a", "b", "b"].map(String::from).to_vec();
        let network = Network { hosts, links: vec![(0, 1, link(1.0)), (1, 2, link(5.0))] };
        let grid = ProcessGrid::new(4, 1, 2, ProcessPlacement::RanksFirst).unwrap();
        let ranks = network.of_ranks(&grid);
        assert_eq!((ranks[0][1], ranks[1][2]), (None, Some(link(1.0))));
        let grid = ProcessGrid::new(2, 2, 4, ProcessPlacement::RanksFirst).unwrap();
        // Replica 1 is on processes 2 and 3 of one machine, whose link is like that of processes 0 and 1.
        assert_eq!(network.of_ranks(&grid)[0][1], Some(link(1.0)));
        let grid = ProcessGrid::new(4, 1, 4, ProcessPlacement::RanksFirst).unwrap();
        assert_eq!(network.of_ranks(&grid)[0][3], Some(link(5.0)));
    }
}
