//! A profile of a small model.

use burn::backend::Flex;
use dip_core::profile::{KeptBytes, KeptCounts, Part, PartBytes, PartTimes, Profile};
use dip_core::{ModelSpec, Seconds, VitSpec, WindowSpec, presets};

use super::*;

fn profile(model: &ModelSpec) -> Profile {
    let settings = MeasureSettings {
        rounds: 1,
        warm_up: 0,
        runs: 1,
        enough: Seconds(0.1),
        ..MeasureSettings::default()
    };
    Profiler::<Flex>::new(model, &Default::default(), settings).profile().unwrap()
}

#[test]
fn layers_with_windows_are_measured_beside_those_without() {
    let mut model = presets::model("vlm-tiny").unwrap();
    let vit = model.modules[0].kind.get::<VitSpec>().unwrap().clone();
    let window = Some(WindowSpec { px: vit.patch_px * vit.merge, full_layers: vec![1] });
    model.modules[0].kind = VitSpec { window, ..vit }.into();
    let profile = profile(&model);
    let of = |part| -> Vec<_> {
        let entries = profile.entries.iter();
        entries.filter(|e| e.module == model.modules[0].name && e.part == part).collect()
    };
    let (whole, windowed) = (of(Part::Layer), of(Part::Windowed));
    assert_eq!((whole.len(), of(Part::First).len()), (windowed.len(), whole.len()));
    for (whole, windowed) in whole.iter().zip(windowed) {
        assert_eq!(whole.tokens, windowed.tokens);
        let held = |kept: KeptBytes| kept.of(KeptCounts::default()).0;
        assert!(held(windowed.kept.keep) < held(whole.kept.keep), "{windowed:?}");
        assert_eq!(held(windowed.kept.full), held(whole.kept.full));
    }
}

#[test]
fn every_strategy_is_measured_and_each_holds_less_than_its_predecessor() {
    let profile = profile(&presets::model("vlm-tiny").unwrap());
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
