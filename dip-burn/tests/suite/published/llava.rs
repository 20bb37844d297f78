//! LLaVA 1.5, LLaVA-NeXT and LLaVA-OneVision, with towers of CLIP and SigLIP.

use dip_core::*;

use super::checks::{options_change_logits, standard_checks};

standard_checks!(
    clip: "llava-clip",
    clip_full: "llava-clip-full",
    siglip: "llava-siglip",
    siglip_last: "llava-siglip-last",
    next: "llava-next",
    onevision: "llava-onevision",
);

#[test]
fn every_option_of_llava_changes_its_logits() {
    options_change_logits(&[
        ("llava-clip", 0, "activation", |m| m.options.activation = Activation::Gelu),
        ("llava-clip", 0, "epsilon", |m| m.options.norm_epsilon = 1e-2),
        ("llava-siglip", 0, "activation", |m| m.options.activation = Activation::QuickGelu),
    ]);
}
