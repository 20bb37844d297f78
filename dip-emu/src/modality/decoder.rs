//! Decoders: token embedding, layers, and the head with its loss.

use dip_core::{Bytes, DecoderSpec};

use super::{ModalityOperators, PartBuilder, Product};

impl ModalityOperators for DecoderSpec {
    /// Each device has a share of the vocabulary and looks up only that.
    fn start(&self, part: &mut PartBuilder<'_>, _: u64) {
        let (h, tokens) = (part.hidden(), part.work().tokens);
        let ids = part.data(Bytes(4 * tokens));
        let x = part.embedding("token embedding", ids, part.whole(tokens, h));
        part.scatter(x, tokens, h);
    }

    fn end(&self, part: &mut PartBuilder<'_>, _: u64) {
        let (h, tokens) = (part.hidden(), part.work().tokens);
        let x = part.stream();
        let x = part.norm(x);
        if self.head {
            let outer = u64::from(self.vocab).div_ceil(part.devices());
            let all = part.gather(x, tokens, h);
            let logits = part.linear("head", all, x, Product { rows: tokens, inner: h, outer });
            part.loss(logits, tokens);
        }
    }
}
