//! A large step away from an order: its disturbed start times become the keys of dual-queue interleaving.
//!
//! Under tight memory, whole microbatches have to change places on all ranks at once. Single moves cannot do that. The interleaving
//! turns any keys into a complete order within memory.

use dip_core::TaskKind;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::ordering::{
    Interleaver, QueueRule, Reserve, Rules, RunSettings, sequence_by, sequence_of,
};
use crate::problem::{Choice, Problem, Solution, TaskCosts, evaluate};
use crate::search::level::{Level, Unfit};
use crate::search::strategies::upgrade;

/// The share by which the next order may be longer. Each call draws one of these.
const SLACKS: [f64; 3] = [1e-9, 0.005, 0.02];

/// Rebuilds orders. Keep one per thread.
pub(super) struct Rebuild<'a> {
    problem: &'a Problem,
    interleaver: Interleaver<'a>,
    keys: Vec<f64>,
    microbatches: u32,
    /// The number of tries per witness.
    tries_of_witness: u32,
}

impl<'a> Rebuild<'a> {
    pub(super) fn new(problem: &'a Problem) -> Self {
        Self {
            problem,
            interleaver: Interleaver::new(problem),
            keys: vec![0.0; problem.n],
            microbatches: problem.microbatches().max(1) as u32,
            tries_of_witness: if problem.n < 1000 { 1 } else { 8 },
        }
    }

    /// Walks from order to order, each not much longer than the previous one. Returns the best order except `from`.
    pub(super) fn rebuild(
        &mut self,
        from: &Solution,
        tries: u32,
        rng: &mut ChaCha8Rng,
    ) -> Option<Solution> {
        let problem = self.problem;
        let costs = problem.costs(&from.choice);
        let mut start = evaluate::starts(problem, &costs.dur, &from.order)?;
        let own = sequence_of(problem, &from.order);
        let mut level = Level::new(problem, from.choice.clone(), costs, &own);
        let mut current_s = from.makespan;
        let slack = 1.0 + SLACKS[rng.random_range(0..SLACKS.len())];
        let varied = problem.has_choice && rng.random_range(0..4) == 0;
        let mut best: Option<Solution> = None;
        for i in 0..tries {
            self.keys.copy_from_slice(&start);
            self.disturb(current_s, rng);
            let mut other = None;
            if i.is_multiple_of(self.tries_of_witness) {
                match self.renew_witness(&mut level, varied, rng) {
                    Ok(level) => other = level,
                    Err(Unfit) => continue,
                }
            }
            let rules = draw_rules(rng);
            let cutoff_s = if best.is_some() { current_s * slack } else { f64::INFINITY };
            let tried = other.as_mut().unwrap_or(&mut level);
            let settings = RunSettings { rules, tail: &tried.tail, cutoff_s };
            let run = self.interleaver.run(&tried.costs, &mut tried.reserve, &self.keys, settings);
            let Some(makespan) = run else { continue };
            let order = self.interleaver.order();
            let accepted = makespan < current_s * slack;
            if accepted {
                start = evaluate::starts(problem, &tried.costs.dur, &order)?;
                current_s = makespan;
            }
            if best.as_ref().is_none_or(|b| makespan < b.makespan) {
                best = Some(Solution { order, choice: tried.choice.clone(), makespan });
            }
            if let (true, Some(other)) = (accepted, other) {
                level = other;
            }
        }
        if let Some(best) = &mut best {
            upgrade(problem, best, &mut || false);
        }
        best
    }

    /// Reserves memory in the order of the disturbed keys. If `varied`, this is for other strategies most of the time, and the new
    /// level is returned; otherwise it is for the strategies of `level`.
    fn renew_witness(
        &self,
        level: &mut Level,
        varied: bool,
        rng: &mut ChaCha8Rng,
    ) -> Result<Option<Level>, Unfit> {
        let problem = self.problem;
        if varied && rng.random_range(0..3) > 0 {
            let choice = self.other_choice(&level.choice, rng);
            let costs = problem.costs(&choice);
            let witness = self.witness(&costs).ok_or(Unfit)?;
            return Ok(Some(Level::new(problem, choice, costs, &witness)));
        }
        if let Some(witness) = self.witness(&level.costs) {
            level.reserve = Reserve::new(problem, &level.costs, &witness);
        }
        Ok(None)
    }

    /// Draws some strategies again, on one rank or on all.
    fn other_choice(&self, from: &Choice, rng: &mut ChaCha8Rng) -> Choice {
        let problem = self.problem;
        let mut choice = from.clone();
        let rank = rng.random_range(0..2 * problem.ranks as u32);
        let share = [0.02, 0.1, 0.3][rng.random_range(0..3)];
        for (p, pair) in problem.pairs.iter().enumerate() {
            let here = rank >= problem.ranks as u32 || problem.rank[pair.forward.index()] == rank;
            if here && rng.random_bool(share) {
                choice[p] = rng.random_range(0..problem.strategies[p].len()) as u16;
            }
        }
        choice
    }

    /// A witness that takes slices, or whole microbatches, in the order of the keys. Under tight memory the result follows the
    /// witness.
    fn witness(&self, costs: &TaskCosts) -> Option<Vec<u32>> {
        let problem = self.problem;
        let by = |set: &[u32], sets: usize| {
            let mut first = vec![f64::INFINITY; sets];
            for t in 0..problem.n {
                let key = &mut first[set[t] as usize];
                *key = key.min(self.keys[t]);
            }
            let keys: Vec<f64> = set.iter().map(|&s| first[s as usize]).collect();
            sequence_by(problem, costs, &keys)
        };
        by(&problem.slice, problem.slices)
            .or_else(|| by(&problem.microbatch, self.microbatches as usize))
    }

    /// Changes the keys of one microbatch, segment group, slice or chunk, or exchanges two of these: all of their tasks, those of one
    /// kind, or those on one rank. One call in four changes the keys of all tasks a little instead.
    fn disturb(&mut self, makespan: f64, rng: &mut ChaCha8Rng) {
        let problem = self.problem;
        let pitch = makespan / f64::from(self.microbatches);
        if rng.random_range(0..4) == 0 {
            let by = pitch * rng.random_range(0.05..0.8);
            self.keys.iter_mut().for_each(|key| *key += rng.random_range(-by..by));
            return;
        }
        let (set, sets) = match rng.random_range(0..4) {
            0 => (&problem.microbatch, self.microbatches),
            1 => (&problem.group, problem.groups as u32),
            2 => (&problem.slice, problem.slices as u32),
            _ => (&problem.chunk, problem.chunks as u32),
        };
        let a = rng.random_range(0..sets);
        // Half of the steps move whole sets, a quarter one kind of task, a quarter one rank.
        let (part, rank) = (rng.random_range(0..4u32), rng.random_range(0..problem.ranks as u32));
        let forward = rng.random_bool(0.5);
        let chosen = |t: usize| match part {
            0 => (problem.kind[t] == TaskKind::Forward) == forward,
            1 => problem.rank[t] == rank,
            _ => true,
        };
        if rng.random_bool(0.5) {
            let by = pitch * rng.random_range(-2.0..2.0);
            for t in (0..problem.n).filter(|&t| set[t] == a && chosen(t)) {
                self.keys[t] += by;
            }
        } else {
            let b = rng.random_range(0..sets);
            let first = |set_of: u32| {
                let own = (0..problem.n).filter(|&t| set[t] == set_of && chosen(t));
                own.map(|t| self.keys[t]).fold(f64::INFINITY, f64::min)
            };
            let by = first(b) - first(a);
            if !by.is_finite() {
                return;
            }
            for t in (0..problem.n).filter(|&t| chosen(t)) {
                if set[t] == a {
                    self.keys[t] += by;
                } else if set[t] == b {
                    self.keys[t] -= by;
                }
            }
        }
    }
}

/// Random rules for one run.
fn draw_rules(rng: &mut ChaCha8Rng) -> Rules {
    let queue_rules = [
        QueueRule::Single,
        QueueRule::SingleWithWeights,
        QueueRule::Alternate,
        QueueRule::BackwardFirst,
    ];
    let patience = [0.0, 0.25, 0.5, 1.0];
    Rules {
        queue_rule: queue_rules[rng.random_range(0..queue_rules.len())],
        patience: patience[rng.random_range(0..patience.len())],
        weight_patience: patience[rng.random_range(0..patience.len())],
        ..Rules::default()
    }
}
