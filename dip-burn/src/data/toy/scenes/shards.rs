//! Scenes as WebDataset shards, to try the reader on files.

use std::fs::File;
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};

use super::{Scenes, ScenesConfig};
use crate::data::document::Document;
use crate::data::toy::{append_member, write_shards};

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
    let scenes = Scenes::new(config);
    write_shards(folder, "scenes", documents, per_shard, |tar, n| {
        append(tar, n, &scenes.document(n), side_px)
    })
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
