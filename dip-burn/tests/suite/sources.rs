use std::io;
use std::sync::Arc;

use dip_burn::PositionRule;
use dip_burn::data::{
    CaptionedVideo, ClipLoader, ClipLoaderConfig, DataError, DataSource, Document, DocumentPiece,
    Fitting, FlowTimes, FrameSource, LatentShape, Loader, LoaderConfig, MediaProcessor, PackConfig,
    PackingRule, Picture, PictureError, PixelSource, RgbImage, Room, SkipCounts, SkipReason,
    SourcePosition, Tokenizer, Video, VideoError,
};
use serde::{Deserialize, Serialize};

const LAST_DOCUMENT: u32 = 400;

/// Documents about grey pictures; every fifth document counts as broken.
#[derive(Default)]
struct Greys {
    at: GreysPosition,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct GreysPosition {
    next: u32,
    broken: u32,
}

#[derive(Debug)]
struct Grey(u8);

impl PixelSource for Grey {
    fn rgb(&self, side_px: u32) -> Result<RgbImage, PictureError> {
        match self.0 {
            grey if grey % 3 == 1 => Err(PictureError::broken("a broken grey")),
            // The loader scales pictures of another size.
            grey => Ok(RgbImage::from_pixel(side_px + 1, 3, [grey; 3].into())),
        }
    }
}

impl DataSource for Greys {
    fn next_document(&mut self) -> Result<Document, DataError> {
        self.at.next += 1;
        if self.at.next.is_multiple_of(5) {
            (self.at.next, self.at.broken) = (self.at.next + 1, self.at.broken + 1);
        }
        if self.at.next > LAST_DOCUMENT {
            return Err(DataError::other(io::Error::other("the greys are used up")));
        }
        let picture = DocumentPiece::Picture(Picture::Drawn(Arc::new(Grey(self.at.next as u8))));
        let text = DocumentPiece::Text(format!("grey {}", self.at.next));
        Ok(Document::Plain(vec![picture, text]))
    }

    fn position(&self) -> SourcePosition {
        SourcePosition::new(&self.at)
    }

    fn restore(&mut self, position: &SourcePosition) -> Result<(), DataError> {
        self.at = position.get()?;
        Ok(())
    }

    fn skipped(&self) -> SkipCounts {
        let mut skipped = SkipCounts::default();
        (0..self.at.broken).for_each(|_| skipped.add(SkipReason::BrokenPicture));
        skipped
    }
}

/// The newest document that fits.
#[derive(Debug)]
struct NewestFirst;

impl PackingRule for NewestFirst {
    fn name(&self) -> &str {
        "newest-first"
    }

    fn next(&self, _packed: &[Fitting], _room: Room, fitting: &[Fitting]) -> Option<usize> {
        fitting.len().checked_sub(1)
    }
}

fn loader() -> Loader {
    let tokenizer = Tokenizer::bytes();
    let special = tokenizer.special();
    let pack = PackConfig {
        sequence_tokens: 64,
        max_images: 4,
        max_patches: 64,
        positions: PositionRule::Sequence,
        lookahead: 8,
        pad: special.pad,
    };
    let media = MediaProcessor::of_model(&crate::training::scenes_model()).unwrap();
    let config = LoaderConfig { pack, media, microbatches: 2, prefetch: 1 };
    let loader = Loader::new(Box::new(Greys::default()), Arc::new(tokenizer), config).unwrap();
    loader.with_packing(Arc::new(NewestFirst))
}

#[test]
fn documents_pictures_and_packing_can_come_from_outside() {
    let mut whole = loader();
    let first = whole.next_batch().unwrap();
    let second = whole.next_batch().unwrap();
    assert_eq!(second.meta.microbatches.len(), 2);
    let text = serde_json::to_string(&first.position).unwrap();
    let mut resumed = loader();
    resumed.restore(&serde_json::from_str(&text).unwrap()).unwrap();
    let again = resumed.next_batch().unwrap();
    assert_eq!(again.microbatches, second.microbatches);
    assert_eq!(resumed.skipped(), whole.skipped());
    assert!(whole.skipped().get(SkipReason::BrokenPicture) > 0);

    let decoded = whole.decode(&first, [0, 1]).unwrap().wait().unwrap();
    assert!(decoded.broken_pictures > 0);
    let images = decoded.microbatches.iter().flat_map(|m| &m.images);
    let pixels: Vec<&Vec<f32>> = images.map(|image| &image.views[0].pixels).collect();
    assert!(pixels.iter().all(|p| p.len() == 3 * 16 * 16));
    // The oldest document opens a sequence: grey 1 is broken, so it is blank. The newest of the eight that wait follows.
    let newest = f32::from(11u8) / 127.5 - 1.0;
    assert_eq!((pixels[0][0], pixels[1][0]), (0.0, newest));
}

#[test]
fn errors_of_a_source_keep_their_cause() {
    let mut loader = loader();
    let error = loop {
        if let Err(error) = loader.next_batch() {
            break error;
        }
    };
    assert_eq!(error.to_string(), "the greys are used up");
    assert!(matches!(&error, DataError::Other(cause) if cause.is::<io::Error>()));
}

/// Clips that become brighter.
struct Dawns(u32);

#[derive(Debug)]
struct Dawn;

impl FrameSource for Dawn {
    fn seconds(&self) -> f64 {
        2.0
    }

    fn frames(&self, count: u32) -> Result<Vec<RgbImage>, VideoError> {
        let grey = |i: u32| [(255 * i / (count - 1).max(1)) as u8; 3].into();
        Ok((0..count).map(|i| RgbImage::from_pixel(8, 8, grey(i))).collect())
    }
}

impl DataSource<CaptionedVideo> for Dawns {
    fn next_document(&mut self) -> Result<CaptionedVideo, DataError> {
        self.0 += 1;
        Ok(CaptionedVideo { video: Video::Drawn(Arc::new(Dawn)), caption: "dawn".into() })
    }

    fn position(&self) -> SourcePosition {
        SourcePosition::new(&self.0)
    }

    fn restore(&mut self, position: &SourcePosition) -> Result<(), DataError> {
        self.0 = position.get()?;
        Ok(())
    }
}

#[test]
fn captioned_videos_can_come_from_outside() {
    let config = ClipLoaderConfig {
        shape: LatentShape { frames_per_second: 2.0, tokens_per_frame: 4, values: 48, patch: None },
        statistics: None,
        times: FlowTimes::default(),
        joins_spaces: false,
        max_clips: 3,
        max_frames: 12,
        caption_tokens: 8,
        microbatches: 2,
        tokens_per_batch: None,
        caption_dropout: 0.0,
        seed: 1,
        prefetch: 1,
    };
    let mut loader =
        ClipLoader::new(Box::new(Dawns(0)), Arc::new(Tokenizer::bytes()), config).unwrap();
    let batch = loader.next_batch().unwrap();
    assert_eq!(batch.microbatches.len(), 2);
    for clip in batch.microbatches.iter().flat_map(|m| &m.clips) {
        assert_eq!((clip.grid.frames, clip.grid.rows, clip.grid.columns), (4, 2, 2));
        // State and velocity give the video back: black at first, white at the end.
        let video: Vec<f32> = (clip.state.iter().zip(&clip.velocity))
            .map(|(state, velocity)| state + (1.0 - clip.time) * velocity)
            .collect();
        let (first, last) = (video[0], video[video.len() - 1]);
        assert!((first + 1.0).abs() < 1e-4 && (last - 1.0).abs() < 1e-4, "{first} {last}");
    }
}
