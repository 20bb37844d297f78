//! The files that a run is proposed for.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Words in the name of a file that is held out.
const HELD_OUT: [&str; 7] = ["test", "val", "valid", "validation", "eval", "heldout", "dev"];
/// Ends of the names of shards. A `.json` is one if nothing else is.
const SHARDS: [&str; 7] =
    [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.zstd", ".jsonl", ".parquet"];
/// Names of folders with the pictures of JSON files.
const PICTURES: [&str; 5] = ["images", "pictures", "image", "imgs", "media"];

/// Training and held-out data.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DataFiles {
    pub train: Vec<PathBuf>,
    pub held_out: Vec<PathBuf>,
}

impl DataFiles {
    /// Sorts files, and those in folders, by their names.
    pub fn find(paths: &[PathBuf]) -> Result<Self> {
        let mut found = Self::default();
        for path in paths {
            if !path.is_dir() {
                found.add(path.clone());
                continue;
            }
            let files = in_folder(path)?;
            if files.is_empty() {
                let kinds = SHARDS.join(", ");
                bail!(
                    "{}: has no training data; give a folder with {kinds} or .json files",
                    path.display()
                );
            }
            let before = found.held_out.len();
            let (train, held_out): (Vec<_>, Vec<_>) =
                files.iter().cloned().partition(|file| !is_held_out(file));
            found.held_out.extend(held_out);
            match found.held_out.len() > before || train.iter().any(|file| is_json(file)) {
                true => found.train.extend(train),
                // All shards of the folder, also those that come later.
                false => found.train.push(path.clone()),
            }
        }
        if found.train.is_empty() {
            found.train = std::mem::take(&mut found.held_out);
        }
        Ok(found)
    }

    fn add(&mut self, file: PathBuf) {
        if is_held_out(&file) { self.held_out.push(file) } else { self.train.push(file) }
    }

    /// Folders beside the files that may have their pictures.
    pub fn picture_folders(&self) -> Vec<PathBuf> {
        let mut beside: Vec<&Path> = self.train.iter().filter_map(|file| file.parent()).collect();
        beside.dedup();
        let named = beside.iter().flat_map(|folder| PICTURES.map(|name| folder.join(name)));
        let above = beside.iter().filter_map(|folder| folder.parent());
        let above = above.flat_map(|folder| PICTURES.map(|name| folder.join(name)));
        named.chain(above).filter(|folder| folder.is_dir()).collect()
    }
}

/// The shards of a folder in their order; its `.json` files if it has no others.
fn in_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder);
    let entries = entries.with_context(|| format!("{}: cannot be read", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.is_file() && !name(file).starts_with('.'));
    files.sort();
    let ends = |file: &&PathBuf| SHARDS.iter().any(|end| name(file).ends_with(end));
    let shards: Vec<PathBuf> = files.iter().filter(ends).cloned().collect();
    files.retain(|file| is_json(file));
    Ok(if shards.is_empty() { files } else { shards })
}

fn name(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn is_json(file: &Path) -> bool {
    name(file).ends_with(".json")
}

/// True if a word of the name says that the file is held out.
fn is_held_out(file: &Path) -> bool {
    let name = name(file).to_lowercase();
    let mut words = name.split(|c: char| !c.is_ascii_alphabetic());
    words.any(|word| HELD_OUT.contains(&word))
}

/// The name of a run: that of its file, or of its model if the file is called `run`.
pub fn name_of(out: &Path, model: &str) -> String {
    let stem = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    match stem(out) {
        own if own != "run" && !own.is_empty() => own,
        _ => {
            let path = Path::new(model);
            let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
            let is_config = path.file_name().is_some_and(|name| name == "config.json");
            let path = if is_config { path.parent().unwrap_or(&path).to_owned() } else { path };
            let name = if path.is_dir() { name(&path) } else { stem(&path) };
            if name.is_empty() { "run".into() } else { name }
        }
    }
}

/// The folder of a published model with weights.
pub fn weights_of(model: &str) -> Option<PathBuf> {
    let folder = dip::train::weights::model_folder(model)?;
    let has_tensors = |folder: PathBuf| {
        let entries = std::fs::read_dir(folder).ok()?;
        let mut names = entries.filter_map(|entry| Some(entry.ok()?.path()));
        names.any(|file| file.extension().is_some_and(|e| e == "safetensors")).then_some(())
    };
    let found = has_tensors(folder.clone()).or_else(|| has_tensors(folder.join("transformer")));
    found.map(|()| folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_folder_are_sorted_by_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let find = || DataFiles::find(&[folder.path().to_owned()]);
        assert!(find().unwrap_err().to_string().contains("has no training data"));
        std::fs::write(path("chats.json"), "[]").unwrap();
        assert_eq!(find().unwrap().train, [path("chats.json")]);
        std::fs::write(path("a-0001.tar"), "").unwrap();
        assert_eq!(find().unwrap().train, [folder.path()]);
        std::fs::write(path("a-val.tar"), "").unwrap();
        let found = find().unwrap();
        assert_eq!(
            (found.train, found.held_out),
            (vec![path("a-0001.tar")], vec![path("a-val.tar")])
        );
        assert!(!is_held_out(Path::new("contest.tar")) && is_held_out(Path::new("Test_0.tar")));
    }

    #[test]
    fn a_run_is_named_by_its_file_or_its_model() {
        assert_eq!(name_of(Path::new("mine.toml"), "vlm-tiny"), "mine");
        assert_eq!(name_of(Path::new("run.toml"), "vlm-tiny"), "vlm-tiny");
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("Qwen2.5-VL");
        std::fs::create_dir(&model).unwrap();
        assert_eq!(name_of(Path::new("run.toml"), &model.to_string_lossy()), "Qwen2.5-VL");
    }
}
