//! `dip caption`: texts for pictures.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use dip::train::data::Picture;
use dip_files::Kind;
use schemars::JsonSchema;
use serde::Serialize;

use super::From;
use crate::cli::output::{Figures, JsonOutput};

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  dip caption cat.png dog.png --from run.toml")]
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
    #[command(flatten)]
    json: JsonOutput,
}

/// What `dip caption` prints.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CaptionFigures {
    /// In the order of the command line.
    captions: Vec<Captioned>,
}

/// A picture with its caption.
#[derive(Debug, Serialize, JsonSchema)]
struct Captioned {
    picture: PathBuf,
    caption: String,
}

impl Figures for CaptionFigures {
    const SCHEMA: &'static str = "dip.captions/v1";
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
        let pictures = self.pictures.iter().cloned().zip(captions);
        let captions = pictures.map(|(picture, caption)| Captioned { picture, caption });
        let figures = CaptionFigures { captions: captions.collect() };
        self.json.print(&figures, || {
            for Captioned { picture, caption } in &figures.captions {
                println!("{}: {}", picture.display(), caption.trim());
            }
        })?;
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
