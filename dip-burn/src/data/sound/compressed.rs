//! FLAC, MP3 and Ogg Vorbis files.

use std::io::Cursor;
use std::sync::Arc;

use symphonia::core::audio::GenericAudioBufferRef;
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::{MediaSourceStream, MediaSourceStreamOptions};
use symphonia::core::meta::MetadataOptions;
use symphonia::default::{get_codecs, get_probe};

use super::{FileSamples, Longest, SoundError, check_shape};

/// The samples of a file. A damaged frame among those that are read makes the sound broken.
pub(super) fn decoded(bytes: &Arc<[u8]>, longest: Longest) -> Result<FileSamples, SoundError> {
    let source = Box::new(Cursor::new(bytes.clone()));
    let stream = MediaSourceStream::new(source, MediaSourceStreamOptions::default());
    let format = get_probe().probe(
        &Hint::new(),
        stream,
        FormatOptions::default(),
        MetadataOptions::default(),
    );
    let format = match format {
        Err(Error::Unsupported(_)) => return Err(SoundError::Format),
        format => format.map_err(SoundError::broken)?,
    };
    let track = format.default_track(TrackType::Audio).ok_or(SoundError::Format)?;
    let parameters = track.codec_params.as_ref().and_then(|all| all.audio());
    let parameters = parameters.ok_or(SoundError::Format)?;
    let decoder = get_codecs()
        .make_audio_decoder(parameters, &AudioDecoderOptions::default())
        .map_err(|_| SoundError::Format)?;
    Track { number: track.id, frames: track.num_frames, format, decoder }.read(longest)
}

struct Track<'s> {
    number: u32,
    /// Samples of a channel that the header promises.
    frames: Option<u64>,
    format: Box<dyn FormatReader + 's>,
    decoder: Box<dyn AudioDecoder>,
}

impl Track<'_> {
    fn read(mut self, longest: Longest) -> Result<FileSamples, SoundError> {
        let mut all: Option<FileSamples> = None;
        while let Some(packet) = self.format.next_packet().map_err(SoundError::broken)? {
            if packet.track_id != self.number {
                continue;
            }
            let buffer = self.decoder.decode(&packet).map_err(SoundError::broken)?;
            let FileSamples { rate, values } = mean_of_channels(&buffer)?;
            let all = all.get_or_insert(FileSamples { rate, values: Vec::new() });
            if all.rate != rate {
                return Err(SoundError::broken("its sample rate changes"));
            }
            all.values.extend(values);
            if all.values.len() >= longest.at(rate) {
                return self.whole(all.rate, std::mem::take(&mut all.values));
            }
        }
        let all = all.ok_or_else(|| SoundError::broken("it has no samples"))?;
        if self.frames.is_some_and(|frames| (all.values.len() as u64) < frames) {
            return Err(SoundError::broken("the file is cut off"));
        }
        self.whole(all.rate, all.values)
    }

    fn whole(&self, rate: u32, values: Vec<f32>) -> Result<FileSamples, SoundError> {
        match values.iter().all(|x| x.is_finite()) {
            true => Ok(FileSamples { rate, values }),
            false => Err(SoundError::broken("a sample is not a finite number")),
        }
    }
}

fn mean_of_channels(buffer: &GenericAudioBufferRef<'_>) -> Result<FileSamples, SoundError> {
    let (channels, rate) = (buffer.spec().channels().count(), buffer.spec().rate());
    check_shape(channels, rate)?;
    let mut values = vec![0.0f32; buffer.samples_interleaved()];
    buffer.copy_to_slice_interleaved(&mut values);
    let mean = |frame: &[f32]| frame.iter().sum::<f32>() / channels as f32;
    Ok(FileSamples { rate, values: values.chunks_exact(channels).map(mean).collect() })
}
