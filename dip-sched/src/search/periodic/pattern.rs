//! The pattern of one microbatch: how long it waits on its way, and so the slot of each of its cells.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::template::Template;
use crate::ordering::{QueueRule, Rules};

/// The longest period at the start, as a multiple of the load of the busiest rank.
const LONGEST_PERIOD: f64 = 1.4;
/// Waits before every cell of a class at the start, in units: short waits hold little memory, long ones fill every gap.
const FIRST_WAITS: [f64; 4] = [0.0, 1.0, 2.0, 3.0];

/// A pattern and the turns of the microbatches.
#[derive(Clone)]
pub(super) struct Pattern {
    /// Slots repeat after this many times the load of the busiest rank.
    period: f64,
    /// The wait before each cell of a class, in units of the template.
    wait: Vec<f64>,
    /// The wait of single cells beyond that of their class.
    extra: Vec<f64>,
    /// The turn of each microbatch.
    turn: Vec<u32>,
    /// How gaps are filled.
    pub(super) rules: Rules,
}

impl Pattern {
    /// The start of a chain. Chains spread over periods and over waits: none; on every second class, as V-Half waits on the way
    /// down but not on the way back; or drawn at random.
    pub(super) fn start(
        template: &Template,
        microbatches: usize,
        job: u64,
        rng: &mut ChaCha8Rng,
    ) -> Self {
        let share = (0.618 * job as f64 + rng.random_range(0.0..0.1)).fract();
        let long = FIRST_WAITS[rng.random_range(0..FIRST_WAITS.len())];
        let wait = |class: usize| {
            let (chunk, kind) = (class / 3, class % 3);
            match (job % 3, kind) {
                (_, 2) | (0, _) => 0.0,
                (1, _) if (chunk + kind).is_multiple_of(2) => long,
                (1, _) => (long - 1.0).max(0.0),
                _ => FIRST_WAITS[rng.random_range(0..FIRST_WAITS.len())],
            }
        };
        let rules = Rules { queue_rule: QueueRule::Single, ..Rules::default() };
        Self {
            period: 1.0 + (LONGEST_PERIOD - 1.0) * share * share,
            wait: (0..template.classes).map(wait).collect(),
            extra: vec![0.0; template.cells.len()],
            turn: (0..microbatches as u32).collect(),
            rules,
        }
    }

    /// Writes the key of every task: its slot, and a period for each turn before that of its microbatch.
    pub(super) fn keys(&self, template: &Template, microbatch: &[u32], keys: &mut [f64]) {
        let period_s = self.period * template.busiest_s;
        let slots = self.slots(template, period_s);
        for ((key, &cell), &m) in keys.iter_mut().zip(&template.cell_of).zip(microbatch) {
            *key = slots[cell as usize] + period_s * f64::from(self.turn[m as usize]);
        }
    }

    /// The slot of every cell: the earliest after its wait that is free in every period. A cell for which no gap is long enough
    /// shares a slot; keys only order tasks.
    fn slots(&self, template: &Template, period_s: f64) -> Vec<f64> {
        let mut slots = vec![0.0f64; template.cells.len()];
        let mut busy: Vec<Vec<(f64, f64)>> = vec![Vec::new(); template.ranks];
        for &c in &template.placing {
            let cell = &template.cells[c];
            let arrival = |&(b, comm): &(usize, f64)| slots[b] + template.cells[b].latency_s + comm;
            let ready = cell.before.iter().map(arrival).fold(0.0, f64::max);
            let wait = template.unit_s * (self.wait[cell.class] + self.extra[c]);
            let start = free_from(&busy[cell.rank], period_s, (ready + wait.max(0.0), cell.load_s));
            slots[c] = start;
            busy[cell.rank].push((start.rem_euclid(period_s), cell.load_s));
        }
        slots
    }

    /// Changes up to three waits, turns, rules or the period at random.
    pub(super) fn perturb(&mut self, rng: &mut ChaCha8Rng) {
        for _ in 0..=rng.random_range(0..3) {
            match rng.random_range(0..12) {
                0..5 => {
                    let at = rng.random_range(0..self.wait.len());
                    let by = [0.1, 0.5, 1.0, 3.0][rng.random_range(0..4)];
                    self.wait[at] = (self.wait[at] + rng.random_range(-by..by)).max(0.0);
                }
                5..7 => {
                    let at = rng.random_range(0..self.extra.len());
                    let by = [0.2, 1.0, 4.0][rng.random_range(0..3)];
                    self.extra[at] += rng.random_range(-by..by);
                }
                7..9 => {
                    let by = [0.01, 0.05, 0.2][rng.random_range(0..3)];
                    self.period = (self.period * (1.0 + rng.random_range(-by..by))).clamp(0.8, 4.0);
                }
                9 => {
                    let a = rng.random_range(0..self.turn.len());
                    let b = rng.random_range(0..self.turn.len());
                    self.turn.swap(a, b);
                }
                10 => self.move_turn(rng),
                _ => {
                    let patience = [0.0, 0.25, 0.5, 1.0];
                    let rules = [
                        QueueRule::Single,
                        QueueRule::Single,
                        QueueRule::SingleWithWeights,
                        QueueRule::BackwardFirst,
                    ];
                    self.rules.queue_rule = rules[rng.random_range(0..rules.len())];
                    self.rules.patience = patience[rng.random_range(0..4)];
                    self.rules.weight_patience = patience[rng.random_range(0..4)];
                }
            }
        }
    }

    /// Moves one microbatch to another turn; those in between close up.
    fn move_turn(&mut self, rng: &mut ChaCha8Rng) {
        let m = rng.random_range(0..self.turn.len());
        let (from, to) = (self.turn[m], rng.random_range(0..self.turn.len() as u32));
        for turn in &mut self.turn {
            if from < *turn && *turn <= to {
                *turn -= 1;
            } else if to <= *turn && *turn < from {
                *turn += 1;
            }
        }
        self.turn[m] = to;
    }
}

/// The earliest start at or after `from` of `seconds` that no busy time overlaps in any period; `from` if there is none. Busy times
/// are starts below the period, with their seconds.
fn free_from(busy: &[(f64, f64)], period_s: f64, (from, seconds): (f64, f64)) -> f64 {
    let rounding = 1e-9 * period_s;
    let mut start = from;
    // Every step passes the end of one busy time; more steps than busy times have come around.
    for _ in 0..=2 * busy.len() {
        let overlap = busy.iter().find_map(|&(at, taken)| {
            // How far the start lies behind the last start of this busy time.
            let behind = (start - at).rem_euclid(period_s);
            let inside = behind < taken - rounding && behind < period_s - rounding;
            let reaches = behind + seconds > period_s + rounding;
            (inside || reaches).then_some(if inside {
                taken - behind
            } else {
                period_s - behind + taken
            })
        });
        match overlap {
            None => return start,
            Some(by) => start += by.max(rounding),
        }
        if start > from + 2.0 * period_s {
            break;
        }
    }
    from
}

#[cfg(test)]
mod tests {
    use super::free_from;

    #[test]
    fn slots_are_free_in_every_period() {
        let busy = [(0.0, 2.0), (5.0, 1.0)];
        // Period 8: free are 2..5 and 6..8.
        assert_eq!(free_from(&busy, 8.0, (0.0, 3.0)), 2.0);
        assert_eq!(free_from(&busy, 8.0, (3.0, 2.0)), 3.0);
        assert_eq!(free_from(&busy, 8.0, (3.5, 2.0)), 6.0);
        assert_eq!(free_from(&busy, 8.0, (7.0, 2.0)), 10.0);
        assert_eq!(free_from(&busy, 8.0, (16.0, 1.0)), 18.0);
        // No gap is this long: the task shares its slot.
        assert_eq!(free_from(&busy, 8.0, (1.0, 4.0)), 1.0);
    }
}
