//! The files of the published model that a run starts from.

use std::path::{Path, PathBuf};

use dip_core::FieldError;

use super::RunConfig;
use crate::weights::model_folder;

/// The value of `data.tokenizer` for the built-in tokenizer.
const BYTES: &str = "bytes";
/// Where a published model has its tokenizer: beside its weights, or in the layout of diffusers.
const TOKENIZERS: [&str; 2] = ["tokenizer.json", "tokenizer/tokenizer.json"];

impl RunConfig {
    /// The folder of the published model: that of its weights, or of its `config.json`.
    pub fn published_folder(&self) -> Option<PathBuf> {
        let weights = self.weights.as_ref().map(|weights| weights.from.clone());
        weights.or_else(|| model_folder(&self.model))
    }

    /// The `tokenizer.json` of the run: `data.tokenizer`, or the published model's own. `None` for the built-in bytes.
    ///
    /// # Errors
    /// [`FieldError`] if published weights come without a tokenizer and none is given, because they understand no other tokens.
    pub fn tokenizer(&self) -> Result<Option<PathBuf>, FieldError> {
        if let Some(given) = &self.data.tokenizer {
            return Ok((given != Path::new(BYTES)).then(|| given.clone()));
        }
        let Some(folder) = self.published_folder() else { return Ok(None) };
        let own = TOKENIZERS.map(|name| folder.join(name)).into_iter().find(|path| path.is_file());
        match (own, &self.weights) {
            (None, Some(_)) => {
                let limit = format!("given, because {} has no tokenizer.json", folder.display());
                let remedy = "copy the tokenizer.json of the model into its folder, or set \"bytes\" if the model reads bytes";
                Err(FieldError::new("data.tokenizer", "absent", limit, remedy))
            }
            (own, _) => Ok(own),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_reads_the_tokenizer_of_its_weights() {
        let folder = tempfile::tempdir().unwrap();
        let run = |more: &str| {
            let run =
                format!("name = 'a'\nmodel = 'vlm-tiny'\niterations = 1\noutput = 'o'\n{more}");
            RunConfig::from_toml(&run).unwrap().tokenizer()
        };
        let weights = format!("[weights]\nfrom = '{}'\n", folder.path().display());
        assert_eq!(run(""), Ok(None));
        let error = run(&weights).unwrap_err().to_string();
        assert!(
            error.contains("data.tokenizer is absent") && error.contains("\"bytes\""),
            "{error}"
        );
        assert_eq!(run(&format!("{weights}[data]\ntokenizer = 'bytes'\n")), Ok(None));
        for name in TOKENIZERS.into_iter().rev() {
            let own = folder.path().join(name);
            std::fs::create_dir_all(own.parent().unwrap()).unwrap();
            std::fs::write(&own, "{}").unwrap();
            assert_eq!(run(&weights), Ok(Some(own)));
        }
        let given = run(&format!("{weights}[data]\ntokenizer = 'other.json'\n"));
        assert_eq!(given, Ok(Some("other.json".into())));
    }
}
