//! Reads and writes files; errors name the file.

use std::path::Path;

use anyhow::{Context, Result};
use dip_files::Kind;

/// Reads a text of a kind: a file, or standard input if the path is `-`.
pub fn read_text(path: &Path, kind: Kind) -> Result<String> {
    dip_files::read_input(path, kind).with_context(|| path.display().to_string())
}

/// Writes a file whole or not at all, or to a device or pipe.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let shown = || format!("{}: cannot be written", path.display());
    dip_files::write_whole(path, bytes).with_context(shown)
}
