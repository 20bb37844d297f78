//! Assignment of microbatches to data parallel replicas. The slowest replica decides when an iteration ends.

/// The load of a microbatch on every pipeline rank, in seconds.
pub type MicrobatchLoads = Vec<f64>;

/// Maximum number of rounds of exchanges between replicas.
const MAX_ROUNDS: usize = 200;

/// Assigns microbatches to `replicas` so that the slowest replica is as fast as possible. A replica is as slow as its busiest rank.
/// The numbers of microbatches differ by at most one.
///
/// `loads[k]` is the load of microbatch `k` on every pipeline rank. So the assignment is modality-aware: a microbatch with many images
/// and one with much text load different ranks. The method is longest processing time first (Graham 1969), then exchanges between the
/// slowest replica and the others while they help. Returns the microbatches of each replica in ascending order.
///
/// ```
/// use dip_sched::assign_microbatches;
/// // Two microbatches full of images and two of text, on an encoder rank and a backbone rank.
/// let loads = vec![vec![9.0, 1.0], vec![9.0, 1.0], vec![1.0, 8.0], vec![1.0, 8.0]];
/// let assignment = assign_microbatches(&loads, 2);
/// // Each replica gets one of each kind, so neither of its ranks waits for the other.
/// assert!(assignment.iter().all(|own| own.iter().any(|&k| k < 2) && own.iter().any(|&k| k >= 2)));
/// ```
///
/// # Panics
/// Never. Short rows count as padded with zeros. Without replicas the result is empty.
pub fn assign_microbatches(loads: &[MicrobatchLoads], replicas: usize) -> Vec<Vec<usize>> {
    if replicas == 0 {
        return Vec::new();
    }
    let ranks = loads.iter().map(Vec::len).max().unwrap_or(0);
    let mut assignment = Assignment {
        loads,
        microbatches: vec![Vec::new(); replicas],
        sums: vec![vec![0.0; ranks]; replicas],
        max_microbatches: loads.len().div_ceil(replicas),
    };
    assignment.assign();
    for _ in 0..MAX_ROUNDS {
        if !assignment.exchange() {
            break;
        }
    }
    assignment.microbatches.iter_mut().for_each(|own| own.sort_unstable());
    assignment.microbatches
}

/// A partial assignment.
struct Assignment<'a> {
    loads: &'a [MicrobatchLoads],
    /// The microbatches of every replica.
    microbatches: Vec<Vec<usize>>,
    /// The load of every rank of every replica, in seconds.
    sums: Vec<Vec<f64>>,
    /// Maximum number of microbatches on one replica.
    max_microbatches: usize,
}

impl Assignment<'_> {
    /// Assigns the heaviest microbatch first, each to the replica that stays fastest with it.
    fn assign(&mut self) {
        let heaviest = |k: usize| self.loads[k].iter().copied().fold(0.0, f64::max);
        let mut order: Vec<usize> = (0..self.loads.len()).collect();
        order.sort_by(|&a, &b| heaviest(b).total_cmp(&heaviest(a)).then(a.cmp(&b)));
        let fewest = self.loads.len() / self.microbatches.len();
        let mut spare = self.loads.len() % self.microbatches.len();
        for k in order {
            let open = |d: &usize| {
                let own = self.microbatches[*d].len();
                own < fewest || (own < self.max_microbatches && spare > 0)
            };
            let slow = |d: usize| self.slowest_with(d, None, Some(k));
            let choice = (0..self.microbatches.len())
                .filter(open)
                .min_by(|&a, &b| slow(a).total_cmp(&slow(b)).then(a.cmp(&b)));
            let Some(d) = choice else { continue };
            if self.microbatches[d].len() >= fewest {
                spare -= 1;
            }
            self.take(d, k, 1.0);
            self.microbatches[d].push(k);
        }
    }

    /// The load of the busiest rank of a replica, without one microbatch and with another.
    fn slowest_with(&self, d: usize, without: Option<usize>, with: Option<usize>) -> f64 {
        let of = |k: Option<usize>, r: usize| {
            k.and_then(|k| self.loads[k].get(r)).copied().unwrap_or(0.0)
        };
        let sums = self.sums[d].iter().enumerate();
        sums.map(|(r, sum)| sum - of(without, r) + of(with, r)).fold(0.0, f64::max)
    }

    fn take(&mut self, d: usize, k: usize, sign: f64) {
        for (sum, load) in self.sums[d].iter_mut().zip(&self.loads[k]) {
            *sum += sign * load;
        }
    }

    /// Makes the exchange that helps the slowest replica most. Returns false if none helps.
    fn exchange(&mut self) -> bool {
        let slow = |d: usize| self.slowest_with(d, None, None);
        let slowest = (0..self.microbatches.len()).max_by(|&a, &b| slow(a).total_cmp(&slow(b)));
        let Some(slowest) = slowest else { return false };
        let now = slow(slowest);
        let mut best: Option<(f64, usize, usize, usize)> = None;
        for other in (0..self.microbatches.len()).filter(|&d| d != slowest) {
            for (i, &a) in self.microbatches[slowest].iter().enumerate() {
                for (j, &b) in self.microbatches[other].iter().enumerate() {
                    let one = self.slowest_with(slowest, Some(a), Some(b));
                    let two = self.slowest_with(other, Some(b), Some(a));
                    let then = one.max(two);
                    if then < best.map_or(now * (1.0 - 1e-12), |b| b.0) {
                        best = Some((then, other, i, j));
                    }
                }
            }
        }
        let Some((_, other, i, j)) = best else { return false };
        let (a, b) = (self.microbatches[slowest][i], self.microbatches[other][j]);
        for (d, out, into) in [(slowest, a, b), (other, b, a)] {
            self.take(d, out, -1.0);
            self.take(d, into, 1.0);
        }
        (self.microbatches[slowest][i], self.microbatches[other][j]) = (b, a);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slowest(loads: &[MicrobatchLoads], assignment: &[Vec<usize>]) -> f64 {
        let rank = |own: &Vec<usize>, r: usize| own.iter().map(|&k| loads[k][r]).sum::<f64>();
        let replica =
            |own: &Vec<usize>| (0..loads[0].len()).map(|r| rank(own, r)).fold(0.0, f64::max);
        assignment.iter().map(replica).fold(0.0, f64::max)
    }

    #[test]
    fn every_microbatch_is_assigned_once_and_counts_differ_by_at_most_one() {
        for (count, replicas) in [(0, 3), (1, 3), (7, 3), (12, 4), (5, 1)] {
            let loads: Vec<MicrobatchLoads> =
                (0..count).map(|k| vec![1.0 + (k * 7 % 5) as f64]).collect();
            let assignment = assign_microbatches(&loads, replicas);
            let mut all: Vec<usize> = assignment.iter().flatten().copied().collect();
            all.sort_unstable();
            assert_eq!(all, (0..count).collect::<Vec<_>>());
            let lengths = assignment.iter().map(Vec::len);
            let (least, most) = (lengths.clone().min().unwrap(), lengths.max().unwrap());
            assert!(most - least <= 1, "{count} over {replicas}: {assignment:?}");
        }
    }

    #[test]
    fn an_assignment_is_within_a_tenth_of_the_optimum_on_small_batches() {
        for seed in 0..20u64 {
            let load = |k: u64| (seed * 31 + k * 17) * 2_654_435_761 % 97;
            let loads: Vec<MicrobatchLoads> =
                (0..8).map(|k| vec![10.0 + load(k) as f64, load(k + 50) as f64]).collect();
            let ours = slowest(&loads, &assign_microbatches(&loads, 2));
            let halves = (0u32..256).filter(|mask| mask.count_ones() == 4);
            let best = halves
                .map(|mask| {
                    let side =
                        |bit: u32| (0..8).filter(|&k| mask >> k & 1 == bit).collect::<Vec<_>>();
                    slowest(&loads, &[side(0), side(1)])
                })
                .fold(f64::INFINITY, f64::min);
            assert!(ours <= 1.1 * best, "seed {seed}: {ours} against {best}");
        }
    }
}
