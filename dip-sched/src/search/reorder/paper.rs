//! The paper's search: a reorderer proposes sequences of segment groups, dual-queue interleaving makes orders of them under the
//! smallest strategies, and faster strategies are taken wherever they fit.

use dip_core::ScheduleError;
use rayon::prelude::*;

use super::{Mcts, Reorder};
use crate::ordering::{Interleaver, Rules};
use crate::problem::Solution;
use crate::search::Search;
use crate::search::strategies::upgrade;

/// Part of the time left for a sample of the paper's search.
const SHARE: f64 = 0.2;
/// Sequences of one round of the tree search, about.
const SEQUENCES: u64 = 10;
/// How much longer than the best so far the order of the batch may come out, so that a sample can pay.
const FAR: f64 = 1.1;

impl Search<'_> {
    /// Runs a reorderer until the budget ends.
    ///
    /// # Errors
    /// [`ScheduleError::NotApplicable`] where the threads cannot be started.
    pub(crate) fn run_paper(
        mut self,
        reorder: &mut dyn Reorder,
    ) -> Result<Solution, ScheduleError> {
        let mut round = 0;
        self.threads()?.install(|| {
            while !self.ended() {
                self.propose(reorder, &mut round);
            }
        });
        Ok(self.best)
    }

    /// The paper's tree search for a small part of the budget, where its orders are not far behind: it interleaves under the
    /// smallest strategies, which misleads it where those are slow.
    pub(in crate::search) fn sample_paper(&mut self) {
        let in_turn = self.interleave(&[(0..self.problem.groups as u32).collect()]);
        if in_turn.iter().all(|s| s.makespan > FAR * self.best.makespan) {
            return;
        }
        let mut reorder = Mcts::new(self.problem.groups);
        let mut round = 0;
        let until = self.spent() + SHARE * (1.0 - self.spent()).max(0.0);
        let most = self.iterations_left().map_or(u64::MAX, |left| left / 20 / SEQUENCES);
        while round < most && !self.out_of_time(until) && !self.ended() {
            self.propose(&mut reorder, &mut round);
        }
    }

    /// One round of sequences.
    fn propose(&mut self, reorder: &mut dyn Reorder, round: &mut u64) {
        let mut rng = self.rng(3, *round);
        let sequences = reorder.propose(&mut rng);
        let found = self.interleave(&sequences);
        let seconds: Vec<f64> = found.iter().map(|s| s.makespan).collect();
        reorder.learn(&seconds);
        self.iteration += sequences.len() as u64;
        for solution in found {
            self.keep(Some(solution));
        }
        *round += 1;
    }

    /// Phases 2 and 3 for every sequence.
    fn interleave(&self, sequences: &[Vec<u32>]) -> Vec<Solution> {
        let problem = self.problem;
        let level = &self.levels[self.levels.len() - 1];
        let machine = || (Interleaver::new(problem), level.reserve.clone(), vec![0.0; problem.n]);
        let run = |(interleaver, reserve, keys): &mut (Interleaver<'_>, _, Vec<f64>),
                   sequence: &Vec<u32>| {
            let mut turn = vec![0.0; problem.groups];
            for (i, &group) in sequence.iter().enumerate() {
                turn[group as usize] = i as f64;
            }
            // Inside a group, tasks go in the order of their dependencies.
            for (i, &t) in problem.topo.iter().enumerate() {
                keys[t as usize] =
                    turn[problem.group[t as usize] as usize] + i as f64 / problem.n as f64;
            }
            let settings = (&Rules::default(), &level.tail[..], f64::INFINITY);
            let makespan = interleaver.run(&level.costs, reserve, keys, settings);
            let mut solution = Solution {
                order: interleaver.order(),
                choice: level.choice.clone(),
                makespan: makespan.unwrap_or(f64::INFINITY),
            };
            upgrade(problem, &mut solution);
            solution
        };
        sequences.par_iter().map_init(machine, run).collect()
    }
}
