//! The place of every rank of every replica among the processes of a run.

use std::ops::Range;

use dip_core::{FieldError, RankId};
use serde::{Deserialize, Serialize};

/// Most ranks of a process, each with a thread.
const MAX_HOSTED: usize = 1024;

/// Which ranks share a process, or are on neighbouring processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProcessPlacement {
    /// The ranks of one replica are neighbours: activations take the shortest way.
    #[default]
    RanksFirst,
    /// The replicas of one rank are neighbours: gradients take the shortest way.
    ReplicasFirst,
}

/// One rank of one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The replica, counted over all processes.
    pub replica: usize,
    /// The pipeline rank.
    pub rank: RankId,
}

/// The positions of a run, each on one process. Processes host consecutive positions, as evenly as possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessGrid {
    ranks: usize,
    replicas: usize,
    processes: usize,
    placement: ProcessPlacement,
}

impl ProcessGrid {
    /// All ranks of all replicas on one process.
    pub fn single(ranks: usize, replicas: usize) -> Self {
        Self { ranks, replicas, processes: 1, placement: ProcessPlacement::RanksFirst }
    }

    /// `ranks` ranks of each of `replicas` replicas on `processes` processes.
    ///
    /// # Errors
    /// [`FieldError`] if a process would have no rank, or more than 1024.
    pub fn new(
        ranks: usize,
        replicas: usize,
        processes: usize,
        placement: ProcessPlacement,
    ) -> Result<Self, FieldError> {
        let most = ranks.saturating_mul(replicas);
        let remedy = "start fewer processes, or raise pipeline.ranks or pipeline.replicas";
        FieldError::check_range("the number of processes", processes, 1..=most.max(1), remedy)?;
        let each = most.div_ceil(processes);
        let remedy = "start more processes: each rank is a thread of its process";
        FieldError::check_range("the number of ranks in a process", each, 0..=MAX_HOSTED, remedy)?;
        Ok(Self { ranks, replicas, processes, placement })
    }

    /// Ranks of a replica.
    pub fn ranks(&self) -> usize {
        self.ranks
    }

    /// Replicas of the run.
    pub fn replicas(&self) -> usize {
        self.replicas
    }

    /// Processes of the run.
    pub fn processes(&self) -> usize {
        self.processes
    }

    /// The number of a position: replica by replica, rank by rank.
    pub fn number(&self, position: Position) -> usize {
        position.replica * self.ranks + position.rank.index()
    }

    /// The position of a number.
    pub fn position(&self, number: usize) -> Position {
        Position { replica: number / self.ranks, rank: RankId::from(number % self.ranks) }
    }

    /// The process of a position.
    pub fn host(&self, position: Position) -> usize {
        let Position { replica, rank } = position;
        let place = match self.placement {
            ProcessPlacement::RanksFirst => replica * self.ranks + rank.index(),
            ProcessPlacement::ReplicasFirst => rank.index() * self.replicas + replica,
        };
        let (count, processes) = (self.ranks * self.replicas, self.processes);
        // The first `count % processes` processes host one more.
        let (each, more) = (count / processes, count % processes);
        match place.checked_sub(more * (each + 1)) {
            Some(rest) => more + rest / each,
            None => place / (each + 1),
        }
    }

    /// The positions of a process, in the order of their numbers.
    pub fn hosted(&self, process: usize) -> Vec<Position> {
        let (count, processes) = (self.ranks * self.replicas, self.processes);
        let (each, more) = (count / processes, count % processes);
        let first = |process: usize| process * each + process.min(more);
        let at = |place| match self.placement {
            ProcessPlacement::RanksFirst => self.position(place),
            ProcessPlacement::ReplicasFirst => {
                let (rank, replica) = (place / self.replicas, place % self.replicas);
                Position { replica, rank: RankId::from(rank) }
            }
        };
        let mut positions: Vec<_> = (first(process)..first(process + 1)).map(at).collect();
        positions.sort_unstable();
        positions
    }

    /// The replicas of which a process hosts at least one rank, in order.
    pub fn hosted_replicas(&self, process: usize) -> Vec<usize> {
        let mut replicas: Vec<usize> = self.hosted(process).iter().map(|p| p.replica).collect();
        replicas.dedup();
        replicas
    }

    /// The process that plans for a replica: the host of its first rank.
    pub fn leader(&self, replica: usize) -> usize {
        self.host(Position { replica, rank: RankId(0) })
    }

    /// The processes that host ranks of a replica, in order.
    pub fn hosts_of_replica(&self, replica: usize) -> Vec<usize> {
        let ranks = (0..self.ranks).map(RankId::from);
        sorted(ranks.map(|rank| self.host(Position { replica, rank })).collect())
    }

    /// The processes that host replicas of a rank, in order, each with its replicas.
    pub fn hosts_of_rank(&self, rank: RankId) -> Vec<(usize, Range<usize>)> {
        let mut hosts: Vec<(usize, Range<usize>)> = Vec::new();
        for replica in 0..self.replicas {
            let host = self.host(Position { replica, rank });
            match hosts.last_mut() {
                Some((last, replicas)) if *last == host => replicas.end = replica + 1,
                _ => hosts.push((host, replica..replica + 1)),
            }
        }
        hosts
    }
}

fn sorted(mut processes: Vec<usize>) -> Vec<usize> {
    processes.sort_unstable();
    processes.dedup();
    processes
}

#[cfg(test)]
mod tests {
    use super::*;
    use ProcessPlacement::{RanksFirst, ReplicasFirst};

    #[test]
    fn every_position_has_one_host_and_every_process_about_as_many() {
        for placement in [RanksFirst, ReplicasFirst] {
            for (ranks, replicas) in [(1, 1), (4, 1), (3, 2), (5, 3), (2, 8)] {
                for processes in 1..=ranks * replicas {
                    let grid = ProcessGrid::new(ranks, replicas, processes, placement).unwrap();
                    let hosted: Vec<_> = (0..processes).map(|p| grid.hosted(p)).collect();
                    for (process, positions) in hosted.iter().enumerate() {
                        assert!(positions.is_sorted(), "{grid:?}");
                        let on = |p: &Position| grid.host(*p) == process;
                        assert!(positions.iter().all(on), "{grid:?}");
                    }
                    let counts: Vec<usize> = hosted.iter().map(Vec::len).collect();
                    assert_eq!(counts.iter().sum::<usize>(), ranks * replicas, "{grid:?}");
                    let (least, most) = (counts.iter().min(), counts.iter().max());
                    assert!(most.unwrap() - least.unwrap() <= 1, "{counts:?}");
                    for rank in (0..ranks).map(RankId::from) {
                        let hosts = grid.hosts_of_rank(rank);
                        let all: Vec<usize> = hosts.iter().flat_map(|(_, r)| r.clone()).collect();
                        assert_eq!(all, (0..replicas).collect::<Vec<_>>(), "{grid:?}");
                    }
                }
            }
        }
        let error = ProcessGrid::new(2, 1, 3, RanksFirst).unwrap_err().to_string();
        assert!(error.contains("the number of processes is 3"), "{error}");
        assert!(ProcessGrid::new(64, 1024, 64, RanksFirst).is_ok());
        let error = ProcessGrid::new(64, 1024, 63, RanksFirst).unwrap_err().to_string();
        assert!(error.contains("the number of ranks in a process is 1041"), "{error}");
    }

    #[test]
    fn neighbours_are_ranks_or_replicas() {
        let hosts = |placement| {
            let grid = ProcessGrid::new(2, 2, 2, placement).unwrap();
            (0..4).map(|number| grid.host(grid.position(number))).collect::<Vec<_>>()
        };
        assert_eq!(hosts(RanksFirst), [0, 0, 1, 1]);
        assert_eq!(hosts(ReplicasFirst), [0, 1, 0, 1]);
        let grid = ProcessGrid::new(2, 3, 2, RanksFirst).unwrap();
        assert_eq!(grid.hosted_replicas(0), [0, 1]);
        assert_eq!(grid.hosts_of_replica(1), [0, 1]);
        assert_eq!((grid.leader(1), grid.leader(2)), (0, 1));
        assert_eq!(grid.hosts_of_rank(RankId(0)), [(0, 0..2), (1, 2..3)]);
    }
}
