//! Times and bytes of parts, interpolated between the sizes that were measured.

use dip_core::profile::{KeptBytes, PartBytes, PartTimes, ProfileEntry, images_at, neighbours};
use dip_core::{LayerStrategy, Seconds, Workload};

/// Times and bytes of one part, or of several together, under every strategy.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct MeasuredPart {
    pub times: PartTimes,
    pub kept: PartBytes,
}

/// Times and bytes of one part, or of several together, under one strategy.
#[derive(Debug, Clone, Copy)]
pub struct PairCost {
    pub forward: Seconds,
    pub backward: Seconds,
    pub kept: KeptBytes,
}

impl MeasuredPart {
    /// The part at `tokens` tokens, with the pairs and views of images of `work`.
    pub fn of_work(points: &[ProfileEntry], work: &Workload) -> Option<Self> {
        let part = Self::at(points, work.tokens)?;
        let Some(images) = images_at(points, work.tokens) else { return Some(part) };
        let times = part
            .times
            .plus(images.per_pair, work.attention_pairs as f64 - images.pairs)
            .plus(images.per_view, work.views as f64 - images.views);
        Some(Self { times: times.not_negative(), ..part })
    }

    /// The part at `tokens` tokens: interpolated linearly between the neighbouring sizes of `points`, extrapolated from the
    /// two outermost sizes, or constant if there is one point. `None` without points.
    pub fn at(points: &[ProfileEntry], tokens: u64) -> Option<Self> {
        let [(low, of_low), (high, of_high)] = neighbours(points, tokens)?;
        let mix = Self::default().plus(Self::of(low), of_low).plus(Self::of(high), of_high);
        Some(Self { times: mix.times.not_negative(), ..mix })
    }

    fn of(entry: &ProfileEntry) -> Self {
        Self { times: entry.times, kept: entry.kept }
    }

    /// The sum of this part and `count` times `other`.
    pub fn plus(self, other: Self, count: f64) -> Self {
        let kept = self.kept.plus(other.kept, count);
        Self { times: self.times.plus(other.times, count), kept }
    }

    /// The part if it runs forward only beside others that run a backward.
    pub fn forward_only(self) -> Self {
        let once = self.times.inference_s;
        let times = PartTimes {
            inference_s: once,
            forward_s: once,
            offload_forward_s: once,
            ..PartTimes::default()
        };
        Self { times, kept: PartBytes::default() }
    }

    /// The part with `pairs` query-key pairs, whatever the pairs of other parts.
    pub fn at_pairs(self, pairs: u64) -> Self {
        let fixed = |kept: KeptBytes| KeptBytes {
            bytes: kept.bytes + kept.bytes_per_pair * pairs as f64,
            bytes_per_pair: 0.0,
            ..kept
        };
        let PartBytes { keep, selective, full, offload } = self.kept;
        let kept = PartBytes {
            keep: fixed(keep),
            selective: fixed(selective),
            full: fixed(full),
            offload: fixed(offload),
        };
        Self { kept, ..self }
    }

    /// The cost if every layer follows `strategy`.
    pub fn under(self, strategy: LayerStrategy) -> PairCost {
        let Self { times: t, kept } = self;
        let (forward, backward, kept) = match strategy {
            LayerStrategy::Keep => (t.forward_s, t.backward_s, kept.keep),
            LayerStrategy::Selective => (t.forward_s, t.selective_backward_s, kept.selective),
            LayerStrategy::Full => (t.inference_s, t.forward_s + t.backward_s, kept.full),
            LayerStrategy::Offload => (t.offload_forward_s, t.offload_backward_s, kept.offload),
        };
        PairCost { forward, backward, kept }
    }
}

impl PairCost {
    /// The sum of both.
    pub fn plus(self, other: Self) -> Self {
        Self {
            forward: self.forward + other.forward,
            backward: self.backward + other.backward,
            kept: self.kept.plus(other.kept, 1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dip_core::profile::{ImageTimes, Part};

    fn entry(tokens: u64, forward: f64) -> ProfileEntry {
        ProfileEntry {
            module: "m".into(),
            part: Part::Layer,
            tokens,
            times: PartTimes { forward_s: Seconds(forward), ..PartTimes::default() },
            kept: PartBytes::default(),
            images: None,
        }
    }

    #[test]
    fn images_of_other_sizes_cost_their_own_pairs_and_views() {
        let images = |pairs, views| ImageTimes {
            pairs,
            views,
            per_pair: PartTimes { forward_s: Seconds(0.01), ..PartTimes::default() },
            per_view: PartTimes { forward_s: Seconds(0.5), ..PartTimes::default() },
        };
        let mut points = [entry(10, 1.0), entry(20, 2.0)];
        points[0].images = Some(images(100.0, 1.0));
        points[1].images = Some(images(200.0, 2.0));
        let at = |tokens, attention_pairs, views| {
            let work = Workload { tokens, attention_pairs, views, ..Workload::default() };
            MeasuredPart::of_work(&points, &work).unwrap().times.forward_s.0
        };
        assert_eq!(at(20, 200, 2), 2.0);
        assert_eq!(at(20, 400, 1), 2.0 + 200.0 * 0.01 - 0.5);
        assert_eq!(at(15, 150, 2), 1.5 + 0.25);
    }

    #[test]
    fn times_are_linear_between_and_beyond_the_measured_sizes() {
        let points = [entry(10, 1.0), entry(20, 2.0), entry(40, 3.0)];
        let at = |tokens| MeasuredPart::at(&points, tokens).unwrap().times.forward_s.0;
        assert_eq!([at(10), at(15), at(30), at(60), at(5)], [1.0, 1.5, 2.5, 4.0, 0.5]);
        assert_eq!(MeasuredPart::at(&points[..1], 99).unwrap().times.forward_s.0, 1.0);
        assert!(MeasuredPart::at(&[], 1).is_none());
    }

    #[test]
    fn a_falling_line_never_gives_negative_times() {
        let points = [entry(10, 3.0), entry(20, 1.0)];
        assert_eq!(MeasuredPart::at(&points, 100).unwrap().times.forward_s.0, 0.0);
    }
}
