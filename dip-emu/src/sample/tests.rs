use super::*;
use dip_core::{ModuleKind, PixelRange, TileSpec, presets};

fn drawn(name: &str, iterations: u64) -> (ModelSpec, Vec<MicrobatchMeta>) {
    let model = presets::model(name).unwrap();
    let batches = sample(&model, iterations, 7, None);
    assert!(batches.iter().all(|b| b.microbatches.len() == model.microbatches as usize));
    (model, batches.into_iter().flat_map(|b| b.microbatches).collect())
}

/// The `q`-quantile.
fn quantile(mut values: Vec<f64>, q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * q) as usize]
}

#[test]
fn pictures_of_a_model_that_keeps_proportions_have_many_sizes_within_its_limits() {
    let mut model = presets::model("vlm-s").unwrap();
    let plain = sample(&model, 2, 7, None);
    assert!(plain.iter().flat_map(|b| &b.microbatches).all(|m| m.images.sizes().is_empty()));
    let ModuleKind::Vit(vit) = &mut model.modules[0].kind else { panic!("vision comes first") };
    vit.native = Some(PixelRange { min_pixels: 56 * 56, max_pixels: 1344 * 1344 });
    let (largest, own) = (vit.largest_size(), vit.image_size());
    model.validate().unwrap();
    let batches = sample(&model, 4, 7, None);
    let text: String = batches.iter().map(BatchMeta::to_jsonl).collect();
    assert_eq!(BatchMeta::from_jsonl(&text).unwrap(), batches);
    let microbatches: Vec<_> = batches.iter().flat_map(|b| &b.microbatches).collect();
    let sizes: Vec<_> = microbatches.iter().flat_map(|m| m.images.sizes()).collect();
    assert!(sizes.iter().all(|s| s.patches <= largest.patches && s.patches == 16 * s.tokens));
    let distinct: std::collections::BTreeSet<u32> = sizes.iter().map(|s| s.patches).collect();
    assert!(distinct.len() > 20, "{distinct:?}");
    assert!(distinct.first() < Some(&(own.patches / 4)) && distinct.last() > Some(&own.patches));
    for m in microbatches {
        let patches: u64 = m.images.sizes().iter().map(|s| u64::from(s.patches)).sum();
        assert!(patches <= model.patch_limit() && m.images.len() <= model.max_images);
        assert_eq!(model.sequence_length(m), u64::from(model.sequence_tokens));
    }
}

#[test]
fn pictures_in_tiles_have_the_sizes_of_their_resolutions() {
    let mut model = presets::model("vlm-s").unwrap();
    let ModuleKind::Vit(vit) = &mut model.modules[0].kind else { panic!("vision comes first") };
    let px = vit.image_px;
    let resolutions = vec![[px, 2 * px], [2 * px, px], [2 * px, 2 * px]];
    vit.tiles = Some(TileSpec { resolutions, max_tiles: None });
    let (largest, own) = (vit.largest_size(), vit.image_size());
    model.validate().unwrap();
    let batches = sample(&model, 4, 7, None);
    let sizes = batches.iter().flat_map(|b| &b.microbatches).flat_map(|m| m.images.sizes());
    let views: std::collections::BTreeSet<u32> = sizes
        .map(|size| {
            assert!(size.tokens <= largest.tokens && size.patches == size.views * own.patches);
            size.views
        })
        .collect();
    assert!(views.iter().eq(&[3, 5]), "{views:?}");
}

#[test]
fn equal_seeds_give_equal_batches_however_many_are_asked_for() {
    let model = presets::model("vlm-s").unwrap();
    let many = sample(&model, 5, 3, Some(4));
    assert_eq!(sample(&model, 2, 3, Some(4)), many[..2]);
    assert_ne!(sample(&model, 2, 4, Some(4)), many[..2]);
    assert_ne!(many[0].microbatches, many[1].microbatches);
    assert_eq!(sample(&model, 1, 0, Some(0))[0].microbatches.len(), 1);
}

#[test]
fn microbatches_of_every_preset_are_valid_and_within_the_limits_of_the_model() {
    for name in presets::model_names() {
        let (model, metas) = drawn(name, 3);
        for meta in &metas {
            meta.validate().unwrap();
            let tokens = model.sequence_length(meta);
            if meta.has_sequence() {
                assert_eq!(tokens, u64::from(model.sequence_tokens), "{name}: {meta:?}");
            }
            assert!(tokens <= u64::from(model.sequence_tokens), "{name}: {meta:?}");
            assert!(
                meta.images.len() <= model.max_images
                    && meta.clips.len() <= model.max_clips as usize
            );
        }
    }
}

#[test]
fn images_of_a_sequence_vary_as_in_the_paper() {
    let (_, metas) = drawn("vlm-s", 200);
    let images: Vec<f64> = metas.iter().map(|m| f64::from(m.images.len())).collect();
    let (low, mid, high) =
        (quantile(images.clone(), 0.01), quantile(images.clone(), 0.5), quantile(images, 0.99));
    assert!(low <= 8.0 && (15.0..28.0).contains(&mid) && high >= 35.0, "{low} {mid} {high}");
}

#[test]
fn the_heaviest_video_microbatch_has_about_four_times_the_work_of_the_lightest() {
    let (model, metas) = drawn("t2v-s", 200);
    let (id, spec) = model.module("video").unwrap();
    let flops = |meta: &MicrobatchMeta| {
        let work = model.workload(id, meta, 0..meta.clips.len() as u32);
        let width = f64::from(spec.hidden);
        let linear = 2.0 * work.tokens as f64 * spec.layer_parameters() as f64;
        linear + 4.0 * width * (work.attention_pairs + work.cross_pairs) as f64
    };
    let flops: Vec<f64> = metas.iter().map(flops).collect();
    let ratio = quantile(flops.clone(), 0.99) / quantile(flops, 0.01);
    assert!((3.0..5.5).contains(&ratio), "{ratio}");
}

#[test]
fn an_omni_model_gets_all_modalities() {
    let (_, metas) = drawn("omni-s", 4);
    let share = |has: fn(&MicrobatchMeta) -> bool| {
        metas.iter().filter(|m| has(m)).count() as f64 / metas.len() as f64
    };
    assert!(share(|m| !m.images.is_empty()) > 0.9);
    assert!(share(|m| !m.audio_seconds.is_empty()) > 0.5);
    assert!((0.3..0.7).contains(&share(|m| !m.clips.is_empty())));
}

#[test]
fn a_sweep_goes_from_text_to_images_and_back() {
    let model = presets::model("vlm-s").unwrap();
    let batches = sweep(&model, 9, 0, Some(16));
    let images = |b: &BatchMeta| b.microbatches.iter().map(|m| m.images.len()).sum::<u32>();
    let images: Vec<u32> = batches.iter().map(images).collect();
    assert_eq!((images[0], images[8]), (0, 0));
    assert!(images[4] > 16 * 40 && images[2] > 100 && images[2] < images[4], "{images:?}");
    let t2v = presets::model("t2v-s").unwrap();
    let seconds = |b: &BatchMeta| {
        let clips = b.microbatches.iter().flat_map(|m| &m.clips);
        clips.map(|c| c.seconds).sum::<f64>()
    };
    let seconds: Vec<f64> = sweep(&t2v, 3, 0, Some(16)).iter().map(seconds).collect();
    assert!(seconds[1] > 2.5 * seconds[0] && seconds[1] > 2.5 * seconds[2], "{seconds:?}");
    assert_eq!(sweep(&model, 1, 0, Some(1)).len(), 1);
}
