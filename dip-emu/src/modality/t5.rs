//! Text encoders of the T5 type: token embedding, layers, and the last norm.

use dip_core::{Bytes, T5Spec};

use super::{ModalityOperators, PartBuilder};

impl ModalityOperators for T5Spec {
    /// Each device has a share of the vocabulary and looks up only that.
    fn start(&self, part: &mut PartBuilder<'_>, _: u64) {
        let (h, tokens) = (part.hidden(), part.work().tokens);
        let ids = part.data(Bytes(4 * tokens));
        let x = part.embedding("token embedding", ids, part.whole(tokens, h));
        part.scatter(x, tokens, h);
    }

    fn end(&self, part: &mut PartBuilder<'_>, _: u64) {
        let x = part.stream();
        part.norm(x);
    }
}
