//! `dip caption`: texts for pictures.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use dip::train::data::Picture;
use dip_files::Kind;
use serde::Serialize;

use super::{From, print_json};

#[derive(Debug, Args)]
pub struct CaptionCommand {
    /// The pictures: JPEG, PNG, WebP, GIF, BMP or TIFF files
    #[arg(required = true, value_name = "PICTURE")]
    pictures: Vec<PathBuf>,
    #[command(flatten)]
    from: From,
    /// What a model for conversations is asked; by default to describe the picture
    #[arg(long)]
    ask: Option<String>,
    /// Most tokens of a caption, in place of the run's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    max_tokens: Option<u32>,
    /// Print one line of JSON for each picture
    #[arg(long)]
    json: bool,
}

/// A picture with its caption.
#[derive(Debug, Serialize)]
struct Captioned<'a> {
    picture: &'a Path,
    caption: &'a str,
}

impl CaptionCommand {
    pub fn run(&self) -> Result<ExitCode> {
        let pictures =
            self.pictures.iter().map(|path| picture(path)).collect::<Result<Vec<_>>>()?;
        let mut trained = self.from.trained()?;
        if let Some(most) = self.max_tokens {
            trained.config.evaluation.max_caption_tokens = Some(most as usize);
        }
        let captions = trained.open()?.caption(&pictures, self.ask.as_deref())?;
        for (picture, caption) in self.pictures.iter().zip(&captions) {
            match self.json {
                true => print_json(&Captioned { picture, caption })?,
                false => println!("{}: {}", picture.display(), caption.trim()),
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A picture that can be decoded.
fn picture(path: &Path) -> Result<Picture> {
    let shown = || path.display().to_string();
    let bytes = dip_files::read(path, Kind::MEDIA).with_context(shown)?;
    let picture = Picture::Encoded(bytes.into());
    picture.check().with_context(shown)?;
    Ok(picture)
}
