//! Idefics3 and SmolVLM.

use dip_core::*;

use super::checks::{options_change_logits, standard_checks};

standard_checks!(idefics3: "idefics3", smolvlm: "smolvlm");

#[test]
fn every_option_of_idefics_changes_its_logits() {
    options_change_logits(&[
        ("idefics3", 0, "activation", |m| m.options.activation = Activation::QuickGelu),
        ("smolvlm", 0, "epsilon", |m| m.options.norm_epsilon = 1e-1),
    ]);
}
