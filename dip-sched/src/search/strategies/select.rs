//! One strategy per pair for a given order of a rank: the least time within memory at every moment (paper section 2, phase 3).
//!
//! This is a multiple-choice knapsack with one capacity per moment. Its Lagrangian relaxation prices memory at every moment. At given
//! prices each pair takes its cheapest option. Their sum is a lower bound on the optimum; the options, repaired to fit, are a solution.
//! Prices follow a subgradient until the gap is small. The result is never worse than the greedy solution it starts from.

use std::ops::RangeInclusive;

/// A stage pair of the rank: an item of the knapsack.
#[derive(Debug, Clone)]
pub(super) struct KnapsackItem {
    /// The moments at which it holds its bytes.
    pub(super) span: RangeInclusive<usize>,
    /// The strategies to choose from.
    pub(super) options: Vec<KnapsackOption>,
}

/// A strategy of an item.
#[derive(Debug, Clone, Copy)]
pub(super) struct KnapsackOption {
    pub(super) seconds: f64,
    pub(super) bytes: u64,
}

/// Maximum number of steps of the subgradient method.
const MAX_STEPS: usize = 60;
/// The method ends at this gap, as a share of the time that the best solution takes beyond the fastest strategies.
const GAP: f64 = 0.05;

/// Returns an option for every item such that all items fit in `budget` bytes at every moment. `start` must fit. `ended` can stop the
/// work after any step.
pub(super) fn select(
    items: &[KnapsackItem],
    moments: usize,
    budget: u64,
    start: &[u16],
    ended: &mut dyn FnMut() -> bool,
) -> Vec<u16> {
    let mut best = KnapsackChoice::new(items, moments, budget, start.to_vec());
    best.fill();
    let fastest: f64 = items.iter().map(|i| least(i, |o| o.seconds)).sum();
    let mut best_s = best.seconds();
    let mut prices = vec![0.0; moments];
    let mut scale = 1.0;
    for _ in 0..MAX_STEPS {
        if ended() {
            break;
        }
        let (choice, bound) = relaxed(items, &prices, budget);
        if best_s - bound <= GAP * (best_s - fastest) {
            break;
        }
        let mut trial = KnapsackChoice::new(items, moments, budget, choice);
        let excess: Vec<f64> = trial.held.iter().map(|&held| held as f64 - budget as f64).collect();
        let norm: f64 = excess
            .iter()
            .zip(&prices)
            .filter(|&(&e, &p)| e > 0.0 || p > 0.0)
            .map(|(e, _)| e * e)
            .sum();
        if trial.repair() {
            trial.fill();
            let seconds = trial.seconds();
            if seconds < best_s {
                (best, best_s) = (trial, seconds);
            }
        }
        if norm == 0.0 {
            break;
        }
        let step = scale * (best_s - bound) / norm;
        for (price, excess) in prices.iter_mut().zip(&excess) {
            *price = (*price + step * excess).max(0.0);
        }
        scale *= 0.95;
    }
    best.choice
}

fn least(item: &KnapsackItem, of: impl Fn(&KnapsackOption) -> f64) -> f64 {
    item.options.iter().map(of).fold(f64::INFINITY, f64::min)
}

/// The cheapest option of every item at these prices, and a lower bound on the seconds of any solution.
fn relaxed(items: &[KnapsackItem], prices: &[f64], budget: u64) -> (Vec<u16>, f64) {
    let mut sums = Vec::with_capacity(prices.len() + 1);
    sums.push(0.0);
    for price in prices {
        sums.push(sums[sums.len() - 1] + price);
    }
    let mut bound = -(budget as f64) * sums[prices.len()];
    let choice = items.iter().map(|item| {
        let price = sums[item.span.end() + 1] - sums[*item.span.start()];
        let cost = |o: &KnapsackOption| o.seconds + o.bytes as f64 * price;
        let mut best = 0;
        for (i, o) in item.options.iter().enumerate() {
            if cost(o) < cost(&item.options[best]) {
                best = i;
            }
        }
        bound += cost(&item.options[best]);
        best as u16
    });
    let choice = choice.collect();
    (choice, bound)
}

/// A choice of options with the bytes it holds at every moment.
struct KnapsackChoice<'a> {
    items: &'a [KnapsackItem],
    budget: u64,
    choice: Vec<u16>,
    held: Vec<u64>,
}

impl<'a> KnapsackChoice<'a> {
    fn new(items: &'a [KnapsackItem], moments: usize, budget: u64, choice: Vec<u16>) -> Self {
        let mut held = vec![0u64; moments];
        for (item, &c) in items.iter().zip(&choice) {
            for held in &mut held[item.span.clone()] {
                *held = held.saturating_add(item.options[c as usize].bytes);
            }
        }
        Self { items, budget, choice, held }
    }

    fn seconds(&self) -> f64 {
        self.items.iter().zip(&self.choice).map(|(item, &c)| item.options[c as usize].seconds).sum()
    }

    fn set(&mut self, i: usize, option: u16) {
        let item = &self.items[i];
        let (old, new) = (item.options[self.choice[i] as usize], item.options[option as usize]);
        for held in &mut self.held[item.span.clone()] {
            *held = held.saturating_sub(old.bytes).saturating_add(new.bytes);
        }
        self.choice[i] = option;
    }

    /// Gives items smaller options until all fit. Returns false if they cannot fit.
    fn repair(&mut self) -> bool {
        let mut by_start: Vec<usize> = (0..self.items.len()).collect();
        by_start.sort_by_key(|&i| *self.items[i].span.start());
        let mut next = by_start.into_iter().peekable();
        // The items that hold their bytes now.
        let mut live: Vec<usize> = Vec::new();
        for moment in 0..self.held.len() {
            live.retain(|&i| *self.items[i].span.end() >= moment);
            while let Some(i) = next.next_if(|&i| *self.items[i].span.start() <= moment) {
                live.push(i);
            }
            while self.held[moment] > self.budget {
                let Some((i, option)) = self.cheapest(&live, self.held[moment] - self.budget)
                else {
                    return false;
                };
                self.set(i, option);
            }
        }
        true
    }

    /// The live item and its smaller option that lose the least time for each byte they save, up to `need` bytes.
    fn cheapest(&self, live: &[usize], need: u64) -> Option<(usize, u16)> {
        let mut best: Option<(f64, usize, u16)> = None;
        for &i in live {
            let item = &self.items[i];
            let now = item.options[self.choice[i] as usize];
            for (c, o) in item.options.iter().enumerate().filter(|(_, o)| o.bytes < now.bytes) {
                // Bytes saved beyond the need are worth nothing.
                let saved = (now.bytes - o.bytes).min(need) as f64;
                let price = (o.seconds - now.seconds).max(0.0) / saved;
                if best.is_none_or(|(least, _, _)| price < least) {
                    best = Some((price, i, c as u16));
                }
            }
        }
        best.map(|(_, i, option)| (i, option))
    }

    /// Takes faster options wherever they fit; options that save the most seconds per byte come first.
    fn fill(&mut self) {
        let mut swaps: Vec<(f64, usize, u16)> = Vec::new();
        for (i, item) in self.items.iter().enumerate() {
            let now = item.options[self.choice[i] as usize];
            for (c, o) in item.options.iter().enumerate().filter(|(_, o)| o.seconds < now.seconds) {
                let bytes = o.bytes.saturating_sub(now.bytes).max(1) as f64;
                swaps.push(((now.seconds - o.seconds) / bytes, i, c as u16));
            }
        }
        swaps.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        for (_, i, c) in swaps {
            let item = &self.items[i];
            let (now, then) = (item.options[self.choice[i] as usize], item.options[c as usize]);
            let more = then.bytes.saturating_sub(now.bytes);
            let mut held = self.held[item.span.clone()].iter();
            if then.seconds < now.seconds && held.all(|h| h.saturating_add(more) <= self.budget) {
                self.set(i, c);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A linear congruential generator.
    fn next(state: &mut u64) -> u64 {
        *state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *state >> 33
    }

    fn drawn(seed: u64, count: usize, options: usize) -> (Vec<KnapsackItem>, u64) {
        let mut state = seed;
        let items: Vec<KnapsackItem> = (0..count)
            .map(|i| {
                let span = i..=(i + next(&mut state) as usize % 6).min(count - 1);
                let mut bytes = 1 + next(&mut state) % 5;
                let mut seconds = 60.0 + (next(&mut state) % 20) as f64;
                let option = |_| {
                    bytes += 1 + next(&mut state) % 9;
                    seconds -= 1.0 + (next(&mut state) % 7) as f64;
                    KnapsackOption { seconds, bytes }
                };
                KnapsackItem { span, options: (0..options).map(option).collect() }
            })
            .collect();
        let smallest = KnapsackChoice::new(&items, count, u64::MAX, vec![0; count]);
        let budget = smallest.held.iter().max().unwrap() * 3 / 2;
        (items, budget)
    }

    fn optimum(items: &[KnapsackItem], moments: usize, budget: u64) -> f64 {
        let (count, options) = (items.len(), items[0].options.len());
        let all = (0..options.pow(count as u32)).map(|code| {
            let digit = |i: usize| (code / options.pow(i as u32) % options) as u16;
            KnapsackChoice::new(items, moments, budget, (0..count).map(digit).collect())
        });
        let fitting = all.filter(|s| s.held.iter().all(|&h| h <= budget));
        fitting.map(|s| s.seconds()).fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn selections_fit_and_are_close_to_the_optimum() {
        for seed in 0..40 {
            let (items, budget) = drawn(seed, 7, 3);
            let choice = select(&items, 7, budget, &[0; 7], &mut || false);
            let selected = KnapsackChoice::new(&items, 7, budget, choice);
            assert!(selected.held.iter().all(|&h| h <= budget));
            let best = optimum(&items, 7, budget);
            assert!(
                selected.seconds() <= 1.01 * best,
                "seed {seed}: {} {best}",
                selected.seconds()
            );
        }
    }

    #[test]
    fn selection_is_never_worse_than_greedy_and_takes_milliseconds() {
        for seed in 0..20 {
            let (items, budget) = drawn(seed, 64, 10);
            let mut greedy = KnapsackChoice::new(&items, 64, budget, vec![0; 64]);
            greedy.fill();
            let start = std::time::Instant::now();
            let choice = select(&items, 64, budget, &[0; 64], &mut || false);
            assert!(start.elapsed().as_millis() < 500, "{:?}", start.elapsed());
            let ours = KnapsackChoice::new(&items, 64, budget, choice);
            assert!(ours.seconds() <= greedy.seconds());
        }
    }
}
