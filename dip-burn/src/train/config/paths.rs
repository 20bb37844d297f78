//! Paths in a run file: they are relative to its folder.

use std::path::{Component, Path, PathBuf};

use dip_core::{FieldError, presets};

use super::RunConfig;
use super::published::BYTES;

impl RunConfig {
    /// Makes the paths of a run file that lies in `folder` relative to the current folder.
    ///
    /// # Errors
    /// [`FieldError`] names a path that does not exist there, but exists when it is taken from the current folder.
    pub fn resolve(&mut self, folder: &Path) -> Result<(), FieldError> {
        self.output = resolved(folder, &self.output);
        if presets::model(&self.model).is_none() {
            let mut model = PathBuf::from(&self.model);
            resolve("model", folder, &mut model)?;
            self.model = model.to_string_lossy().into_owned();
        }
        self.inputs().into_iter().try_for_each(|(field, path)| resolve(field, folder, path))
    }

    /// Makes the paths, which are relative to the current folder, fit for a run file in `folder`: they become absolute, unless that is
    /// the current folder.
    pub fn write_into(&mut self, folder: &Path) {
        if folder.as_os_str().is_empty() {
            return;
        }
        let full = |path: &mut PathBuf| {
            if !is_url(path)
                && let Ok(absolute) = std::path::absolute(&path)
            {
                *path = absolute;
            }
        };
        full(&mut self.output);
        if presets::model(&self.model).is_none() {
            let mut model = PathBuf::from(&self.model);
            full(&mut model);
            self.model = model.to_string_lossy().into_owned();
        }
        self.inputs().into_iter().for_each(|(_, path)| full(path));
    }

    /// All paths that are read, by field.
    fn inputs(&mut self) -> Vec<(&'static str, &mut PathBuf)> {
        let mut all: Vec<(&'static str, &mut PathBuf)> = Vec::new();
        if let Some(weights) = &mut self.weights {
            all.push(("weights.from", &mut weights.from));
            all.extend(weights.adapter.iter_mut().map(|path| ("weights.adapter", path)));
        }
        let data = &mut self.data;
        let tokenizer = data.tokenizer.iter_mut().filter(|path| **path != Path::new(BYTES));
        all.extend(tokenizer.map(|path| ("data.tokenizer", path)));
        all.extend(data.shards.iter_mut().map(|path| ("data.shards", path)));
        all.extend(data.held_out.iter_mut().map(|path| ("data.held_out", path)));
        let options = [
            ("data.images", &mut data.images),
            ("data.cache", &mut data.cache),
            ("data.indexes", &mut data.indexes),
            ("data.image_processor", &mut data.image_processor),
            ("data.vae", &mut data.vae),
        ];
        all.extend(options.into_iter().filter_map(|(field, path)| Some((field, path.as_mut()?))));
        for part in &mut data.mixture {
            all.extend(part.shards.iter_mut().map(|path| ("data.mixture.shards", path)));
            all.extend(part.images.iter_mut().map(|path| ("data.mixture.images", path)));
        }
        all
    }
}

fn resolve(field: &str, folder: &Path, path: &mut PathBuf) -> Result<(), FieldError> {
    if is_url(path) {
        return Ok(());
    }
    let there = resolved(folder, path);
    if !exists(&there) && exists(path) {
        let (shown, there) = (path.display(), there.display());
        let limit = format!(
            "a path from the folder of the run file: {there} does not exist, but {shown} of the current folder does"
        );
        let remedy = "write the path from the folder of the run file";
        return Err(FieldError::new(field, format!("{shown:?}"), limit, remedy));
    }
    *path = there;
    Ok(())
}

fn is_url(path: &Path) -> bool {
    path.to_str().is_some_and(|url| url.contains("://"))
}

/// True if there is such a file or folder, or a folder for such a pattern.
fn exists(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match name.contains(['*', '?']) {
        true => dip_files::parent(path).exists(),
        false => path.exists(),
    }
}

/// A path from `folder`. Leading `..` leave the folder by its real path, which keeps the result short.
fn resolved(folder: &Path, path: &Path) -> PathBuf {
    let up = path.components().take_while(|part| *part == Component::ParentDir).count();
    let real =
        if up > 0 { dip_files::parent(&folder.join("run")).canonicalize().ok() } else { None };
    let above = real.as_deref().and_then(|real| real.ancestors().nth(up));
    let (Some(above), Ok(current)) = (above, std::env::current_dir()) else {
        return folder.join(path);
    };
    let rest: PathBuf = path.components().skip(up).collect();
    let full = above.join(rest);
    full.strip_prefix(current).map_or_else(|_| full.clone(), Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_to_the_run_file() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let folder = root.join("runs");
        for name in ["runs", "data", "runs/own"] {
            std::fs::create_dir(root.join(name)).unwrap();
        }
        let text = "name = 'a'\nmodel = 'own/small.toml'\niterations = 1\noutput = '../out/a'\n\
                    [weights]\nfrom = '/weights'\n\
                    [data]\ntokenizer = 'bytes'\nshards = ['../data/*.tar', 's3://bucket/a.tar']\n\
                    images = 'pictures'\n";
        let mut run = RunConfig::from_toml(text).unwrap();
        run.resolve(&folder).unwrap();
        assert_eq!(Path::new(&run.model), folder.join("own/small.toml"));
        assert_eq!(run.output, root.join("out/a"));
        assert_eq!(run.weights.unwrap().from, Path::new("/weights"));
        let data = run.data;
        assert_eq!(data.tokenizer.as_deref(), Some(Path::new("bytes")));
        assert_eq!(data.shards, [root.join("data/*.tar"), "s3://bucket/a.tar".into()]);
        assert_eq!(data.images, Some(folder.join("pictures")));
    }

    #[test]
    fn a_run_that_is_written_into_another_folder_reads_the_same_files() {
        let text = "name = 'a'\nmodel = 'vlm-tiny'\niterations = 1\noutput = 'o'\n\
                    [data]\nshards = ['src/*.tar', 's3://bucket/a.tar']\n";
        let mut run = RunConfig::from_toml(text).unwrap();
        let here = run.clone();
        run.write_into(Path::new(""));
        assert_eq!(run, here);
        run.write_into(Path::new("/nowhere"));
        run.resolve(Path::new("/nowhere")).unwrap();
        let current = std::env::current_dir().unwrap();
        assert_eq!((run.output, run.model.as_str()), (current.join("o"), "vlm-tiny"));
        assert_eq!(run.data.shards, [current.join("src/*.tar"), "s3://bucket/a.tar".into()]);
    }

    #[test]
    fn a_path_of_the_current_folder_is_refused_and_both_places_are_named() {
        // Tests run in the folder of the crate.
        let text = "name = 'a'\nmodel = 'vlm-tiny'\niterations = 1\noutput = 'o'\n\
                    [data]\nshards = ['src/*.tar']\n";
        let mut run = RunConfig::from_toml(text).unwrap();
        run.clone().resolve(Path::new("")).unwrap();
        let error = run.resolve(Path::new("/nowhere")).unwrap_err().to_string();
        for part in ["data.shards", "/nowhere/src/*.tar does not exist", "src/*.tar of the current"]
        {
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(run.model, "vlm-tiny");
    }
}
