//! A profile of a small model.

use burn::backend::Flex;
use dip_core::profile::{KeptCounts, Part, PartBytes, PartTimes};
use dip_core::{Seconds, presets};

use super::*;

#[test]
fn every_strategy_is_measured_and_each_holds_less_than_its_predecessor() {
    let model = presets::model("vlm-tiny").unwrap();
    let settings = MeasureSettings {
        rounds: 1,
        warm_up: 0,
        runs: 1,
        enough: Seconds(0.1),
        ..MeasureSettings::default()
    };
    let device = Default::default();
    let profile = Profiler::<Flex>::new(&model, &device, settings).profile().unwrap();
    for e in profile.entries.iter().filter(|e| e.part == Part::Layer) {
        let PartTimes { forward_s, backward_s, .. } = e.times;
        assert!(forward_s.0 > 0.0 && backward_s.0 > 0.0, "{e:?}");
        assert!(e.times.update_s.0 > 0.0, "{e:?}");
        assert!(e.times.offload_forward_s >= forward_s, "{e:?}");
        assert!(e.times.offload_backward_s >= backward_s, "{e:?}");
        let PartBytes { keep, selective, full, offload } = e.kept;
        let work = KeptCounts { pairs: 1 << 14, trained_tokens: 64, ..KeptCounts::default() };
        let held = [keep, selective, full, offload].map(|kept| kept.of(work).0);
        assert!(held.is_sorted_by(|a, b| a > b), "{held:?}");
        assert_eq!(held[3], 0, "layers leave the device");
    }
}
