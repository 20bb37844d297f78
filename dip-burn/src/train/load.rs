//! How full and how even the microbatches of a batch are.

use dip_core::{BatchMeta, DitSpec, ImageSize, ModelSpec, ModuleKind, VitSpec};

/// Patches of the images of each microbatch; empty for models without images.
pub fn microbatch_patches(model: &ModelSpec, batch: &BatchMeta) -> Vec<u64> {
    let vits = || model.modules.iter().filter_map(|module| module.kind.get::<VitSpec>());
    if vits().next().is_none() {
        return Vec::new();
    }
    let patches = |images: &dip_core::Images, vit: &VitSpec| -> u64 {
        let of_run = |(size, n): (ImageSize, u64)| n * u64::from(size.patches);
        images.runs(0..images.len(), vit.image_size()).map(of_run).sum()
    };
    let microbatches = batch.microbatches.iter();
    microbatches.map(|m| vits().map(|vit| patches(&m.images, vit)).sum()).collect()
}

/// Share of the packed sequences that holds none of the `tokens` of documents; `None` for models of clips, which are not padded.
pub fn microbatch_padding(model: &ModelSpec, batch: &BatchMeta, tokens: u64) -> Option<f64> {
    let is_clips = |kind: &ModuleKind| kind.get::<DitSpec>().is_some();
    if model.modules.iter().any(|module| is_clips(&module.kind)) {
        return None;
    }
    let room = batch.microbatches.len() as u64 * u64::from(model.sequence_tokens);
    (room > 0).then(|| 1.0 - tokens as f64 / room as f64)
}

#[cfg(test)]
mod tests {
    use dip_core::{Images, MicrobatchMeta, presets};

    use super::*;

    #[test]
    fn patches_and_padding_follow_from_the_metadata() {
        let size = |patches| ImageSize { patches, tokens: patches / 4, views: 1 };
        let microbatch = |images| MicrobatchMeta { images, ..MicrobatchMeta::default() };
        let batch = BatchMeta {
            iteration: 0,
            microbatches: vec![
                microbatch(Images::Count(3)),
                microbatch(vec![size(16), size(100)].into()),
                microbatch(Images::Count(0)),
            ],
        };
        let model = presets::model("vlm-tiny").unwrap();
        assert_eq!(microbatch_patches(&model, &batch), [3 * 64, 116, 0]);
        let room = 3 * u64::from(model.sequence_tokens);
        assert_eq!(microbatch_padding(&model, &batch, room / 4), Some(0.75));
        assert_eq!(microbatch_padding(&model, &BatchMeta::default(), 0), None);
        let clips = presets::model("t2v-tiny").unwrap();
        assert_eq!(
            (microbatch_patches(&clips, &batch), microbatch_padding(&clips, &batch, 8)),
            (Vec::new(), None)
        );
    }
}
