//! The files of the published model that a run starts from.

use std::path::{Path, PathBuf};

use dip_core::hf::{GenerationConfig, ImageProcessorConfig, ImageRule, NativeRule};
use dip_core::{FieldError, ModelSpec, ModuleKind, PixelRange, SpecError, Tower, VitSpec};

use super::{DataConfig, EvaluationConfig, RunConfig};
use crate::data::{DataError, ImageProcessor, model_file};
use crate::weights::model_folder;

/// The value of `data.tokenizer` for the built-in tokenizer.
pub(super) const BYTES: &str = "bytes";
/// Where a run keeps the indexes of its shards, in its output folder.
const INDEXES: &str = "indexes";
/// How a published model continues texts.
const GENERATION: &str = "generation_config.json";
/// Where a published model has its tokenizer: beside its weights, or in the layout of diffusers.
const TOKENIZERS: [&str; 2] = ["tokenizer.json", "tokenizer/tokenizer.json"];

impl RunConfig {
    /// The folder of the published model: that of its weights, or of its `config.json`.
    pub fn published_folder(&self) -> Option<PathBuf> {
        let weights = self.weights.as_ref().map(|weights| weights.from.clone());
        weights.or_else(|| model_folder(&self.model))
    }

    /// The folder with the image processor of the run: `data.image_processor`, or that of the published model if it has one.
    ///
    /// # Errors
    /// [`DataError`] if its files cannot be used.
    pub fn image_processor(&self) -> Result<Option<PathBuf>, DataError> {
        if let Some(given) = &self.data.image_processor {
            return Ok(Some(given.clone()));
        }
        let Some(folder) = self.published_folder() else { return Ok(None) };
        Ok(ImageProcessor::read(&folder)?.map(|_| folder))
    }

    /// Gives the vision encoder of `model` the limits of pixels of the run's image processor, if pictures keep their proportions
    /// there: at most as many as fit a sequence. A model of the Qwen-VL family without such files has the usual limits.
    /// [`RunConfig::adapt`] comes after it.
    ///
    /// # Errors
    /// [`DataError`] if the files of the processor cannot be used.
    pub fn read_image_processor(&self, model: &mut ModelSpec) -> Result<(), DataError> {
        let rule = match self.image_processor()? {
            Some(folder) => match ImageProcessor::read(&folder)? {
                Some(ImageProcessorConfig { rule: ImageRule::Native(rule), .. }) => rule,
                _ => return Ok(()),
            },
            None => match self.usual_rule(model) {
                Some(rule) => rule,
                None => return Ok(()),
            },
        };
        let tokens = self.sequence.and_then(|sequence| sequence.tokens);
        let tokens = tokens.unwrap_or(model.sequence_tokens).saturating_sub(2);
        for module in &mut model.modules {
            if let ModuleKind::Vit(vit) = &mut module.kind {
                let token_px = u64::from(vit.patch_px).saturating_mul(u64::from(vit.merge));
                let fit = u64::from(tokens).saturating_mul(token_px.saturating_pow(2));
                let range = PixelRange {
                    min_pixels: rule.min_pixels,
                    max_pixels: rule.max_pixels.min(fit),
                };
                vit.image_px = typical_side(vit.image_px, token_px.max(1), range);
                vit.native = Some(range);
            }
        }
        Ok(())
    }

    /// True if pictures keep their proportions by the usual limits of the Qwen-VL family, because the published model has no files
    /// of an image processor and the run no `sequence.image_px`.
    ///
    /// # Errors
    /// [`DataError`] if the files of the processor cannot be used.
    pub fn assumes_native(&self, model: &ModelSpec) -> Result<bool, DataError> {
        Ok(self.image_processor()?.is_none() && self.usual_rule(model).is_some())
    }

    /// The rule of the processor of Qwen2-VL for a published model of its family without such files.
    fn usual_rule(&self, model: &ModelSpec) -> Option<NativeRule> {
        self.published_folder()?;
        let vit = model.modules.iter().find_map(|module| module.kind.get::<VitSpec>())?;
        let is_square = self.sequence.is_some_and(|sequence| sequence.image_px.is_some());
        let is_qwen = matches!(vit.tower, Tower::Qwen2Vl | Tower::Qwen3Vl) && !is_square;
        is_qwen.then(|| NativeRule::usual(vit.patch_px, vit.merge, vit.tower.frames()))
    }

    /// `[evaluation]` with the `generation_config.json` of the published model.
    ///
    /// # Errors
    /// [`DataError`] if the file cannot be used.
    pub fn evaluation_of_model(&self) -> Result<EvaluationConfig, DataError> {
        let own = self.evaluation.clone();
        let Some(folder) = self.published_folder() else { return Ok(own) };
        let path = folder.join(GENERATION);
        let Some(text) = model_file(&path)? else { return Ok(own) };
        let model = GenerationConfig::read(&text);
        let wrong = |error: SpecError| DataError::ModelFile { path, source: error.into() };
        Ok(own.or_of_model(&model.map_err(wrong)?))
    }

    /// The data of the run, with the tokenizer and the image processor that it takes from the published model.
    ///
    /// # Errors
    /// [`DataError`] if their files cannot be used.
    pub fn data_of_model(&self) -> Result<DataConfig, DataError> {
        let (tokenizer, image_processor) = (self.tokenizer()?, self.image_processor()?);
        let indexes = self.data.indexes.clone().unwrap_or_else(|| self.output.join(INDEXES));
        let indexes = Some(indexes);
        Ok(DataConfig { tokenizer, image_processor, indexes, ..self.data.clone() })
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

/// The side of a typical picture: `image_px`, or the next one whose square is within the range.
fn typical_side(image_px: u32, token_px: u64, range: PixelRange) -> u32 {
    let pixels = u64::from(image_px).pow(2);
    let side = if pixels > range.max_pixels {
        (range.max_pixels.isqrt() / token_px).max(1) * token_px
    } else if pixels < range.min_pixels {
        (range.min_pixels - 1).isqrt().div_ceil(token_px).max(1) * token_px
    } else {
        return image_px;
    };
    u32::try_from(side).unwrap_or(image_px)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_takes_the_limits_of_pixels_from_the_processor_of_its_weights() {
        let folder = tempfile::tempdir().unwrap();
        let run = format!(
            "name = 'a'\nmodel = 'vlm-tiny'\niterations = 1\noutput = 'o'\n[weights]\nfrom = '{}'\n",
            folder.path().display()
        );
        let run = RunConfig::from_toml(&run).unwrap();
        let mut model = dip_core::presets::model("vlm-tiny").unwrap();
        let before = model.clone();
        run.read_image_processor(&mut model).unwrap();
        assert_eq!((&model, run.image_processor().unwrap()), (&before, None));
        let file = folder.path().join("preprocessor_config.json");
        let qwen = r#"{"image_processor_type": "Qwen2VLImageProcessor", "min_pixels": 64, "max_pixels": 999999999"#;
        std::fs::write(&file, qwen.replace("999999999", "9999999") + "}").unwrap();
        run.read_image_processor(&mut model).unwrap();
        assert_eq!(run.image_processor().unwrap().as_deref(), Some(folder.path()));
        let vit = model.modules.iter().find_map(|m| m.kind.get::<dip_core::VitSpec>()).unwrap();
        let token_px = u64::from(vit.patch_px * vit.merge);
        let fit = u64::from(model.sequence_tokens - 2) * token_px * token_px;
        assert_eq!(vit.native, Some(PixelRange { min_pixels: 64, max_pixels: fit }));
        std::fs::write(&file, format!("{qwen}}}")).unwrap();
        let error = run.image_processor().unwrap_err().to_string();
        assert!(error.contains("preprocessor_config.json: max_pixels is 999999999"), "{error}");
    }

    #[test]
    fn a_qwen_model_without_processor_files_keeps_proportions() {
        let folder = tempfile::tempdir().unwrap();
        let run = format!(
            "name = 'a'\nmodel = '{}'\niterations = 1\noutput = 'o'\n[sequence]\ntokens = 100\n",
            folder.path().display()
        );
        let mut model = dip_core::presets::model("vlm-tiny").unwrap();
        let native = |run: &str, model: &mut ModelSpec| {
            let run = RunConfig::from_toml(run).unwrap();
            run.read_image_processor(model).unwrap();
            let assumes = run.assumes_native(model).unwrap();
            let vit = model.modules.iter().find_map(|m| m.kind.get::<VitSpec>()).unwrap();
            (assumes, vit.native)
        };
        assert_eq!(native(&run, &mut model), (false, None), "another tower");
        for module in &mut model.modules {
            if let ModuleKind::Vit(vit) = &mut module.kind {
                (vit.tower, vit.patch_px, vit.merge, vit.image_px) = (Tower::Qwen2Vl, 14, 2, 448);
            }
        }
        let squares = format!("{run}image_px = 448\n");
        assert_eq!(native(&squares, &mut model), (false, None), "the run wants squares");
        let range = PixelRange { min_pixels: 56 * 56, max_pixels: 98 * 28 * 28 };
        assert_eq!(native(&run, &mut model), (true, Some(range)));
    }

    #[test]
    fn a_typical_picture_is_within_the_limits() {
        let range = |min_pixels, max_pixels| PixelRange { min_pixels, max_pixels };
        assert_eq!(typical_side(448, 28, range(3136, 1 << 20)), 448);
        assert_eq!(typical_side(448, 28, range(3136, 100_000)), 308);
        assert_eq!(typical_side(448, 28, range(250_000, 1 << 20)), 504);
    }

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
