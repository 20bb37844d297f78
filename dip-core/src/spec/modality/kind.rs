//! The list of modalities.

use std::any::Any;
use std::sync::Arc;

use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{AudioSpec, DecoderSpec, DitSpec, Modality, T5Spec, VitSpec};

/// The modality of a module, with its settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ModuleKind {
    /// Vision encoder with a spatial-merge adapter at its end.
    Vit(VitSpec),
    /// Audio encoder.
    Audio(AudioSpec),
    /// Causal language model: a backbone with a head, or a text encoder without.
    Decoder(DecoderSpec),
    /// Diffusion transformer with cross attention to its inputs.
    Dit(DitSpec),
    /// Text encoder of the T5 type, whose tokens all attend to each other.
    T5(T5Spec),
    /// A modality of another crate.
    #[cfg_attr(feature = "schema", schemars(skip))]
    Other(OtherModality),
}

impl ModuleKind {
    /// A modality of another crate.
    pub fn other(modality: impl Modality) -> Self {
        Self::Other(OtherModality(Arc::new(modality)))
    }

    /// The modality: the one place that lists them all.
    pub fn modality(&self) -> &dyn Modality {
        match self {
            Self::Vit(vit) => vit,
            Self::Audio(audio) => audio,
            Self::Decoder(decoder) => decoder,
            Self::Dit(dit) => dit,
            Self::T5(t5) => t5,
            Self::Other(other) => &*other.0,
        }
    }

    /// The settings, if the module is of modality `M`.
    pub fn get<M: Modality>(&self) -> Option<&M> {
        (self.modality() as &dyn Any).downcast_ref()
    }
}

/// A modality of another crate. Models with one are made in Rust: a file can hold its name and settings, but not read them back.
#[derive(Debug, Clone)]
pub struct OtherModality(pub Arc<dyn Modality>);

impl PartialEq for OtherModality {
    fn eq(&self, other: &Self) -> bool {
        let same = |a: &dyn Modality, b: &dyn Modality| {
            a.name() == b.name() && a.settings() == b.settings()
        };
        Arc::ptr_eq(&self.0, &other.0) || same(&*self.0, &*other.0)
    }
}

impl Serialize for OtherModality {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("name", self.0.name())?;
        map.serialize_entry("settings", &self.0.settings())?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for OtherModality {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(D::Error::custom(
            "a modality of another crate cannot be read from a file; set `kind` of the module to `ModuleKind::other(..)` in Rust",
        ))
    }
}

impl From<VitSpec> for ModuleKind {
    fn from(vit: VitSpec) -> Self {
        Self::Vit(vit)
    }
}

impl From<AudioSpec> for ModuleKind {
    fn from(audio: AudioSpec) -> Self {
        Self::Audio(audio)
    }
}

impl From<DecoderSpec> for ModuleKind {
    fn from(decoder: DecoderSpec) -> Self {
        Self::Decoder(decoder)
    }
}

impl From<DitSpec> for ModuleKind {
    fn from(dit: DitSpec) -> Self {
        Self::Dit(dit)
    }
}

impl From<T5Spec> for ModuleKind {
    fn from(t5: T5Spec) -> Self {
        Self::T5(t5)
    }
}
