//! From shards or drawn scenes to packed microbatches: plain numbers, no tensors.
//!
//! ```text
//! WebDataset | Scenes -> Document -> TokenizedDocument -> PackedMicrobatch -> PlannedBatch -> DecodedBatch
//!   (DataSource)          Tokenizer      Packer               Loader         metadata only    with pixels
//! ```
//!
//! Text-to-video has its own loader of captioned videos, in [`video`].
//!
//! Counts of images and tokens are known before a single pixel is decoded, so that batch k + 1 is planned while batch k trains.
//! Every stage is deterministic by seed, and a [`LoaderPosition`] saved after any batch gives byte-identical batches from there on.

pub mod document;
pub mod error;
pub mod loader;
pub mod moving;
pub mod packing;
pub mod picture;
pub mod scenes;
pub mod shard;
pub mod tokenizer;
pub mod video;
pub mod webdataset;

pub use document::{Document, IMAGE_MARK, Piece, TokenizedDocument};
pub use error::{DataError, SkipCounts, SkipReason};
pub use loader::{
    DataSource, DecodedBatch, DecodedMicrobatch, Decoding, Loader, LoaderConfig, LoaderPosition,
    PlannedBatch, SourcePosition,
};
pub use moving::{Direction, MovingConfig, MovingShape, MovingShapes, Named, SampleMatch};
pub use packing::{
    BestFit, FirstFit, Fitting, PackConfig, PackedImage, PackedMicrobatch, Packer, PackingRule,
    Room, pack_one,
};
pub use picture::{Picture, PictureError};
pub use scenes::{CaptionMatch, Scene, Scenes, ScenesConfig, Split, caption_matches, write_shards};
pub use tokenizer::{SpecialTokens, Tokenizer};
pub use video::{
    CaptionedVideo, ClipLoader, ClipLoaderConfig, LatentShape, Latents, Video, VideoError,
};
pub use webdataset::{WebDataset, WebDatasetConfig};
