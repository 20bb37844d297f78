//! Samples and features of drawn sounds; `scripts/hf_fixtures/sounds.py` makes the files.

use std::path::{Path, PathBuf};

use super::*;
use crate::weights::TensorStore;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sounds")
}

fn expected() -> TensorStore {
    TensorStore::open_file(&folder().join("expected.safetensors")).unwrap()
}

fn file(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).unwrap()
}

fn samples(bytes: Vec<u8>) -> Result<Arc<[f32]>, SoundError> {
    Recording::Encoded(bytes.into()).samples(480_000)
}

/// A sweep over a quiet rattle, as the script draws it.
fn drawn(length: usize) -> Vec<f32> {
    let at = |n: usize| {
        let x = n as f64;
        let rattle = (n * 7919 % 1000) as f64 / 500.0 - 1.0;
        (0.4 * (0.1 * x + 3e-6 * x * x).sin() + 0.1 * rattle) as f32
    };
    (0..length).map(at).collect()
}

#[test]
fn log_mel_frames_equal_those_of_transformers() {
    let expected = expected();
    for length in [8000, 1970, 50, 480_000] {
        for bands in [80, 128] {
            let mel = LogMel::new(bands, 160, 3000).frames(&drawn(length));
            let frames = expected.all(&format!("frames.{length}")).unwrap()[0];
            assert_eq!(mel.frames, frames as u32, "{length}");
            assert_eq!(
                mel.values.len() / bands,
                (2 * mel.frames.div_ceil(2) + 1).min(3000) as usize
            );
            let rows = expected.all(&format!("rows.{length}.{bands}")).unwrap();
            let values = expected.all(&format!("mel.{length}.{bands}")).unwrap();
            for (row, values) in rows.iter().zip(values.chunks(bands)) {
                let ours = &mel.values[*row as usize * bands..][..bands];
                for (ours, theirs) in ours.iter().zip(values) {
                    assert!((ours - theirs).abs() < 1e-5, "{length} {bands} {row}");
                }
            }
        }
    }
}

/// Largest difference from another resampler. The rattle reaches the cut-off frequency, where filters differ.
const LIMIT: f32 = 1e-2;

/// The root of the mean square of the difference, away from the ends, where resamplers differ.
fn difference(name: &str) -> f32 {
    let theirs = expected().all(&format!("{name}.samples")).unwrap();
    let ours = samples(file(name)).unwrap();
    assert_eq!(ours.len(), theirs.len(), "{name}");
    let middle = 100..ours.len() - 100;
    let squares = ours[middle.clone()].iter().zip(&theirs[middle.clone()]);
    let sum: f32 = squares.map(|(a, b)| (a - b).powi(2)).sum();
    (sum / middle.len() as f32).sqrt()
}

#[test]
fn wav_files_have_the_samples_of_other_readers() {
    assert!(difference("mono16.wav") < 1e-7);
    for name in ["stereo24.wav", "byte.wav", "float.wav"] {
        let difference = difference(name);
        eprintln!("{name}: {difference:e}");
        assert!(difference < LIMIT, "{name}: {difference}");
    }
}

#[cfg(feature = "audio")]
#[test]
fn compressed_files_have_the_samples_of_other_readers() {
    for name in ["stereo.flac", "mono.ogg", "mono.mp3"] {
        let difference = difference(name);
        eprintln!("{name}: {difference:e}");
        // These signals are noise up to the highest frequency, where resamplers differ: scipy's and soxr's by 0.012.
        assert!(difference < 2.0 * LIMIT, "{name}: {difference}");
    }
}

#[cfg(not(feature = "audio"))]
#[test]
fn a_compressed_file_is_refused_with_the_name_of_the_feature() {
    let error = samples(file("stereo.flac")).unwrap_err().to_string();
    assert!(error.contains("feature `audio`"), "{error}");
}

#[test]
fn resampling_keeps_a_low_tone_and_removes_one_that_the_model_cannot_hear() {
    let tone = |hertz: f64| -> Vec<f32> {
        let at = |n| (std::f64::consts::TAU * hertz * f64::from(n) / 44_100.0).sin() as f32;
        (0..20_000).map(at).collect()
    };
    let low = resample::to_model_rate(tone(1000.0), 44_100);
    assert_eq!(low.len(), 7257);
    for (n, y) in low.iter().enumerate().take(7000).skip(200) {
        let expected = (std::f64::consts::TAU * 1000.0 * n as f64 / 16_000.0).sin() as f32;
        assert!((y - expected).abs() < 2e-3, "{n}: {y} {expected}");
    }
    let high = resample::to_model_rate(tone(12_000.0), 44_100);
    assert!(high[200..7000].iter().all(|y| y.abs() < 2e-3));
}

#[test]
fn only_the_beginning_of_a_long_recording_is_kept() {
    let bytes: Arc<[u8]> = file("stereo24.wav").into();
    let whole = Recording::Encoded(bytes.clone().into()).samples(480_000).unwrap();
    let beginning = Recording::Encoded(bytes.into()).samples(300).unwrap();
    assert_eq!(beginning[..], whole[..300]);
    let drawn = Recording::Samples(drawn(50).into());
    assert_eq!(drawn.samples(20).unwrap().len(), 20);
}

#[test]
fn a_file_that_is_cut_off_is_broken() {
    let whole = file("mono16.wav");
    for length in (0..whole.len()).step_by(7) {
        assert!(samples(whole[..length].to_vec()).is_err(), "{length}");
    }
}

/// Changes some bytes of a file in many ways and decodes it.
fn damage(name: &str, rounds: usize) {
    let whole = file(name);
    let mut state = 1u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % below
    };
    for _ in 0..rounds {
        let mut bytes = whole.clone();
        for _ in 0..1 + random(4) {
            let near = if random(2) == 0 { 64 } else { bytes.len() };
            bytes[random(near.min(whole.len()))] = random(256) as u8;
        }
        bytes.truncate(if random(3) == 0 { random(whole.len()) } else { whole.len() });
        // Any answer is fine, except a panic or a sample that is not a number.
        if let Ok(samples) = samples(bytes) {
            assert!(samples.iter().all(|x| x.is_finite()));
        }
    }
}

#[test]
fn damaged_files_never_panic() {
    for name in ["mono16.wav", "stereo24.wav", "byte.wav", "float.wav", "mono.mp3", "mono.ogg"] {
        damage(name, 100);
    }
}

#[test]
#[ignore = "minutes: ten thousand damaged sounds"]
fn ten_thousand_damaged_files_never_panic() {
    for name in ["mono16.wav", "stereo24.wav", "byte.wav", "float.wav", "stereo.flac", "mono.ogg"] {
        damage(name, 1700);
    }
}
