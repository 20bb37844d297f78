//! Vision encoders: patch embedding, layers, adapter.

use dip_core::VitSpec;

use super::{ModalityOperators, PartBuilder, Product};

impl ModalityOperators for VitSpec {
    fn start(&self, part: &mut PartBuilder<'_>, _: u64) {
        let rows = part.work().tokens.div_ceil(part.devices());
        let values = 3 * u64::from(self.tower.frames()) * u64::from(self.patch_px).pow(2);
        let pixels = part.data(part.whole(rows, values));
        let product = Product { rows, inner: values, outer: part.hidden() };
        part.linear("patch embedding", pixels, pixels, product);
    }

    fn end(&self, part: &mut PartBuilder<'_>, output_width: u64) {
        match self.tower.linear_adapter() {
            true => part.linear_adapter(output_width),
            false => part.adapter(output_width),
        }
    }
}
