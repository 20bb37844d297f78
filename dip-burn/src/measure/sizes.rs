//! The sizes of the images that stages are measured on.

use dip_core::{BatchMeta, Images, MicrobatchMeta, ModelSpec, ModuleKind};

/// `model` as its stages are measured for `batches`. An encoder that keeps proportions gets images of their mean size, and a microbatch
/// the most images and patches that one of them has.
#[must_use]
pub fn measured_model(model: &ModelSpec, batches: &[BatchMeta]) -> ModelSpec {
    let mut measured = model.clone();
    let microbatches = || batches.iter().flat_map(|batch| &batch.microbatches);
    let Some(mean) = Images::mean_size(microbatches().map(|m| &m.images)) else { return measured };
    let patches = |m: &MicrobatchMeta| -> u64 {
        m.images.sizes().iter().map(|size| u64::from(size.patches)).sum()
    };
    let side = (mean.tokens / mean.views.max(1)).isqrt().max(1);
    for module in &mut measured.modules {
        if let ModuleKind::Vit(vit) = &mut module.kind
            && vit.native.is_some()
        {
            vit.image_px = side * vit.patch_px * vit.merge;
            measured.max_patches = microbatches().map(patches).max();
            measured.max_images = microbatches().map(|m| m.images.len()).max().unwrap_or(1);
        }
    }
    measured
}

#[cfg(test)]
mod tests {
    use dip_core::{ImageSize, PixelRange, VitSpec, presets};

    use super::*;

    #[test]
    fn stages_are_measured_on_images_of_the_mean_size() {
        let size =
            |side: &u32| ImageSize { patches: 4 * side * side, tokens: side * side, views: 1 };
        let microbatch = |sides: &[u32]| MicrobatchMeta {
            images: sides.iter().map(size).collect::<Vec<_>>().into(),
            ..MicrobatchMeta::default()
        };
        let microbatches = vec![microbatch(&[2, 4]), microbatch(&[1, 1, 3]), microbatch(&[])];
        let batches = [BatchMeta { iteration: 0, microbatches }];
        let mut model = presets::model("vlm-tiny").unwrap();
        assert_eq!(measured_model(&model, &batches), model);
        for module in &mut model.modules {
            if let ModuleKind::Vit(vit) = &mut module.kind {
                vit.native = Some(PixelRange { min_pixels: 64, max_pixels: 4096 });
            }
        }
        let measured = measured_model(&model, &batches);
        // The mean of 4, 16, 1, 1 and 9 tokens, rounded up, is 7: a side of 2 tokens.
        let vit = measured.modules.iter().find_map(|m| m.kind.get::<VitSpec>()).unwrap();
        assert_eq!(vit.image_px, 2 * vit.patch_px * vit.merge);
        assert_eq!((measured.max_patches, measured.max_images), (Some(80), 3));
        assert_eq!(measured_model(&model, &[]), model);
    }
}
