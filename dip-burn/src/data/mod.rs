//! From shards or drawn scenes to packed microbatches: plain numbers, no tensors.
//!
//! ```text
//! WebDataset | Scenes -> Document -> TokenizedDocument -> PackedMicrobatch -> PackedBatch -> DecodedBatch
//!   (DataSource)          Tokenizer      Packer               Loader         metadata only    with pixels
//! ```
//!
//! Text-to-video has its own loader: [`ClipLoader`] makes batches of [`CaptionedVideo`]s.
//!
//! The images and tokens of a batch are counted before any pixel is decoded, so that batch k + 1 is planned while batch k trains.
//! Every step is deterministic by seed. A position saved after any batch gives byte-identical batches from there on.
//!
//! | trait | you give | it lets you |
//! |---|---|---|
//! | [`DataSource`] | documents, or captioned videos | train on your own data |
//! | [`PixelSource`] | the pixels of a picture | use rendered pictures or other formats |
//! | [`FrameSource`] | the frames of a video | use rendered videos or other formats |
//! | [`PackingRule`] | the next document of a sequence | choose which documents share a sequence |

mod chat;
mod conversation;
#[cfg(test)]
mod damage_tests;
mod document;
mod encoded;
mod error;
mod loader;
mod marked;
mod media;
mod mixture;
mod packing;
mod picture;
mod piece;
mod placed;
mod processor;
mod report;
mod samples;
mod skip;
mod sound;
mod source;
mod tokenizer;
pub mod toy;
pub(crate) mod video;
mod visual;
mod webdataset;

pub use chat::{ChatError, ChatTemplate};
pub use conversation::{Conversation, JsonFields, Role, Turn};
pub use document::{
    AUDIO_MARK, Document, DocumentError, DocumentMedia, IMAGE_MARK, Room, TokenizedDocument,
    VIDEO_MARK,
};
pub use encoded::Encoded;
pub use error::{BoxError, DataError, TokenizeError};
pub use image::RgbImage;
pub use loader::{
    DecodedBatch, DecodedMicrobatch, Decoding, Inputs, Loader, LoaderConfig, LoaderPosition,
    PackedBatch, TooLong, Wanted, decode_microbatches,
};
pub use media::MediaProcessor;
pub use mixture::{Mixture, MixturePart};
pub use packing::{BestFit, FirstFit, Fitting, PackConfig, PackedMicrobatch, Packer, PackingRule};
pub use picture::{Picture, PictureError, PixelSource};
pub use piece::DocumentPiece;
pub use placed::{PlacedPicture, PlacedSound};
pub(crate) use processor::model_file;
pub use processor::{ImageProcessor, VideoRule};
pub use report::DataReport;
pub use skip::{SkipCounts, SkipReason, SkippedSample};
pub use sound::{LogMel, MelFrames, Recording, SAMPLE_RATE, SoundError, SoundRule, Waveform};
pub use source::{DataSource, SourcePosition};
pub use tokenizer::{HuggingFace, SpecialTokens, Tokenizer};
pub(crate) use video::SAMPLE_SHIFT;
pub use video::{
    CaptionedVideo, ChannelLatents, ClipBatch, ClipLoader, ClipLoaderConfig, ClipPosition,
    FlowTimes, FrameInfo, FrameSource, LatentShape, LatentStatistics, Latents, TimeDistribution,
    Video, VideoError, caption_tokens, joined_spaces, noisy,
};
pub use visual::Visual;
pub use webdataset::{
    Folders, IndexRequest, IndexedShard, MediaCounts, ShardCache, SizeLimits, WebDataset,
    WebDatasetConfig,
};
