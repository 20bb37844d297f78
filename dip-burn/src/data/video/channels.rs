//! Latents of an autoencoder as tokens: patches of all channels, and back.

use std::path::Path;

use dip_files::Kind;
use serde::Deserialize;

use super::error::VideoError;
use super::grid::{LatentShape, Latents};
use crate::batch::ClipGrid;
use crate::data::error::{BoxError, DataError};

/// Mean and standard deviation of each channel of an autoencoder's latents.
#[derive(Debug, Clone, PartialEq)]
pub struct LatentStatistics {
    /// One value for each channel.
    pub mean: Vec<f32>,
    /// One value for each channel.
    pub deviation: Vec<f32>,
}

/// The fields of an autoencoder's `config.json` that are read.
#[derive(Deserialize)]
struct AutoencoderConfig {
    latents_mean: Vec<f32>,
    latents_std: Vec<f32>,
}

impl LatentStatistics {
    /// Reads the `config.json` of an autoencoder with `channels` channels.
    ///
    /// # Errors
    /// [`DataError`] names the file.
    pub fn from_file(path: &Path, channels: usize) -> Result<Self, DataError> {
        let io = |source| DataError::Io { path: path.to_owned(), source };
        let wrong = |source: BoxError| DataError::Autoencoder { path: path.to_owned(), source };
        let text = dip_files::read_text(path, Kind::CONFIG).map_err(io)?;
        let config: AutoencoderConfig = serde_json::from_str(&text).map_err(|e| wrong(e.into()))?;
        let Self { mean, deviation } =
            Self { mean: config.latents_mean, deviation: config.latents_std };
        if mean.len() != channels || deviation.len() != channels {
            let found = (mean.len(), deviation.len());
            let what = format!(
                "it has {} means and {} deviations, but the model has {channels} channels",
                found.0, found.1
            );
            return Err(wrong(what.into()));
        }
        if !deviation.iter().all(|d| *d > 0.0) || !mean.iter().all(|m| m.is_finite()) {
            return Err(wrong("latents_std must be above 0".into()));
        }
        Ok(Self { mean, deviation })
    }
}

/// Latents `[channels, frames, rows, columns]`.
#[derive(Debug, Clone, PartialEq)]
pub struct ChannelLatents {
    /// Channels, frames, rows and columns.
    pub sides: [usize; 4],
    /// The values, in this order.
    pub values: Vec<f32>,
}

impl LatentShape {
    /// Channels of the latents, if tokens are patches of them.
    pub fn channels(&self) -> Option<usize> {
        let of_channel: u32 = self.patch?.iter().product();
        Some(self.values as usize / of_channel.max(1) as usize)
    }
}

impl ChannelLatents {
    /// The tokens of the first frames, at most `most` frames of tokens.
    ///
    /// # Errors
    /// [`VideoError::Channels`] if they have other channels than the model, sides that are no whole patches, or more tokens per
    /// frame than the model allows.
    pub fn tokens(&self, shape: &LatentShape, most: u32) -> Result<Latents, VideoError> {
        let [channels, frames, rows, columns] = self.sides;
        let patch = shape.patch.unwrap_or([1; 3]);
        let wrong = || VideoError::Channels {
            found: self.sides.to_vec(),
            channels: shape.channels().unwrap_or(shape.values as usize),
            patch,
            tokens: shape.tokens_per_frame,
        };
        let [pf, pr, pc] = patch.map(|side| side as usize);
        let whole = [(frames, pf), (rows, pr), (columns, pc)];
        let fits = |(side, of): (usize, usize)| side > 0 && side.is_multiple_of(of);
        let is_whole = Some(channels) == shape.channels() && whole.into_iter().all(fits);
        let product = self.sides.iter().try_fold(1usize, |n, &side| n.checked_mul(side));
        if !is_whole || product != Some(self.values.len()) {
            return Err(wrong());
        }
        let side = |n: usize| u32::try_from(n).map_err(|_| wrong());
        let (rows_of, columns_of) = (side(rows / pr)?, side(columns / pc)?);
        if rows_of.checked_mul(columns_of).is_none_or(|n| n > shape.tokens_per_frame) {
            return Err(wrong());
        }
        let frames_of = side(frames / pf)?.min(most.max(1));
        let grid = ClipGrid { frames: frames_of, rows: rows_of, columns: columns_of };
        let mut values = Vec::with_capacity(grid.tokens() * shape.values as usize);
        each_value(&grid, patch, self.sides, |at| values.push(self.values[at]));
        Ok(Latents { grid, values })
    }

    /// The latents that these tokens are patches of.
    pub fn of(latents: &Latents, shape: &LatentShape) -> Self {
        let (grid, patch) = (latents.grid, shape.patch.unwrap_or([1; 3]));
        let [pf, pr, pc] = patch.map(|side| side as usize);
        let channels = shape.channels().unwrap_or(shape.values as usize);
        let sides = [
            channels,
            grid.frames as usize * pf,
            grid.rows as usize * pr,
            grid.columns as usize * pc,
        ];
        let mut values = vec![0.0; latents.values.len()];
        let mut next = latents.values.iter();
        each_value(&grid, patch, sides, |at| values[at] = *next.next().unwrap_or(&0.0));
        Self { sides, values }
    }

    /// Scales every channel to mean 0 and standard deviation 1.
    pub fn normalise(&mut self, statistics: &LatentStatistics) {
        let of_channel = self.values.len() / self.sides[0].max(1);
        let channels = self.values.chunks_mut(of_channel.max(1));
        for (values, (mean, deviation)) in
            channels.zip(statistics.mean.iter().zip(&statistics.deviation))
        {
            values.iter_mut().for_each(|x| *x = (*x - mean) / deviation);
        }
    }
}

/// Visits the index of every value in latents of `sides`, in the order of the tokens of `grid`.
fn each_value(grid: &ClipGrid, patch: [u32; 3], sides: [usize; 4], mut visit: impl FnMut(usize)) {
    let [channels, frames, rows, columns] = sides;
    let [pf, pr, pc] = patch.map(|side| side as usize);
    for [frame, row, column] in grid.places() {
        let (frame, row, column) = (frame as usize * pf, row as usize * pr, column as usize * pc);
        for channel in 0..channels {
            for (f, r) in (0..pf).flat_map(|f| (0..pr).map(move |r| (f, r))) {
                let start = ((channel * frames + frame + f) * rows + row + r) * columns + column;
                (start..start + pc).for_each(&mut visit);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: LatentShape = LatentShape {
        frames_per_second: 4.0,
        tokens_per_frame: 6,
        values: 8,
        patch: Some([1, 2, 2]),
    };

    fn latents(sides: [usize; 4]) -> ChannelLatents {
        let count = sides.iter().product::<usize>();
        ChannelLatents { sides, values: (0..count).map(|i| i as f32).collect() }
    }

    #[test]
    fn a_token_has_the_places_of_each_channel_together() {
        let latents = latents([2, 3, 2, 4]);
        let tokens = latents.tokens(&SHAPE, 9).unwrap();
        assert_eq!(tokens.grid, ClipGrid { frames: 3, rows: 1, columns: 2 });
        assert_eq!(tokens.values[..8], [0.0, 1.0, 4.0, 5.0, 24.0, 25.0, 28.0, 29.0]);
        assert_eq!(tokens.values[8..12], [2.0, 3.0, 6.0, 7.0]);
        assert_eq!(ChannelLatents::of(&tokens, &SHAPE), latents);
    }

    #[test]
    fn the_last_frames_of_long_clips_are_cut() {
        let tokens = latents([2, 3, 2, 4]).tokens(&SHAPE, 2).unwrap();
        assert_eq!((tokens.grid.frames, tokens.values.len()), (2, 32));
        assert_eq!(tokens.values[16..20], [8.0, 9.0, 12.0, 13.0]);
    }

    #[test]
    fn other_channels_odd_sides_and_large_frames_are_refused() {
        for sides in [[3, 1, 2, 2], [2, 1, 3, 2], [2, 1, 2, 5], [2, 1, 4, 8], [2, 0, 2, 2]] {
            let error = latents(sides).tokens(&SHAPE, 9).unwrap_err().to_string();
            assert!(error.contains("[2, frames, rows, columns]"), "{error}");
        }
    }

    #[test]
    fn statistics_come_from_the_config_of_the_autoencoder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            LatentStatistics::from_file(&path, 2).map_err(|e| e.to_string())
        };
        let statistics = read("{\"z_dim\":2,\"latents_mean\":[1,-2],\"latents_std\":[0.5,3]}");
        assert_eq!(statistics.unwrap().deviation, [0.5, 3.0]);
        for text in [
            "{}",
            "[",
            "{\"latents_mean\":[1],\"latents_std\":[0.5,3]}",
            "{\"latents_mean\":[1,2],\"latents_std\":[0,3]}",
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains("config.json") && error.contains("latents_std"), "{error}");
        }
    }

    #[test]
    fn channels_are_normalised_one_by_one() {
        let mut latents = latents([2, 1, 1, 2]);
        let statistics = LatentStatistics { mean: vec![1.0, 2.0], deviation: vec![0.5, 2.0] };
        latents.normalise(&statistics);
        assert_eq!(latents.values, [-2.0, 0.0, 0.0, 0.5]);
    }
}
