//! Log-mel frames, as Whisper's feature extractor makes them.

use std::f64::consts::TAU;

use super::SAMPLE_RATE;
use super::spectrum::{FREQUENCIES, Spectrum, WINDOW};

/// Least power of a mel band.
const FLOOR: f64 = 1e-10;
/// Values are at most this far below the largest of the sound, in powers of ten.
const RANGE: f32 = 8.0;

/// Makes the log-mel frames of sounds.
pub struct LogMel {
    /// Samples from frame to frame.
    hop: usize,
    /// Frames of the longest sound; shorter sounds are followed by silence up to this length.
    max_frames: usize,
    window: Vec<f64>,
    bands: Vec<Band>,
    spectrum: Spectrum,
}

/// The weights of neighbouring frequencies in one mel band.
struct Band {
    first: usize,
    weights: Vec<f64>,
}

/// The log-mel frames of a sound that an encoder reads.
#[derive(Debug, Clone, PartialEq)]
pub struct MelFrames {
    /// Values, `[rows, bands]`: the frames of the sound, and the one or two after them that the convolutions read.
    pub values: Vec<f32>,
    /// Frames of the sound.
    pub frames: u32,
}

impl LogMel {
    /// Frames of `bands` mel bands every `hop` samples, of sounds of at most `max_frames` frames.
    pub fn new(bands: usize, hop: usize, max_frames: usize) -> Self {
        let angle = |i: usize| TAU * i as f64 / WINDOW as f64;
        Self {
            hop,
            max_frames,
            window: (0..WINDOW).map(|i| 0.5 - 0.5 * angle(i).cos()).collect(),
            bands: mel_bands(bands),
            spectrum: Spectrum::new(),
        }
    }

    /// The number of frames of a sound of `samples` samples, without their values.
    pub fn silent(&self, samples: usize) -> MelFrames {
        let frames = samples.min(self.max_frames * self.hop).div_ceil(self.hop);
        MelFrames { values: Vec::new(), frames: frames as u32 }
    }

    /// The frames of a sound, cut to the longest sound.
    pub fn frames(&self, samples: &[f32]) -> MelFrames {
        let samples = &samples[..samples.len().min(self.max_frames * self.hop)];
        let frames = samples.len().div_ceil(self.hop);
        let rows = (2 * frames.div_ceil(2) + 1).min(self.max_frames);
        // The windows of later frames hear only silence.
        let heard = (frames + WINDOW.div_ceil(self.hop)).min(self.max_frames);
        let mut values = Vec::with_capacity(heard * self.bands.len());
        for frame in 0..heard {
            let power = self.spectrum.power(&self.windowed(samples, frame));
            values.extend(self.bands.iter().map(|band| band.log(&power)));
        }
        let silence = if heard < self.max_frames { FLOOR.log10() as f32 } else { f32::MIN };
        let largest = values.iter().copied().fold(silence, f32::max);
        values.truncate(rows * self.bands.len());
        values.iter_mut().for_each(|x| *x = (x.max(largest - RANGE) + 4.0) / 4.0);
        MelFrames { values, frames: frames as u32 }
    }

    /// The samples around the centre of a frame, under the window. The sound is mirrored at both ends of its longest length.
    fn windowed(&self, samples: &[f32], frame: usize) -> [f64; WINDOW] {
        let last = (self.max_frames * self.hop) as i64 - 1;
        let start = (frame * self.hop) as i64 - WINDOW as i64 / 2;
        std::array::from_fn(|i| {
            let at = (start + i as i64).abs();
            let at = if at > last { 2 * last - at } else { at };
            let sample = usize::try_from(at).ok().and_then(|at| samples.get(at));
            f64::from(*sample.unwrap_or(&0.0)) * self.window[i]
        })
    }
}

impl Band {
    fn log(&self, power: &[f64; FREQUENCIES]) -> f32 {
        let sum: f64 = self.weights.iter().zip(&power[self.first..]).map(|(w, p)| w * p).sum();
        sum.max(FLOOR).log10() as f32
    }
}

/// Triangles between neighbouring frequencies of Slaney's mel scale from 0 to 8 kHz, each of the same area.
fn mel_bands(count: usize) -> Vec<Band> {
    let highest = mel(f64::from(SAMPLE_RATE) / 2.0);
    let corner = |i: usize| hertz(highest * i as f64 / (count + 1) as f64);
    let band = |i: usize| {
        let [low, peak, high] = [corner(i), corner(i + 1), corner(i + 2)];
        let weight = |k: usize| {
            let at = k as f64 * f64::from(SAMPLE_RATE) / WINDOW as f64;
            let height = ((at - low) / (peak - low)).min((high - at) / (high - peak)).max(0.0);
            height * 2.0 / (high - low)
        };
        let all: Vec<f64> = (0..FREQUENCIES).map(weight).collect();
        let first = all.iter().position(|&w| w > 0.0).unwrap_or(0);
        let end = all.iter().rposition(|&w| w > 0.0).map_or(first, |last| last + 1);
        Band { first, weights: all[first..end].to_vec() }
    };
    (0..count).map(band).collect()
}

/// Slaney's scale is linear up to 1 kHz (15 mel) and logarithmic above: 27 mel are a factor of 6.4.
fn mel(hertz: f64) -> f64 {
    match hertz < 1000.0 {
        true => 3.0 * hertz / 200.0,
        false => 15.0 + (hertz / 1000.0).ln() * 27.0 / 6.4f64.ln(),
    }
}

fn hertz(mel: f64) -> f64 {
    match mel < 15.0 {
        true => 200.0 * mel / 3.0,
        false => 1000.0 * ((mel - 15.0) * 6.4f64.ln() / 27.0).exp(),
    }
}
