//! The default for modalities of other crates: a linear embedding, transformer layers, an adapter.

use super::{ModalityOperators, PartBuilder, Product};

/// A linear embedding of rows as wide as the module, transformer layers, and an adapter.
pub(super) struct Plain;

impl ModalityOperators for Plain {
    fn start(&self, part: &mut PartBuilder<'_>, _: u64) {
        let h = part.hidden();
        let rows = part.work().tokens.div_ceil(part.devices());
        let values = part.data(part.whole(rows, h));
        part.linear("embedding", values, values, Product { rows, inner: h, outer: h });
    }
}
