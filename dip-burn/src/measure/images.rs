//! How the times of an encoder change with the sizes of images.
//!
//! At the same number of patches, large images have more attention pairs, and small images more views, each with matrix products of
//! its own. The times of the largest and of the smallest images, less those of typical images with as many patches, give the time of
//! one pair and of one view.

use dip_core::Seconds;
use dip_core::profile::{ImageTimes, PartTimes, ProfileEntry, images_at, neighbours};

/// What one extreme differs in from typical images with as many patches.
struct Difference {
    times: PartTimes,
    pairs: f64,
    views: f64,
}

/// The entries with the time of a pair and of a view. `extremes` are the entries of the largest and the smallest images.
pub(super) fn with_image_times(
    entries: Vec<ProfileEntry>,
    extremes: &[ProfileEntry],
) -> Vec<ProfileEntry> {
    let times = |entry: &ProfileEntry| {
        let is_same = |e: &&ProfileEntry| e.module == entry.module && e.part == entry.part;
        let mut typical: Vec<ProfileEntry> = entries.iter().filter(is_same).cloned().collect();
        typical.sort_by_key(|e| e.tokens);
        typical.dedup_by_key(|e| e.tokens);
        let of = |e| difference(&typical, e);
        let found: Vec<Difference> = extremes.iter().filter(is_same).filter_map(of).collect();
        let [large, small] = found.as_slice() else { return entry.images };
        entry.images.map(|images| {
            let (per_pair, per_view) = slopes(large, small);
            ImageTimes { per_pair, per_view, ..images }
        })
    };
    let with = |entry: &ProfileEntry| ProfileEntry { images: times(entry), ..entry.clone() };
    entries.iter().map(with).collect()
}

fn difference(typical: &[ProfileEntry], extreme: &ProfileEntry) -> Option<Difference> {
    let [(low, of_low), (high, of_high)] = neighbours(typical, extreme.tokens)?;
    let base = PartTimes::default().plus(low.times, of_low).plus(high.times, of_high);
    let (own, base_images) = (extreme.images?, images_at(typical, extreme.tokens)?);
    Some(Difference {
        times: extreme.times.plus(base, -1.0),
        pairs: own.pairs - base_images.pairs,
        views: own.views - base_images.views,
    })
}

/// The times of a pair and of a view that explain both differences; none is negative.
fn slopes(large: &Difference, small: &Difference) -> (PartTimes, PartTimes) {
    let scale = large.pairs * small.views - small.pairs * large.views;
    if scale.abs() < 1e-9 {
        return Default::default();
    }
    let solved = |a: f64, b: f64| {
        let time = |time: fn(&PartTimes) -> Seconds| {
            Seconds(((a * time(&large.times).0 + b * time(&small.times).0) / scale).max(0.0))
        };
        PartTimes { update_s: Seconds::ZERO, ..PartTimes::of(time) }
    };
    (solved(small.views, -large.views), solved(-small.pairs, large.pairs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dip_core::profile::{Part, PartBytes};

    /// An entry whose forward takes 2 s a token, 0.5 s a pair and 3 s a view.
    fn entry(tokens: u64, pairs: f64, views: f64) -> ProfileEntry {
        let forward_s = Seconds(2.0 * tokens as f64 + 0.5 * pairs + 3.0 * views);
        ProfileEntry {
            module: "vision".into(),
            part: Part::Layer,
            tokens,
            times: PartTimes { forward_s, ..PartTimes::default() },
            kept: PartBytes::default(),
            images: Some(ImageTimes { pairs, views, ..ImageTimes::default() }),
        }
    }

    #[test]
    fn the_largest_and_the_smallest_images_give_the_time_of_a_pair_and_of_a_view() {
        let typical = vec![entry(4, 16.0, 1.0), entry(8, 32.0, 2.0), entry(16, 64.0, 4.0)];
        let extremes = [entry(16, 256.0, 1.0), entry(12, 12.0, 12.0)];
        for e in with_image_times(typical, &extremes) {
            let ImageTimes { per_pair, per_view, .. } = e.images.unwrap();
            assert!((per_pair.forward_s.0 - 0.5).abs() < 1e-9, "{per_pair:?}");
            assert!((per_view.forward_s.0 - 3.0).abs() < 1e-9, "{per_view:?}");
        }
    }
}
