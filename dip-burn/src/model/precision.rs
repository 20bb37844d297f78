//! The precision of the layers.
//!
//! Weights, the sums of their gradients and the optimiser's state are f32 in every precision, as are norms, softmax, rotary
//! positions and the loss. Lower precisions apply to all activations and to the copy of the weights that the layers multiply with.

use burn::tensor::DType;
use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

use super::ModelError;

/// The type of activations and of the copy of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits with the range of f32.
    Bf16,
    /// 16 bits with more digits and less range: small gradients need a loss scale.
    F16,
}

impl Precision {
    /// The element type.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }

    /// Its name in `run.toml`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }

    /// # Errors
    /// [`ModelError::Precision`] if `device` cannot compute in it. Without this check kernels would fail with obscure messages.
    pub fn check_supported<B: Backend>(self, device: &B::Device) -> Result<(), ModelError> {
        // The layers compute in f32 on every device.
        match self == Self::F32 || B::supports_dtype(device, self.dtype()) {
            true => Ok(()),
            false => {
                Err(ModelError::Precision { precision: self.name(), backend: B::name(device) })
            }
        }
    }

    /// Bytes of an activation.
    pub fn element_bytes(self) -> u64 {
        self.dtype().size() as u64
    }
}
