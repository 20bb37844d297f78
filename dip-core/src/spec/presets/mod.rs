//! Built-in models and clusters. Their TOML files are in this folder and also serve as templates.
//!
//! Modules, tensor and pipeline degrees follow the paper's evaluation. Beyond the paper, `omni-*` combines vision and audio
//! encoders, a backbone and a video decoder, and `*-tiny` trains on two CPU cores. The paper does not give the number of
//! microbatches per iteration; the presets have 16 for four pipeline ranks and 32 for eight. Videos follow MovieGen's first
//! stage: 256 pixels, 16 frames per second, compressed 8 times in time and space, in patches of 2 x 2.

use crate::spec::cluster::ClusterSpec;
use crate::spec::model::ModelSpec;

struct Preset {
    name: &'static str,
    text: &'static str,
}

macro_rules! presets {
    ($folder:literal: $($name:literal)*) => {
        &[$(Preset { name: $name, text: include_str!(concat!($folder, "/", $name, ".toml")) }),*]
    };
}

const MODELS: &[Preset] = presets!("models":
    "vlm-s" "vlm-m" "vlm-l" "vlm-xl" "t2v-s" "t2v-l" "t2v-xl" "omni-s" "omni-l" "vlm-tiny" "omni-tiny" "t2v-tiny");
const CLUSTERS: &[Preset] = presets!("clusters": "h800" "h20" "h100" "h200" "cpu");

impl Preset {
    /// The first line of the file, which is a comment.
    fn description(&self) -> &'static str {
        self.text.lines().next().unwrap_or_default().trim_start_matches(['#', ' '])
    }
}

/// The model preset with this name, or `None`.
///
/// # Panics
/// Never: a test reads every file.
pub fn model(name: &str) -> Option<ModelSpec> {
    let preset = MODELS.iter().find(|p| p.name == name)?;
    Some(ModelSpec::from_toml(preset.text).expect("presets are valid, a test reads them all"))
}

/// The cluster preset with this name, or `None`.
///
/// # Panics
/// Never: a test reads every file.
pub fn cluster(name: &str) -> Option<ClusterSpec> {
    let preset = CLUSTERS.iter().find(|p| p.name == name)?;
    Some(ClusterSpec::from_toml(preset.text).expect("presets are valid, a test reads them all"))
}

/// Names of the model presets, those of the paper first.
pub fn model_names() -> Vec<&'static str> {
    models().map(|(name, _)| name).collect()
}

/// Names of the cluster presets.
pub fn cluster_names() -> Vec<&'static str> {
    clusters().map(|(name, _)| name).collect()
}

/// Name and one-line description of every model preset.
pub fn models() -> impl Iterator<Item = (&'static str, &'static str)> {
    MODELS.iter().map(|p| (p.name, p.description()))
}

/// Name and one-line description of every cluster preset.
pub fn clusters() -> impl Iterator<Item = (&'static str, &'static str)> {
    CLUSTERS.iter().map(|p| (p.name, p.description()))
}

/// The TOML of the model or cluster preset with this name, as a template.
pub fn source(name: &str) -> Option<&'static str> {
    MODELS.iter().chain(CLUSTERS).find(|p| p.name == name).map(|p| p.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_valid_and_named_like_its_file() {
        for (name, description) in models() {
            let model = model(name).unwrap();
            assert_eq!(model.name, name);
            assert!(description.len() > 10 && !description.contains('='), "{name}: {description}");
        }
        for (name, description) in clusters() {
            assert_eq!(cluster(name).unwrap().name, name);
            assert!(description.len() > 10 && !description.contains('='), "{name}: {description}");
        }
        assert!(model("vlm").is_none() && cluster("H800").is_none());
    }

    #[test]
    fn models_survive_their_toml_form() {
        for (name, _) in models() {
            let model = model(name).unwrap();
            assert_eq!(ModelSpec::from_toml(&model.to_toml().unwrap()).unwrap(), model, "{name}");
        }
    }

    #[test]
    fn modules_of_the_paper_have_the_parameters_of_their_names() {
        for (preset, module, billions) in [
            ("vlm-s", "vision", 5.0),
            ("vlm-s", "language", 8.0),
            ("vlm-m", "vision", 5.0),
            ("vlm-m", "language", 32.0),
            ("vlm-l", "vision", 22.0),
            ("vlm-l", "language", 72.0),
            ("vlm-xl", "vision", 22.0),
            ("vlm-xl", "language", 175.0),
            ("t2v-s", "text", 8.0),
            ("t2v-s", "video", 5.0),
            ("t2v-l", "text", 32.0),
            ("t2v-l", "video", 30.0),
            ("t2v-xl", "text", 72.0),
            ("t2v-xl", "video", 30.0),
        ] {
            let model = model(preset).unwrap();
            let (id, _) = model.module(module).unwrap();
            let parameters = model.parameters(id).total() as f64 / 1e9;
            let error = parameters / billions - 1.0;
            assert!(error.abs() < 0.1, "{preset} {module}: {parameters:.2}e9, {error:+.3}");
        }
    }

    #[test]
    fn devices_are_those_of_the_paper() {
        for (name, devices) in [
            ("vlm-s", 16),
            ("vlm-m", 32),
            ("vlm-l", 64),
            ("t2v-s", 16),
            ("t2v-l", 64),
            ("vlm-xl", 8192),
            ("t2v-xl", 3072),
        ] {
            let p = model(name).unwrap().parallel;
            assert_eq!(p.data * p.tensor * p.pipeline, devices, "{name}");
        }
    }

    #[test]
    fn an_image_of_the_paper_takes_169_tokens_and_48_fill_a_sequence() {
        let vlm = model("vlm-s").unwrap();
        let vit = &vlm.modules[0];
        assert_eq!((vit.rows_per_image(), vit.tokens_per_image()), (2704, 169));
        assert!(vlm.max_images * 169 <= vlm.sequence_tokens);
        let tiny = model("vlm-tiny").unwrap();
        assert_eq!(
            (tiny.modules[0].rows_per_image(), tiny.modules[0].tokens_per_image()),
            (64, 16)
        );
    }
}
