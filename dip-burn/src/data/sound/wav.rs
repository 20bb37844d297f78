//! WAV files: whole numbers of 8 to 32 bits, and floats of 32 bits.

use std::io::Cursor;

use hound::{SampleFormat, WavReader, WavSpec};

use super::{FileSamples, Longest, SoundError, check_shape};

/// True if the bytes begin like a WAV file.
pub(super) fn is_wav(bytes: &[u8]) -> bool {
    bytes.len() >= 12 && &bytes[..4] == b"RIFF" && &bytes[8..12] == b"WAVE"
}

/// The samples of a file. The whole file must be there, even if only its beginning is read.
pub(super) fn decoded(bytes: &[u8], longest: Longest) -> Result<FileSamples, SoundError> {
    let mut reader = WavReader::new(Cursor::new(bytes)).map_err(SoundError::broken)?;
    let WavSpec { channels, sample_rate: rate, bits_per_sample: bits, sample_format } =
        reader.spec();
    let channels = usize::from(channels);
    check_shape(channels, rate)?;
    let bytes_of_data = u64::from(reader.len()) * u64::from(bits.div_ceil(8));
    if bytes_of_data > bytes.len() as u64 {
        return Err(SoundError::broken("the file is cut off"));
    }
    let most = longest.at(rate).saturating_mul(channels).min(reader.len() as usize);
    let values: Result<Vec<f32>, hound::Error> = match sample_format {
        SampleFormat::Float => reader.samples::<f32>().take(most).collect(),
        SampleFormat::Int => {
            let scale = 1.0 / (1u64 << (bits.clamp(1, 32) - 1)) as f64;
            let samples = reader.samples::<i32>().take(most);
            samples.map(|sample| sample.map(|x| (f64::from(x) * scale) as f32)).collect()
        }
    };
    let values = values.map_err(SoundError::broken)?;
    if values.iter().any(|x| !x.is_finite()) {
        return Err(SoundError::broken("a sample is not a finite number"));
    }
    let mean = |frame: &[f32]| frame.iter().sum::<f32>() / channels as f32;
    Ok(FileSamples { rate, values: values.chunks_exact(channels).map(mean).collect() })
}
