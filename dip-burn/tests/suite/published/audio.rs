//! Qwen2-Audio. Its sounds are shorter than the longest one; `transformers` pads them and masks the padding.

use dip_core::*;

use super::checks::{options_change_logits, standard_checks};

standard_checks!(qwen2_audio: "qwen2-audio");

#[test]
fn every_option_of_qwen2_audio_changes_its_logits() {
    options_change_logits(&[
        ("qwen2-audio", 0, "activation", |m| m.options.activation = Activation::QuickGelu),
        ("qwen2-audio", 0, "epsilon", |m| m.options.norm_epsilon = 1e-2),
    ]);
}
