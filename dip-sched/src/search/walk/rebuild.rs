//! A large step away from an order: its start times, disturbed, become the keys of dual-queue interleaving.
//!
//! Where memory is tight, whole microbatches have to change places on all ranks at once, which no sequence of single moves
//! gets to. The interleaving makes a complete order of any keys, within memory.

use dip_core::TaskKind;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::ordering::Reserve;
use crate::ordering::{Interleaver, Lanes, Rules};
use crate::ordering::{microbatches, sequence_by, sequence_of};
use crate::problem::Solution;
use crate::problem::evaluate;
use crate::problem::{Choice, Costs, Problem};
use crate::search::strategies::upgrade;

/// How much longer the next order of a walk may be, as a part of the makespan.
const SLACK: [f64; 3] = [1e-9, 0.005, 0.02];

/// One choice of strategies with what follows from it.
struct Setting {
    choice: Choice,
    costs: Costs,
    tail: Vec<f64>,
}

impl Setting {
    fn new(problem: &Problem, choice: Choice) -> Self {
        let costs = problem.costs(&choice);
        let tail = problem.tails(&costs.dur);
        Self { choice, costs, tail }
    }
}

/// Rebuilds orders; keep one a thread.
pub(in crate::search) struct Rebuild<'a> {
    problem: &'a Problem,
    interleaver: Interleaver<'a>,
    keys: Vec<f64>,
    microbatches: u32,
    /// Tries after which the witness is made anew.
    tries_of_witness: u32,
}

impl<'a> Rebuild<'a> {
    pub(in crate::search) fn new(problem: &'a Problem) -> Self {
        Self {
            problem,
            interleaver: Interleaver::new(problem),
            keys: vec![0.0; problem.n],
            microbatches: microbatches(problem).max(1),
            tries_of_witness: if problem.n < 1000 { 1 } else { 8 },
        }
    }

    /// Walks from order to order with the strategies of `from`, never much longer than before, and returns the best but `from`.
    pub(in crate::search) fn rebuild(
        &mut self,
        from: &Solution,
        tries: u32,
        rng: &mut ChaCha8Rng,
    ) -> Option<Solution> {
        let problem = self.problem;
        let mut kept = Setting::new(problem, from.choice.clone());
        let mut start = evaluate::starts(problem, &kept.costs.dur, &from.order)?;
        let mut current_s = from.makespan;
        let slack = 1.0 + SLACK[rng.random_range(0..SLACK.len())];
        let varied = problem.has_choice && rng.random_range(0..4) == 0;
        let mut best: Option<Solution> = None;
        let own = sequence_of(problem, &from.order);
        let mut reserve = Some(Reserve::new(problem, &kept.costs, &own));
        for i in 0..tries {
            self.keys.copy_from_slice(&start);
            self.disturb(current_s, rng);
            let mut other = None;
            if i.is_multiple_of(self.tries_of_witness) {
                if varied && rng.random_range(0..3) > 0 {
                    let setting = Setting::new(problem, self.other_choice(&kept.choice, rng));
                    let Some(levels) = self.reserve(&setting.costs) else { continue };
                    other = Some((setting, levels));
                } else {
                    reserve = self.reserve(&kept.costs).or(reserve);
                }
            }
            let rules = draw_rules(rng);
            let cutoff = if best.is_some() { current_s * slack } else { f64::INFINITY };
            let (setting, levels) = match &mut other {
                Some((setting, levels)) => (&*setting, levels),
                None => {
                    let Some(levels) = reserve.as_mut() else { continue };
                    (&kept, levels)
                }
            };
            let run = (&rules, &setting.tail[..], cutoff);
            let run = self.interleaver.run(&setting.costs, levels, &self.keys, run);
            let Some(makespan) = run else { continue };
            let order = self.interleaver.order();
            let accepted = makespan < current_s * slack;
            if accepted {
                start = evaluate::starts(problem, &setting.costs.dur, &order)?;
                current_s = makespan;
            }
            if best.as_ref().is_none_or(|b| makespan < b.makespan) {
                best = Some(Solution { order, choice: setting.choice.clone(), makespan });
            }
            if let (true, Some((setting, levels))) = (accepted, other) {
                (kept, reserve) = (setting, Some(levels));
            }
        }
        if let Some(best) = &mut best {
            upgrade(problem, best);
        }
        best
    }

    /// Mostly the same strategies; some of one rank, or of all, drawn anew.
    fn other_choice(&self, from: &Choice, rng: &mut ChaCha8Rng) -> Choice {
        let problem = self.problem;
        let mut choice = from.clone();
        let rank = rng.random_range(0..2 * problem.ranks as u32);
        let share = [0.02, 0.1, 0.3][rng.random_range(0..3)];
        for (p, pair) in problem.pairs.iter().enumerate() {
            let here = rank >= problem.ranks as u32 || problem.rank[pair.forward.index()] == rank;
            if here && rng.random_bool(share) {
                choice[p] = rng.random_range(0..problem.strands[p].len()) as u16;
            }
        }
        choice
    }

    /// Memory levels of a witness that takes slices, or whole microbatches, in the order of the keys: where memory is tight,
    /// the order of the witness is the order that comes out.
    fn reserve(&self, costs: &Costs) -> Option<Reserve> {
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
        let witness = by(&problem.slice, problem.slices)
            .or_else(|| by(&problem.microbatch, self.microbatches as usize))?;
        Some(Reserve::new(problem, costs, &witness))
    }

    /// Moves keys: those of a microbatch, a segment group or a slice, or of two of these against each other; of all of its
    /// tasks, of one kind or of one rank. Or those of all tasks a little.
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
        // Of four, two move whole sets, one those of one kind, one those of one rank.
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

/// Rules for one run, of every kind.
fn draw_rules(rng: &mut ChaCha8Rng) -> Rules {
    let lanes = [Lanes::Single, Lanes::SingleWithWeights, Lanes::Alternate, Lanes::BackwardFirst];
    let patience = [0.0, 0.25, 0.5, 1.0];
    Rules {
        lanes: lanes[rng.random_range(0..lanes.len())],
        patience: patience[rng.random_range(0..patience.len())],
        weight_patience: patience[rng.random_range(0..patience.len())],
        ..Rules::default()
    }
}
