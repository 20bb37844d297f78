//! Parts of a module: which of its parameters a setting names.

use super::{ModuleKind, ModuleSpec};

/// The first name in the path of a parameter that belongs to the adapter between an encoder and its decoder.
const PROJECTOR: [&str; 4] = ["merger", "newline", "stacked", "projector"];

/// True if `part` of a module names the parameter at `path` inside it: `projector` is the adapter at the end of an encoder, `tower` is
/// the rest of it, and any other part is the beginning of a path, such as `layers.0` or `embed`.
pub fn part_covers(part: &str, path: &str) -> bool {
    let first = path.split('.').next().unwrap_or_default();
    match part {
        "projector" => PROJECTOR.contains(&first),
        "tower" => !PROJECTOR.contains(&first),
        _ => path.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')),
    }
}

/// True if `name`, a module or a part of one such as `vision.projector`, names a parameter of the whole model.
pub fn name_covers(name: &str, parameter: &str) -> bool {
    let (module, path) = parameter.split_once('.').unwrap_or((parameter, ""));
    match name.split_once('.') {
        None => name == module,
        Some((named, part)) => named == module && part_covers(part, path),
    }
}

impl ModuleSpec {
    /// True if the parameter at `path` inside the module is trained. `is_adapter` tells the matrices of low-rank adapters.
    pub fn trains(&self, path: &str, is_adapter: bool) -> bool {
        let covered = |parts: &[String]| parts.iter().any(|part| part_covers(part, path));
        let by_lora = self.lora.as_ref().is_none_or(|lora| is_adapter || covered(&lora.full));
        self.trainable && by_lora && !covered(&self.frozen)
    }

    /// True if only the adapter of an encoder is trained: its layers run forward only. Never for encoders whose layers have adapters of
    /// their own.
    pub fn has_frozen_tower(&self) -> bool {
        let is_encoder = matches!(self.kind, ModuleKind::Vit(_) | ModuleKind::Audio(_));
        let has_features = !self.kind.modality().stacked_layers().is_empty();
        let is_frozen = self.frozen.iter().any(|part| part == "tower");
        self.trainable && is_encoder && is_frozen && !has_features && self.inputs.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_covers_whole_parts_of_a_path() {
        for (name, parameter, covers) in [
            ("vision", "vision.layers.1.attention.query.weight", true),
            ("vision", "visions.layers.1.attention.query.weight", false),
            ("vision.layers.1", "vision.layers.1.attention.query.weight", true),
            ("vision.layers.1", "vision.layers.11.attention.query.weight", false),
            ("vision.projector", "vision.merger.fc1.weight", true),
            ("vision.projector", "vision.layers.1.attention.query.weight", false),
            ("vision.tower", "vision.patch_embed.weight", true),
            ("vision.tower", "vision.newline", false),
            ("language.embed", "language.embed.weight", true),
            ("language.embed", "vision.embed.weight", false),
        ] {
            assert_eq!(name_covers(name, parameter), covers, "{name} {parameter}");
        }
    }
}
