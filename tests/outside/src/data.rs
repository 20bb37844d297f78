//! A data source: grey pictures, each with its brightness in words.

use std::sync::Arc;

use dip::plan::ModelSpec;
use dip::train::RunData;
use dip::train::data::{
    DataError, DataSource, Document, DocumentPiece, Loader, LoaderConfig, MediaProcessor,
    PackConfig, Picture, PictureError, PixelSource, RgbImage, SourcePosition, Tokenizer,
};

use crate::evaluation::Brightness;
use crate::packing::NewestFirst;
use crate::uses::Uses;

#[derive(Debug)]
struct Grey(u8);

impl PixelSource for Grey {
    fn rgb(&self, side_px: u32) -> Result<RgbImage, PictureError> {
        Ok(RgbImage::from_pixel(side_px, side_px, [self.0; 3].into()))
    }
}

struct Greys {
    next: u32,
    uses: Uses,
}

impl DataSource for Greys {
    fn next_document(&mut self) -> Result<Document, DataError> {
        self.uses.add("data source");
        self.next += 1;
        let grey = (self.next * 37 % 256) as u8;
        let text = if grey < 128 { "dark" } else { "bright" };
        let picture = DocumentPiece::Picture(Picture::Drawn(Arc::new(Grey(grey))));
        Ok(Document::Plain(vec![picture, DocumentPiece::Text(text.into())]))
    }

    fn position(&self) -> SourcePosition {
        SourcePosition::new(&self.next)
    }

    fn restore(&mut self, position: &SourcePosition) -> Result<(), DataError> {
        self.next = position.get()?;
        Ok(())
    }
}

pub fn open(model: &ModelSpec, uses: &Uses) -> anyhow::Result<RunData> {
    let tokenizer = Arc::new(Tokenizer::bytes());
    let config = LoaderConfig {
        pack: PackConfig::new(model, tokenizer.special())?,
        media: MediaProcessor::of_model(model)?,
        microbatches: model.microbatches,
        prefetch: 1,
    };
    let source = Box::new(Greys { next: 0, uses: uses.clone() });
    let loader =
        Loader::new(source, tokenizer, config)?.with_packing(Arc::new(NewestFirst(uses.clone())));
    let evaluator = Brightness(uses.clone());
    Ok(RunData { loader: Box::new(loader), evaluator: Some(Box::new(evaluator)) })
}
