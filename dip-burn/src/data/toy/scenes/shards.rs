//! Scenes as WebDataset shards, to try the reader on files.

use std::fs::File;
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};

use super::{Scenes, ScenesConfig};
use crate::data::document::Document;
use crate::data::toy::append_member;

/// Writes the first `documents` documents into shards of `per_shard` documents under `folder`, as `.png` and `.txt` members
/// with image marks. Returns the shards.
///
/// # Errors
/// The system's error if the folder cannot be written.
pub fn write_scene_shards(
    folder: &Path,
    config: ScenesConfig,
    documents: u64,
    per_shard: u64,
    side_px: u32,
) -> io::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder)?;
    let scenes = Scenes::new(config);
    let mut shards = Vec::new();
    for first in (0..documents).step_by(per_shard.max(1) as usize) {
        let path = folder.join(format!("scenes-{:05}.tar", shards.len()));
        let mut tar = tar::Builder::new(File::create(&path)?);
        for n in first..documents.min(first + per_shard) {
            append(&mut tar, n, &scenes.document(n), side_px)?;
        }
        tar.into_inner()?.sync_all()?;
        shards.push(path);
    }
    Ok(shards)
}

fn append(
    tar: &mut tar::Builder<File>,
    n: u64,
    document: &Document,
    side_px: u32,
) -> io::Result<()> {
    for (i, picture) in document.pictures().enumerate() {
        let mut png = Vec::new();
        let rgb = picture.rgb(side_px).map_err(io::Error::other)?;
        rgb.write_to(&mut Cursor::new(&mut png), image::ImageFormat::Png)
            .map_err(io::Error::other)?;
        append_member(tar, &format!("{n:06}.{i}.png"), &png)?;
    }
    append_member(tar, &format!("{n:06}.txt"), document.marked_text().as_bytes())
}
