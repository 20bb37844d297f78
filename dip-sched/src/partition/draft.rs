//! A module during placement: its layers are spread over its chunks.

use dip_core::{Chunk, ModulePartition, RankId, Route, SegmentId};

use super::layer_times::LayerTimes;
use super::load::RankLoads;

/// The ranks, and the way of a module through them.
#[derive(Clone, Copy)]
pub(super) struct Ranks {
    pub(super) count: usize,
    pub(super) route: Route,
}

impl Ranks {
    fn of(self, chunk: usize) -> usize {
        self.route.rank(chunk, self.count)
    }
}

/// The number of layers of each chunk of a module.
pub(super) struct ModuleDraft {
    pub(super) times: LayerTimes,
    ranks: Ranks,
    /// Layers of every chunk. Only modules with fewer layers than ranks have empty chunks.
    layers: Vec<u32>,
    /// The chunks with the first and the last layer.
    ends: (usize, usize),
}

impl ModuleDraft {
    /// Chunks with equally many layers. A remainder is not placed yet.
    pub(super) fn new(times: LayerTimes, segments: u32, ranks: Ranks) -> Self {
        let max_segments = (times.layers as usize / ranks.count).max(1);
        let chunks = ranks.count * (segments as usize).clamp(1, max_segments);
        let layers = vec![times.layers / chunks as u32; chunks];
        Self { times, ranks, layers, ends: (0, chunks - 1) }
    }

    /// Seconds of the layers placed on a rank.
    pub(super) fn seconds_on(&self, rank: usize) -> f64 {
        self.chunks_on(rank).map(|j| self.seconds(j)).sum()
    }

    /// Gives each remaining layer to the rank with the lowest load, at most one to each chunk.
    pub(super) fn spread(&mut self, load: &mut RankLoads) {
        let chunks = self.layers.len() as u32;
        let (base, left) = (self.times.layers / chunks, self.times.layers % chunks);
        let mut open = load.clone();
        for _ in 0..left {
            let rank = open.lightest();
            let mut free = self.chunks_on(rank).filter(|&j| self.layers[j] == base);
            let (taker, has_more) = (free.next().unwrap_or(rank), free.next().is_some());
            self.layers[taker] += 1;
            let seconds = load.of(rank) + self.times.layer_s;
            load.set(rank, seconds);
            open.set(rank, if has_more { seconds } else { f64::INFINITY });
        }
        if base == 0 {
            // Some chunks are empty: the ends are at the first and the last chunk with a layer.
            let has_layers = |&n: &u32| n > 0;
            let first = self.layers.iter().position(has_layers).unwrap_or(0);
            let last = self.layers.iter().rposition(has_layers).unwrap_or(0);
            self.ends = (first, last);
            load.set(first, load.of(first) + self.times.first_s);
            load.set(last, load.of(last) + self.times.last_s);
        }
    }

    /// True if a rank can give a layer away. Every chunk keeps one.
    pub(super) fn can_give(&self, rank: usize) -> bool {
        self.chunks_on(rank).any(|j| self.layers[j] > 1)
    }

    /// Moves a layer from the longest chunk of one rank to the shortest chunk of another, so that chunks stay about equal.
    pub(super) fn move_layer(&mut self, from: usize, to: usize) {
        let by_seconds = |a: &usize, b: &usize| self.seconds(*a).total_cmp(&self.seconds(*b));
        let giver = self.chunks_on(from).filter(|&j| self.layers[j] > 1).max_by(by_seconds);
        let taker = self.chunks_on(to).min_by(by_seconds);
        if let (Some(giver), Some(taker)) = (giver, taker) {
            self.layers[giver] -= 1;
            self.layers[taker] += 1;
        }
    }

    /// The partition of the module.
    pub(super) fn finish(&self, sub_microbatch: u32) -> ModulePartition {
        let mut start = 0;
        let mut chunks = Vec::new();
        for (j, &layers) in self.layers.iter().enumerate().filter(|c| *c.1 > 0) {
            chunks.push(Chunk {
                rank: RankId::from(self.ranks.of(j)),
                segment: SegmentId::from(j / self.ranks.count),
                layers: start..start + layers,
            });
            start += layers;
        }
        ModulePartition { sub_microbatch, chunks }
    }

    fn chunks_on(&self, rank: usize) -> impl Iterator<Item = usize> + use<> {
        let ranks = self.ranks;
        (0..self.layers.len()).filter(move |&chunk| ranks.of(chunk) == rank)
    }

    fn seconds(&self, chunk: usize) -> f64 {
        let end = |at: usize, seconds: f64| if at == chunk { seconds } else { 0.0 };
        match self.layers[chunk] {
            0 => 0.0,
            n => {
                f64::from(n) * self.times.layer_s
                    + end(self.ends.0, self.times.first_s)
                    + end(self.ends.1, self.times.last_s)
            }
        }
    }
}
