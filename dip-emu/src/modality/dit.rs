//! Diffusion transformers: embeddings of patches, steps and captions, layers with cross attention, and the loss.

use dip_core::{DitSpec, STEP_EMBEDDING};

use super::{ModalityOperators, PartBuilder, Product};

impl ModalityOperators for DitSpec {
    fn start(&self, part: &mut PartBuilder<'_>, input_width: u64) {
        let (h, devices) = (part.hidden(), part.devices());
        let rows = part.work().tokens.div_ceil(devices);
        let channels = u64::from(self.token_channels);
        let latents = part.data(part.whole(rows, channels));
        let product = Product { rows, inner: channels, outer: h };
        part.linear("patch embedding", latents, latents, product);
        let steps = u64::from(part.work().instances);
        let waves = self.wan.map_or(STEP_EMBEDDING, |wan| wan.step_waves.into());
        let step = part.data(part.whole(steps, waves));
        let product = Product { rows: steps, inner: waves + h, outer: h };
        let step = part.linear("step embedding", step, step, product);
        let product = Product { rows: steps, inner: h, outer: 6 * h / devices };
        part.linear("adaptive norm", step, step, product);
        let context = part.context_tokens();
        if input_width > 0 && context > 0 {
            let rows = context.div_ceil(devices);
            let x = part.input(part.whole(rows, input_width));
            let product = Product { rows, inner: input_width, outer: h };
            let y = part.linear("context projection", x, x, product);
            if self.wan.is_some() {
                let y = part.activation("gelu", y, part.whole(rows, h));
                let product = Product { rows, inner: h, outer: h };
                part.linear("context projection 2", y, y, product);
            }
        }
    }

    fn layer(&self, part: &mut PartBuilder<'_>) {
        let x = part.stream();
        let x = part.self_attention(x);
        let x = if part.context_tokens() > 0 { part.cross_attention(x) } else { x };
        part.feed_forward(x);
    }

    fn end(&self, part: &mut PartBuilder<'_>, _: u64) {
        let x = part.stream();
        let x = part.norm(x);
        let rows = part.work().tokens.div_ceil(part.devices());
        let outer = u64::from(self.token_channels);
        let y = part.linear("output", x, x, Product { rows, inner: part.hidden(), outer });
        part.loss(y, rows);
    }
}
