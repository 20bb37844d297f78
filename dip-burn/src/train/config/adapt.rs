//! Changes of a run to its model: sequence sizes, frozen modules, adapters, and initial weights.

use std::path::PathBuf;

use dip_core::{
    FieldError, Lora, LoraTarget, ModelSpec, ModuleKind, ModuleSpec, PixelRange, SpecError, VitSpec,
};
use serde::{Deserialize, Serialize};

use super::RunConfig;

/// `[weights]`: the initial weights.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WeightsConfig {
    /// A Hugging Face folder: `config.json` and safetensors.
    pub from: PathBuf,
    /// Initial adapters: a folder that PEFT has saved. Drawn from the seed if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<PathBuf>,
    /// Modules that are not trained, or parts of one: `vision.tower`, `vision.projector`, `language.embed`, `vision.layers.0`.
    #[serde(default)]
    pub frozen: Vec<String>,
    /// Modules that are trained although the model freezes them, such as the text encoder of a text-to-video model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trained: Vec<String>,
}

/// `[lora]`: low-rank adapters on frozen modules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// Inner width of an adapter.
    pub rank: u32,
    /// Scale of an adapter times its rank: the product of an adapter is multiplied by `alpha / rank`.
    pub alpha: f64,
    /// Modules whose weights are frozen and get adapters.
    pub modules: Vec<String>,
    /// Projections that get an adapter.
    pub targets: Vec<LoraTarget>,
    /// Scale by `alpha / sqrt(rank)` instead (rsLoRA).
    pub rank_stabilized: bool,
    /// Train a magnitude of each output beside the direction of its weights (DoRA).
    pub dora: bool,
    /// Parts of these modules whose weights are trained beside the adapters, such as `vision.projector`.
    pub full: Vec<String>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 16.0,
            modules: vec![dip_core::hf::LANGUAGE.into()],
            targets: vec![LoraTarget::Query, LoraTarget::Value],
            rank_stabilized: false,
            dora: false,
            full: Vec::new(),
        }
    }
}

/// `[sequence]`: sizes of a packed sequence, in place of the model's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct SequenceConfig {
    /// Tokens, images included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u32>,
    /// Most images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<u32>,
    /// Most patches of all images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_patches: Option<u64>,
    /// Side of an image, or of a typical image if images keep their proportions, in pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_px: Option<u32>,
    /// Fewest pixels of an image that keeps its proportions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_pixels: Option<u64>,
    /// Most pixels of an image that keeps its proportions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_pixels: Option<u64>,
    /// Most tokens of one latent frame of a clip.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame_tokens: Option<u32>,
    /// Most clips of one microbatch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clips: Option<u32>,
}

impl RunConfig {
    /// Applies the run's changes to its model.
    ///
    /// # Errors
    /// [`SpecError`] if a module is unknown or a size does not fit the model.
    pub fn adapt(&self, model: &mut ModelSpec) -> Result<(), SpecError> {
        self.resize(model);
        for name in self.weights.iter().flat_map(|w| &w.trained) {
            module(model, "weights.trained", name)?.trainable = true;
        }
        for name in self.weights.iter().flat_map(|w| &w.frozen) {
            let (name, part) = name.split_once('.').unwrap_or((name, ""));
            let module = module(model, "weights.frozen", name)?;
            match part {
                "" => module.trainable = false,
                part => module.frozen.push(part.to_owned()),
            }
        }
        if let Some(config) = &self.lora {
            config.apply(model)?;
        }
        for module in &mut model.modules {
            if let ModuleKind::Decoder(decoder) = &mut module.kind
                && decoder.head
            {
                decoder.z_loss = self.optimizer.z_loss;
            }
        }
        check_something_is_trained(model)?;
        model.validate()
    }

    fn resize(&self, model: &mut ModelSpec) {
        let Some(sequence) = self.sequence else { return };
        let SequenceConfig { tokens, images, image_patches, image_px, .. } = sequence;
        model.sequence_tokens = tokens.unwrap_or(model.sequence_tokens);
        model.max_patches = image_patches.or(model.max_patches);
        model.max_clips = sequence.clips.unwrap_or(model.max_clips);
        for module in &mut model.modules {
            if let (ModuleKind::Dit(dit), Some(tokens)) = (&mut module.kind, sequence.frame_tokens)
            {
                dit.tokens_per_frame = tokens;
            }
            if let ModuleKind::Vit(vit) = &mut module.kind {
                vit.image_px = image_px.unwrap_or(vit.image_px);
                vit.native = sequence.pixels(vit);
            }
        }
        // No more images than fit the sequence.
        let per_image: u32 = model.modules.iter().map(ModuleSpec::tokens_per_image).sum();
        let fit = model.sequence_tokens.checked_div(per_image).unwrap_or(0);
        model.max_images = images.unwrap_or(model.max_images.min(fit));
    }
}

impl SequenceConfig {
    /// The sizes of images: those of the encoder, with the limits of the run. A run that gives one limit keeps proportions.
    fn pixels(&self, vit: &VitSpec) -> Option<PixelRange> {
        let token = u64::from(vit.patch_px).saturating_mul(u64::from(vit.merge)).saturating_pow(2);
        let own = u64::from(vit.image_px).pow(2);
        match (vit.native, self.min_pixels, self.max_pixels) {
            (native, None, None) => native,
            (native, min, max) => Some(PixelRange {
                min_pixels: min.or(native.map(|n| n.min_pixels)).unwrap_or(token),
                max_pixels: max.or(native.map(|n| n.max_pixels)).unwrap_or(own),
            }),
        }
    }
}

impl LoraConfig {
    fn apply(&self, model: &mut ModelSpec) -> Result<(), SpecError> {
        let Self { rank, alpha, modules, targets, rank_stabilized, dora, full } = self.clone();
        let lora = Lora { rank, alpha, targets, rank_stabilized, dora, full: Vec::new() };
        lora.validate("lora")?;
        for name in &modules {
            let module = module(model, "lora.modules", name)?;
            (module.lora, module.trainable) = (Some(lora.clone()), true);
        }
        for name in &full {
            let (of, part) = name.split_once('.').unwrap_or((name, ""));
            match module(model, "lora.full", of)?.lora.as_mut().filter(|_| !part.is_empty()) {
                Some(lora) => lora.full.push(part.to_owned()),
                None => {
                    let limit = "a part of one of lora.modules, such as vision.projector";
                    let remedy = "leave it out: modules without adapters are trained in full";
                    let value = format!("{name:?}");
                    return Err(FieldError::new("lora.full", value, limit, remedy).into());
                }
            }
        }
        Ok(())
    }
}

/// Refuses a run that would change nothing.
fn check_something_is_trained(model: &ModelSpec) -> Result<(), FieldError> {
    if model.modules.iter().any(|module| module.trainable) {
        return Ok(());
    }
    let names: Vec<_> = model.modules.iter().map(|m| m.name.as_str()).collect();
    let limit = format!("fewer than all modules ({})", names.join(", "));
    let remedy = "train one of them, or give it adapters with [lora]";
    Err(FieldError::new("weights.frozen", "every module", limit, remedy))
}

fn module<'a>(
    model: &'a mut ModelSpec,
    path: &str,
    name: &str,
) -> Result<&'a mut ModuleSpec, FieldError> {
    let names: Vec<_> = model.modules.iter().map(|m| m.name.clone()).collect();
    model.modules.iter_mut().find(|m| m.name == name).ok_or_else(|| {
        let limit = format!("one of {}", names.join(", "));
        FieldError::new(path, format!("{name:?}"), limit, "name a module of the model")
    })
}

#[cfg(test)]
mod tests {
    use dip_core::DecoderSpec;

    use super::*;

    fn adapted(more: &str) -> Result<ModelSpec, String> {
        let run = "name = 'a'\nmodel = 'vlm-tiny'\niterations = 10\noutput = 'runs/a'\n";
        let run = RunConfig::from_toml(&format!("{run}{more}")).map_err(|e| e.to_string())?;
        let mut model = dip_core::presets::model("vlm-tiny").unwrap();
        run.adapt(&mut model).map_err(|e| e.to_string())?;
        Ok(model)
    }

    #[test]
    fn a_run_freezes_modules_gives_adapters_and_changes_sizes() {
        let model = adapted(
            "[weights]\nfrom = 'w'\nfrozen = ['vision']\n[lora]\nrank = 4\ntargets = ['query', 'up']\n\
             [sequence]\ntokens = 100\nimage_px = 48\n",
        )
        .unwrap();
        let parts = "[weights]\nfrom = 'w'\nfrozen = ['vision.tower']\n[lora]\nmodules = ['vision']\nrank = 4\n\
                     rank_stabilized = true\nfull = ['vision.projector']\n[optimizer]\nz_loss = 1e-4\n";
        let other = adapted(parts).unwrap();
        let vision = &other.modules[0];
        assert!(vision.trains("merger.fc1.weight", false));
        assert!(!vision.trains("layers.0.attention.query.lora.a", true), "the tower is frozen");
        assert_eq!(vision.lora.as_ref().unwrap().scale(), 8.0);
        let head: DecoderSpec = *other.modules[1].kind.get().unwrap();
        assert_eq!(head.z_loss, 1e-4);
        let [vision, language] = model.modules.as_slice() else { panic!("two modules") };
        assert!(!vision.trainable && vision.lora.is_none() && vision.tokens_per_image() == 36);
        let lora = language.lora.as_ref().unwrap();
        assert_eq!((lora.rank, lora.scale(), lora.targets.len()), (4, 4.0, 2));
        assert_eq!((model.sequence_tokens, model.max_images), (100, 2));
    }

    #[test]
    fn a_run_that_limits_pixels_keeps_proportions() {
        let model =
            adapted("[sequence]\nmin_pixels = 256\nmax_pixels = 4096\nimage_patches = 300\n")
                .unwrap();
        let vit = model.modules[0].kind.get::<VitSpec>().unwrap();
        assert_eq!(vit.native, Some(PixelRange { min_pixels: 256, max_pixels: 4096 }));
        assert_eq!((vit.largest_size().patches, model.patch_limit()), (256, 300));
        let least = adapted("[sequence]\nmin_pixels = 63\n").unwrap_err();
        assert!(least.contains("kind.vit.native.min_pixels is 63"), "{least}");
        let typical = adapted("[sequence]\nimage_px = 64\nmax_pixels = 1024\n").unwrap_err();
        assert!(typical.contains("the square of kind.vit.image_px is 4096"), "{typical}");
    }

    #[test]
    fn a_run_trains_a_module_that_its_model_freezes() {
        let run = "name = 'a'\nmodel = 'wan'\niterations = 10\noutput = 'runs/a'\n\
                   [weights]\nfrom = 'w'\ntrained = ['text']\n";
        let mut model = dip_core::presets::model("t2v-tiny").unwrap();
        model.modules[0].trainable = false;
        RunConfig::from_toml(run).unwrap().adapt(&mut model).unwrap();
        assert!(model.modules[0].name == "text" && model.modules[0].trainable);
    }

    #[test]
    fn settings_that_do_not_fit_the_model_are_named() {
        for (more, named) in [
            (
                "[lora]\nmodules = ['eye']\n",
                "lora.modules is \"eye\", but must be one of vision, language",
            ),
            ("[lora]\nrank = 0\n", "lora.rank is 0, but must be 1 to 4096"),
            ("[lora]\nalpha = nan\n", "lora.alpha is NaN"),
            ("[lora]\ntargets = []\n", "lora.targets is empty"),
            ("[lora]\ntargets = ['head']\n", "unknown variant `head`"),
            (
                "[lora]\nmodules = ['vision']\ntargets = ['gate']\n",
                "module \"vision\".lora.targets",
            ),
            ("[weights]\nfrom = 'w'\nfrozen = ['x']\n", "weights.frozen is \"x\""),
            ("[weights]\nfrom = 'w'\ntrained = ['x']\n", "weights.trained is \"x\""),
            ("[weights]\nfrom = 'w'\nfrozen = ['x.tower']\n", "weights.frozen is \"x\""),
            (
                "[weights]\nfrom = 'w'\nfrozen = ['vision', 'language']\n",
                "weights.frozen is every module, but must be fewer than all modules",
            ),
            ("[lora]\nfull = ['vision.projector']\n", "lora.full is \"vision.projector\""),
            ("[lora]\nfull = ['language']\n", "lora.full is \"language\""),
            ("[sequence]\nimage_px = 3\n", "kind.vit.patch_px is 4"),
            ("[sequence]\ntokens = 0\n", "sequence_tokens is 0"),
        ] {
            let error = adapted(more).unwrap_err();
            assert!(error.contains(named), "{more}: {error}");
        }
    }
}
