//! Batches with nothing to do for some stage.

use dip_burn::inference::{ClipPrompt, Sampler, continue_prompts};
use dip_burn::measure::{MeasureSettings, Profiler};
use dip_burn::model::{Continuation, Precision};
use dip_burn::runtime::{Algorithm, Pipeline, PipelineInit};
use dip_burn::{ClipGrid, Microbatch, Prompt, text_positions};
use dip_core::ModelSpec;
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
    let mut muted = microbatch(&mut rng, &[1, 0]);
    muted.loss_mask.fill(false);
    let batches = [microbatch(&mut rng, &[0]), microbatch(&mut rng, &[2, 1]), muted];
    let mut pictures = pipeline(&mut rng, &model(1, 1, false));
    let mut pictures = pictures.forwards().unwrap();
    assert!(pictures.loss(&batches).unwrap().is_finite());
    let [prompt, empty] = [vec![3, 5, 4], Vec::new()].map(|tokens: Vec<u32>| Prompt {
        positions: text_positions(tokens.len()).collect(),
        tokens,
        images: Vec::new(),
        image_offsets: Vec::new(),
        sounds: Vec::new(),
    });
    let prompts = [empty.clone(), prompt.clone(), empty.clone(), prompt, empty.clone()];
    let how = Continuation { stop: vec![99], max_tokens: 4, ..Continuation::default() };
    let lengths: Vec<usize> =
        continue_prompts(&mut pictures, &prompts, &how).unwrap().iter().map(Vec::len).collect();
    assert_eq!(lengths, [0, 4, 0, 4, 0]);
    assert_eq!(continue_prompts(&mut pictures, &[empty], &how).unwrap(), [[0u32; 0]]);
    assert_eq!(continue_prompts(&mut pictures, &[], &how).unwrap(), Vec::<Vec<u32>>::new());

    for model in [video_model(1, 1, false), wan_model(1, 1, false)] {
        let values = model.video().unwrap().token_channels as usize;
        let mut video = pipeline(&mut rng, &model);
        let mut video = video.forwards().unwrap();
        let batches: Vec<Microbatch> = (1..4).map(|n| clips(&mut rng, n, values)).collect();
        assert!(video.loss(&batches).unwrap().is_finite());
        let sampler = Sampler { steps: 2, guidance: 3.0, shift: 3.0, values, empty: vec![1, 2] };
        let grid = ClipGrid { frames: 2, rows: 1, columns: rng.random_range(1..4) };
        let prompts = [ClipPrompt { caption: vec![1, 7, 2], grid }];
        let sampled = sampler.sample(&mut video, &prompts, 0).unwrap();
        assert!(sampled[0].values.iter().all(|x| x.is_finite()));
    }
}

/// Two ranks with a random partition.
fn pipeline(rng: &mut ChaCha8Rng, model: &ModelSpec) -> Pipeline<Strict> {
    let partition = random_partition(rng, model, 2);
    let init = PipelineInit::new(model, &partition, vec![Default::default(); 2]);
    Pipeline::new(&init.with_weights(7)).unwrap()
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
