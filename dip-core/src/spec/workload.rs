//! The work of modules: the number of instances in a microbatch, and the workload of a slice of them.

use std::ops::Range;
use std::sync::Arc;

use crate::spec::batch::MicrobatchMeta;
use crate::spec::ids::ModuleId;
use crate::spec::modality::{DitSpec, Filling, InstanceLoads, ModuleSlice};
use crate::spec::model::{ModelSpec, ModuleSpec};

/// The kind of instances of a module. Slices of two modules with the same kind correspond one to one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum InstanceSpace {
    /// Images of the microbatch.
    Images,
    /// Sounds of the microbatch.
    Sounds,
    /// The one packed sequence of the microbatch.
    Sequence,
    /// Clips of the microbatch, or their captions.
    Clips,
    /// Instances of the named module, whose modality comes from another crate.
    Other(Arc<str>),
}

/// The work of one sub-microbatch in one module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Workload {
    /// Instances: images, sounds, sequences or clips.
    pub instances: u32,
    /// Tokens that pass through the layers.
    pub tokens: u64,
    /// Query-key pairs of self-attention over all sequences, without masked pairs.
    pub attention_pairs: u64,
    /// Sequences of images that attend separately: the views of all images.
    pub views: u64,
    /// Query-key pairs whose scores training computes. Causal attention computes whole blocks; see [`causal_blocks`].
    pub computed_pairs: u64,
    /// Query-key pairs in a layer whose attention stays inside windows; 0 for modules without windows.
    pub windowed_pairs: u64,
    /// Query-key pairs of cross attention.
    pub cross_pairs: u64,
    /// Caption tokens that cross attention reads.
    pub context_tokens: u64,
    /// Output tokens of the module, after merging.
    pub output_tokens: u64,
    /// Tokens that can have a loss: the text tokens.
    pub trained_tokens: u64,
}

impl Workload {
    /// The workload as a layer sees it whose attention stays inside windows.
    #[must_use]
    pub fn in_windows(self) -> Self {
        let pairs = self.windowed_pairs;
        Self { attention_pairs: pairs, computed_pairs: pairs, ..self }
    }
}

/// Maximum number of queries in one block of causal attention.
const CAUSAL_BLOCK: u64 = 128;

/// Splits the queries of causal attention over a document of `length` tokens into blocks. The queries of a block read no key
/// after its end, so that little more than half of all pairs of a long document are computed.
pub fn causal_blocks(length: u64) -> impl Iterator<Item = Range<u64>> {
    let size = block_size(length);
    (0..length.div_ceil(size)).map(move |i| i * size..length.min((i + 1) * size))
}

/// Number of query-key pairs in all [`causal_blocks`] of a document.
pub fn causal_block_pairs(length: u64) -> u64 {
    let size = block_size(length);
    let (whole, rest) = (length / size, length % size);
    // Block i, counted from 1, has `size` queries and i * size keys. The last block has the rest.
    let blocks = size.saturating_mul(size).saturating_mul(triangle(whole));
    blocks.saturating_add(rest.saturating_mul(length))
}

/// Number of queries of a block. Blocks are as equal as possible.
fn block_size(length: u64) -> u64 {
    let blocks = length.div_ceil(CAUSAL_BLOCK).max(1);
    length.div_ceil(blocks).max(1)
}

impl ModelSpec {
    /// The instance space of a module for one microbatch, and the number of its instances, `N_i`.
    pub fn instances(&self, module: ModuleId, microbatch: &MicrobatchMeta) -> (InstanceSpace, u32) {
        let module = &self.modules[module.index()];
        module.kind.modality().instances(module, microbatch)
    }

    /// The loads of the instances of a module in a microbatch, if they differ.
    pub fn instance_loads(
        &self,
        module: ModuleId,
        microbatch: &MicrobatchMeta,
    ) -> Option<InstanceLoads> {
        let module = &self.modules[module.index()];
        module.kind.modality().instance_loads(module, microbatch)
    }

    /// The work of `instances`, a range of the instances of `module` in `microbatch`.
    pub fn workload(
        &self,
        module: ModuleId,
        microbatch: &MicrobatchMeta,
        instances: Range<u32>,
    ) -> Workload {
        let module = &self.modules[module.index()];
        let slice = ModuleSlice { model: self, module, microbatch, instances };
        module.kind.modality().workload(&slice)
    }

    /// Tokens of the packed sequence of a microbatch: text, captions and the outputs of all encoders.
    pub fn sequence_length(&self, microbatch: &MicrobatchMeta) -> u64 {
        let captions: u64 = microbatch.clips.iter().map(|c| c.caption_tokens).sum();
        let tokens = |m: &ModuleSpec| m.kind.modality().sequence_tokens(m, microbatch);
        microbatch.text_tokens + captions + self.modules.iter().map(tokens).sum::<u64>()
    }

    /// A typical microbatch with `share` (0 to 1) of the images, sounds and clips that the model allows. Text fills the rest of
    /// the sequence.
    pub fn filled(&self, share: f64) -> MicrobatchMeta {
        let mut microbatch = MicrobatchMeta::default();
        for module in &self.modules {
            module.kind.modality().fill(&Filling { model: self, module, share }, &mut microbatch);
        }
        if microbatch.clips.is_empty() || microbatch.has_sequence() {
            let used = self.sequence_length(&microbatch);
            let rest = u64::from(self.sequence_tokens).saturating_sub(used);
            microbatch.text_tokens = rest.max(1);
        }
        microbatch
    }

    /// The diffusion transformer that trains on clips, if the model has one.
    pub fn video(&self) -> Option<&DitSpec> {
        self.modules.iter().find_map(|module| module.kind.get())
    }
}

impl MicrobatchMeta {
    /// True if there is a packed sequence, not only clips with captions.
    pub fn has_sequence(&self) -> bool {
        self.text_tokens > 0
            || !self.images.is_empty()
            || !self.audio_seconds.is_empty()
            || self.other.values().any(|sizes| !sizes.is_empty())
    }

    /// Instance sizes of a module whose modality comes from another crate.
    pub fn sizes_of(&self, module: &str) -> &[u64] {
        self.other.get(module).map_or(&[], Vec::as_slice)
    }
}

/// Adds with saturation, because sizes come from files.
pub(in crate::spec) fn add(total: &mut u64, more: u64) {
    *total = total.saturating_add(more);
}

pub(in crate::spec) fn square(tokens: u64) -> u64 {
    tokens.saturating_mul(tokens)
}

/// 1 + 2 + ... + n: the causal pairs of n tokens.
pub(in crate::spec) fn triangle(n: u64) -> u64 {
    n.saturating_mul(n.saturating_add(1)) / 2
}

/// The causal pairs of `length` tokens that attend to at most `window` tokens each.
pub(in crate::spec) fn window_pairs(length: u64, window: u64) -> u64 {
    let rest = length.saturating_sub(window);
    triangle(length.min(window)).saturating_add(rest.saturating_mul(window))
}

/// The pairs in all [`causal_blocks`] of a document whose tokens attend to at most `window` tokens each: a block reads no key before
/// the window of its first query.
pub(in crate::spec) fn window_block_pairs(length: u64, window: u64) -> u64 {
    let size = block_size(length);
    // The first blocks begin inside the window and read all keys before their end; they all have `size` queries unless one is the last.
    let first = window.max(1).div_ceil(size).min(length.div_ceil(size));
    let start = first.saturating_mul(size).min(length);
    let square = size.saturating_mul(size);
    let whole = start / size;
    let before =
        square.saturating_mul(triangle(whole)).saturating_add((start % size).saturating_mul(start));
    // Each of the others reads its own keys and the window before its second query.
    let keys_before = window.max(1) - 1;
    let (blocks, rest) = ((length - start) / size, (length - start) % size);
    let pairs = |queries: u64| queries.saturating_mul(queries.saturating_add(keys_before));
    before.saturating_add(blocks.saturating_mul(pairs(size))).saturating_add(pairs(rest))
}

/// Pairs within the documents of a sequence. `pairs_of` gives the pairs of one document. Tokens outside all documents form one
/// more document.
pub(in crate::spec) fn document_pairs(
    tokens: u64,
    documents: &[u64],
    pairs_of: impl Fn(u64) -> u64,
) -> u64 {
    let (mut left, mut pairs) = (tokens, 0);
    for &document in documents {
        let document = document.min(left);
        left -= document;
        add(&mut pairs, pairs_of(document));
    }
    pairs.saturating_add(pairs_of(left))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::batch::{ClipMeta, ImageSize};
    use crate::spec::modality::{AudioSpec, DitSpec, Tower, VitSpec};

    fn model() -> ModelSpec {
        ModelSpec::from_toml(
            r#"
            name = "all"
            sequence_tokens = 8192
            [[module]]
            name = "vit"
            layers = 2
            hidden = 64
            ffn = 128
            heads = 4
            kind = { vit = { image_px = 728, patch_px = 14, merge = 4 } }
            [[module]]
            name = "ears"
            layers = 2
            hidden = 64
            ffn = 128
            heads = 4
            kind = { audio = { frames_per_second = 50, merge = 4 } }
            [[module]]
            name = "lm"
            layers = 2
            hidden = 64
            ffn = 128
            heads = 4
            inputs = ["vit", "ears"]
            kind = { decoder = { vocab = 1000 } }
            [[module]]
            name = "dit"
            layers = 2
            hidden = 64
            ffn = 128
            heads = 4
            inputs = ["lm"]
            kind = { dit = { latent_frames_per_second = 4.0, tokens_per_frame = 100, token_channels = 16 } }
            "#,
        )
        .unwrap()
    }

    #[test]
    fn blocks_cover_a_document_and_see_each_key_once() {
        for length in (0..600).chain([5000, 8192]) {
            let blocks: Vec<_> = causal_blocks(length).collect();
            let rows: Vec<u64> = blocks.iter().cloned().flatten().collect();
            assert!(rows.into_iter().eq(0..length), "{length}");
            assert!(blocks.iter().all(|b| b.end - b.start <= CAUSAL_BLOCK && !b.is_empty()));
            let pairs: u64 = blocks.iter().map(|b| (b.end - b.start) * b.end).sum();
            assert_eq!(causal_block_pairs(length), pairs, "{length}");
            assert!(triangle(length) <= pairs && pairs <= length * length);
        }
        assert!(causal_block_pairs(8192) < triangle(8192) * 102 / 100);
        assert_eq!(causal_block_pairs(u64::MAX), u64::MAX, "no overflow");
    }

    #[test]
    fn windows_leave_out_keys_before_them() {
        for length in (0..300).step_by(7).chain([128, 129, 1000]) {
            for window in [1, 2, 64, 127, 128, 129, 200, 999, 1001] {
                let seen = (0..length).map(|query| (query + 1u64).min(window)).sum::<u64>();
                assert_eq!(window_pairs(length, window), seen, "{length} {window}");
                let keys = |b: &Range<u64>| b.end - (b.start + 1).saturating_sub(window);
                let pairs =
                    causal_blocks(length).map(|b| (b.end - b.start) * keys(&b)).sum::<u64>();
                assert_eq!(window_block_pairs(length, window), pairs, "{length} {window}");
            }
        }
        assert_eq!(window_block_pairs(u64::MAX, u64::MAX), u64::MAX, "no overflow");
    }

    #[test]
    fn attention_stays_inside_documents() {
        let model = model();
        let pairs = |documents: &[u64]| {
            let documents = documents.to_vec();
            let meta = MicrobatchMeta { text_tokens: 10, documents, ..Default::default() };
            model.workload(LM, &meta, 0..1).attention_pairs
        };
        assert_eq!(pairs(&[]), 55);
        assert_eq!(pairs(&[4, 6]), 10 + 21);
        assert_eq!(pairs(&[4]), 10 + 21, "the rest is a document");
        assert_eq!(pairs(&[40, u64::MAX]), 55, "documents do not exceed the sequence");
    }

    const VIT: ModuleId = ModuleId(0);
    const EARS: ModuleId = ModuleId(1);
    const LM: ModuleId = ModuleId(2);
    const DIT: ModuleId = ModuleId(3);

    #[test]
    fn an_image_of_728_pixels_has_2704_patches_and_169_tokens() {
        let meta =
            MicrobatchMeta { images: 10.into(), text_tokens: 6502, ..MicrobatchMeta::default() };
        let model = model();
        assert_eq!(model.instances(VIT, &meta), (InstanceSpace::Images, 10));
        let work = model.workload(VIT, &meta, 2..5);
        assert_eq!((work.instances, work.tokens, work.output_tokens), (3, 3 * 2704, 3 * 169));
        assert_eq!(work.attention_pairs, 3 * 2704 * 2704);
    }

    #[test]
    fn images_of_known_sizes_have_their_own_patches_pairs_and_tokens() {
        let size = |patches, tokens, views| ImageSize { patches, tokens, views };
        let images = vec![size(64, 4, 1), size(32, 2, 1), size(96, 6, 3)].into();
        let meta = MicrobatchMeta { images, text_tokens: 5, ..MicrobatchMeta::default() };
        let mut model = model();
        let work = model.workload(VIT, &meta, 1..3);
        assert_eq!((work.instances, work.tokens, work.output_tokens), (2, 128, 8));
        assert_eq!(work.attention_pairs, 32 * 32 + 3 * 32 * 32, "attention stays inside a view");
        assert_eq!(model.sequence_length(&meta), 5 + 12);
        let Some(mut vit) = model.modules[0].kind.get::<VitSpec>().cloned() else { panic!() };
        vit.tower = Tower::Clip;
        model.modules[0].kind = vit.into();
        let work = model.workload(VIT, &meta, 2..3);
        assert_eq!((work.tokens, work.attention_pairs), (99, 3 * 33 * 33), "a class token a view");
    }

    #[test]
    fn the_packed_sequence_holds_text_images_and_sounds() {
        let meta = MicrobatchMeta {
            images: 10.into(),
            text_tokens: 6502,
            audio_seconds: vec![1.0, 0.03],
            ..MicrobatchMeta::default()
        };
        let model = model();
        // 50 frames make 13 tokens, 2 frames make one.
        let tokens = 6502 + 10 * 169 + 13 + 1;
        assert_eq!(model.sequence_length(&meta), tokens);
        assert_eq!(model.instances(LM, &meta), (InstanceSpace::Sequence, 1));
        let work = model.workload(LM, &meta, 0..1);
        assert_eq!((work.tokens, work.attention_pairs), (tokens, tokens * (tokens + 1) / 2));
        let sounds = model.workload(EARS, &meta, 0..2);
        assert_eq!((sounds.tokens, sounds.output_tokens), (52, 14));
    }

    #[test]
    fn without_a_sequence_a_decoder_reads_one_caption_per_clip() {
        let clip =
            |seconds, caption_tokens| ClipMeta { seconds, caption_tokens, ..Default::default() };
        let clips = vec![clip(4.0, 60), clip(0.1, 20)];
        let meta = MicrobatchMeta { clips, ..MicrobatchMeta::default() };
        let model = model();
        assert_eq!(model.instances(LM, &meta), (InstanceSpace::Clips, 2));
        assert_eq!(model.instances(VIT, &meta), (InstanceSpace::Images, 0));
        let work = model.workload(LM, &meta, 0..2);
        assert_eq!((work.tokens, work.attention_pairs), (80, 60 * 61 / 2 + 20 * 21 / 2));
        let video = model.workload(DIT, &meta, 0..2);
        assert_eq!(video.tokens, 1600 + 100, "a clip has at least one frame");
        assert_eq!((video.cross_pairs, video.context_tokens), (1600 * 60 + 100 * 20, 80));
    }

    #[test]
    fn extreme_work_saturates() {
        let clips =
            vec![ClipMeta { seconds: 1e6, caption_tokens: 1 << 32, ..Default::default() }; 3];
        let meta =
            MicrobatchMeta { audio_seconds: vec![1e6; 3], clips, ..MicrobatchMeta::default() };
        meta.validate().unwrap();
        let mut model = model();
        model.modules[1].kind = AudioSpec::new(1 << 16, 1).into();
        model.modules[3].kind = DitSpec {
            latent_frames_per_second: 1e4,
            tokens_per_frame: 1 << 24,
            token_channels: 1,
            wan: None,
        }
        .into();
        model.modules[0].kind = VitSpec::squares(1 << 16, 1, 1, Tower::Native).into();
        model.validate().unwrap();
        assert_eq!(model.workload(DIT, &meta, 0..3).attention_pairs, u64::MAX);
        assert_eq!(model.workload(EARS, &meta, 0..3).attention_pairs, u64::MAX);
        let images = MicrobatchMeta { images: (1 << 20).into(), ..MicrobatchMeta::default() };
        assert_eq!(model.workload(VIT, &images, 0..1 << 20).attention_pairs, u64::MAX);
    }
}
