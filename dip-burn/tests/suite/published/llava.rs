//! LLaVA with towers of CLIP and SigLIP.

use dip_core::*;

use super::checks::{options_change_logits, standard_checks};

standard_checks!(clip: "llava-clip", siglip: "llava-siglip");

#[test]
fn every_option_of_llava_changes_its_logits() {
    options_change_logits(&[
        ("llava-clip", 0, "activation", |m| m.options.activation = Activation::Gelu),
        ("llava-clip", 0, "epsilon", |m| m.options.norm_epsilon = 1e-2),
        ("llava-siglip", 0, "activation", |m| m.options.activation = Activation::QuickGelu),
    ]);
}
