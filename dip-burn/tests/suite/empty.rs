//! Batches with nothing to do for some stage.

use dip_burn::measure::{MeasureSettings, Profiler};
use dip_burn::model::sampler::{ClipPrompt, Sampler};
use dip_burn::model::{Precision, WholeModel};
use dip_burn::runtime::Algorithm;
use dip_burn::{ClipGrid, Microbatch};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::gradients::{case, case_of_clips, case_of_wan};
use crate::strict::Strict;
use crate::support::*;

const STRATEGIES: [&str; 4] = ["keep", "selective", "full", "offload"];
/// Burn's operations round differently from fused ones.
const DIGITS: f64 = 1e-4;

#[test]
fn pictures_and_texts_without_some_parts_make_no_tensor_without_elements() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    // No images at all; none in some microbatches; documents without images.
    let batches: [&[&[u32]]; 4] =
        [&[&[0], &[0, 0]], &[&[2, 1], &[0], &[1, 0, 2]], &[&[1]], &[&[0, 0, 1], &[0]]];
    for (round, images) in batches.into_iter().cycle().take(8).enumerate() {
        let devices = vec![Default::default(); 1 + round % 3];
        let case = case(&mut rng, images, round % 4 == 3);
        case.holds_on::<Strict>(&mut rng, devices, &STRATEGIES, DIGITS);
    }
}

#[test]
fn clips_in_any_slices_make_no_tensor_without_elements() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for round in 0..8 {
        let devices = vec![Default::default(); 1 + round % 3];
        for case in [case_of_clips, case_of_wan] {
            let case = case(&mut rng, round % 4 == 3);
            case.holds_on::<Strict>(&mut rng, devices.clone(), &STRATEGIES, DIGITS);
        }
    }
}

#[test]
fn no_precision_and_no_optimiser_makes_a_tensor_without_elements() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let precisions = [Precision::F32, Precision::Bf16, Precision::F16];
    for (precision, algorithm) in
        precisions.into_iter().zip([Algorithm::Muon, Algorithm::Adamw, Algorithm::Muon])
    {
        let devices = || vec![Default::default(); 2];
        let how = (precision, algorithm);
        let none: &[&[u32]] = &[&[0], &[0, 0]];
        for images in [none, &[&[2, 1], &[0]]] {
            let case = case(&mut rng, images, false);
            case.runs_on::<Strict>(&mut rng, devices(), &STRATEGIES, how);
        }
        for case in [case_of_clips, case_of_wan] {
            let case = case(&mut rng, false);
            case.runs_on::<Strict>(&mut rng, devices(), &STRATEGIES, how);
        }
    }
}

#[test]
fn evaluation_and_sampling_make_no_tensor_without_elements() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let pictures = WholeModel::<Strict>::init(&model(1, 1, false), 7, &Default::default()).unwrap();
    let mut muted = microbatch(&mut rng, &[1, 0]);
    muted.loss_mask.fill(false);
    let batches = [microbatch(&mut rng, &[0]), microbatch(&mut rng, &[2, 1]), muted];
    assert!(pictures.loss(&batches).unwrap().is_finite());

    for model in [video_model(1, 1, false), wan_model(1, 1, false)] {
        let values = model.video().unwrap().token_channels as usize;
        let video = WholeModel::<Strict>::init(&model, 7, &Default::default()).unwrap();
        let batches: Vec<Microbatch> = (1..4).map(|n| clips(&mut rng, n, values)).collect();
        assert!(video.loss(&batches).unwrap().is_finite());
        let sampler = Sampler { steps: 2, guidance: 3.0, shift: 3.0, values, empty: vec![1, 2] };
        let grid = ClipGrid { frames: 2, rows: 1, columns: rng.random_range(1..4) };
        let prompts = [ClipPrompt { caption: vec![1, 7, 2], grid }];
        let sampled = sampler.sample(&video, &prompts, 0).unwrap();
        assert!(sampled[0].values.iter().all(|x| x.is_finite()));
    }
}

#[test]
fn measuring_makes_no_tensor_without_elements() {
    let settings = |precision| MeasureSettings {
        precision,
        rounds: 1,
        warm_up: 0,
        in_flight: 2,
        ranks: 1,
        averages: true,
        ..MeasureSettings::default()
    };
    let videos = [video_model(2, 2, false), wan_model(2, 2, true)];
    let models = [model(2, 2, false), model(1, 1, true)].into_iter().chain(videos);
    let precisions = [Precision::Bf16, Precision::F32].into_iter().cycle();
    for (model, precision) in models.zip(precisions) {
        let device = Default::default();
        let profile = Profiler::<Strict>::new(&model, &device, settings(precision)).profile();
        assert!(!profile.unwrap().entries.is_empty());
    }
}
