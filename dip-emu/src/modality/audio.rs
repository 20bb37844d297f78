//! Audio encoders: two convolutions, layers, adapter.

use dip_core::{AUDIO_KERNEL, AudioProjector, AudioSpec};

use super::{ModalityOperators, PartBuilder, Product};

impl ModalityOperators for AudioSpec {
    fn start(&self, part: &mut PartBuilder<'_>, _: u64) {
        let (h, values) = (part.hidden(), AUDIO_KERNEL * u64::from(self.mel_bands));
        let rows = part.work().tokens.div_ceil(part.devices());
        // The second convolution has a stride of 2.
        let sound = part.data(part.whole(2 * rows, values));
        let product = Product { rows: 2 * rows, inner: values, outer: h };
        let x = part.linear("convolution 1", sound, sound, product);
        let x = part.activation("gelu", x, part.whole(2 * rows, h));
        let product = Product { rows, inner: AUDIO_KERNEL * h, outer: h };
        let x = part.linear("convolution 2", x, x, product);
        part.activation("gelu", x, part.whole(rows, h));
    }
    fn end(&self, part: &mut PartBuilder<'_>, output_width: u64) {
        match self.projector {
            AudioProjector::Merger => part.adapter(output_width),
            AudioProjector::Pooled => {
                let x = part.stream();
                let x = part.norm(x);
                let rows = part.work().output_tokens.div_ceil(part.devices());
                let product = Product { rows, inner: part.hidden(), outer: output_width };
                part.linear("projector", x, x, product);
            }
        }
    }
}
