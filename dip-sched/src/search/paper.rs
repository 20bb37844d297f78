//! The paper's search: a reorderer proposes sequences of segment groups, dual-queue interleaving makes orders of them under the
//! smallest strategies, and faster strategies are taken wherever they fit.

use dip_core::ScheduleError;
use rayon::prelude::*;

use super::upgrade::upgrade;
use super::{Reorder, Search};
use crate::finish::Solution;
use crate::interleave::{Interleaver, Rules};

impl Search<'_> {
    /// Runs a reorderer until the budget ends.
    ///
    /// # Errors
    /// [`ScheduleError::NotApplicable`] where the threads cannot be started.
    pub(crate) fn run_paper(
        mut self,
        reorder: &mut dyn Reorder,
    ) -> Result<Solution, ScheduleError> {
        self.threads()?.install(|| {
            let mut round = 0;
            while !self.ended() {
                let mut rng = self.rng(3, round);
                let sequences = reorder.propose(&mut rng);
                let found = self.interleave(&sequences);
                let seconds: Vec<f64> = found.iter().map(|s| s.makespan).collect();
                reorder.learn(&seconds);
                self.iteration += sequences.len() as u64;
                for solution in found {
                    self.keep(Some(solution));
                }
                round += 1;
            }
        });
        Ok(self.best)
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
