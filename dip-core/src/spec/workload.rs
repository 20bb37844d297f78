//! From metadata to work: how many instances a microbatch gives a module, and what a slice of them costs.

use std::ops::Range;

use crate::spec::batch::MicrobatchMeta;
use crate::spec::ids::ModuleId;
use crate::spec::model::{ModelSpec, ModuleKind};

/// What the instances of a module are counted in. Slices of two modules with the same space correspond one to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InstanceSpace {
    /// Images of the microbatch.
    Images,
    /// Sounds of the microbatch.
    Sounds,
    /// The one packed sequence of the microbatch.
    Sequence,
    /// Clips of the microbatch, or their captions.
    Clips,
}

/// The work of one sub-microbatch in one module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Workload {
    /// Instances: images, sounds, sequences or clips.
    pub instances: u32,
    /// Tokens that pass through the layers.
    pub tokens: u64,
    /// Query-key pairs of self-attention, over all sequences, causal masking counted.
    pub attention_pairs: u64,
    /// Query-key pairs whose scores training computes: those of causal attention block by block, see [`causal_blocks`].
    pub computed_pairs: u64,
    /// Query-key pairs of cross attention.
    pub cross_pairs: u64,
    /// Tokens of the captions that cross attention sees.
    pub context_tokens: u64,
    /// Tokens handed to the consumers of the module (after merging).
    pub output_tokens: u64,
    /// Most tokens that can have a loss: those of the text.
    pub trained_tokens: u64,
}

/// Most queries of one block of causal attention.
const CAUSAL_BLOCK: u64 = 128;

/// The queries of the blocks in which causal attention over a document of `length` tokens is computed. Those of a block see no key
/// beyond its end, so that less is computed of what the mask hides: little more than half of a long document.
pub fn causal_blocks(length: u64) -> impl Iterator<Item = Range<u64>> {
    let size = block_size(length);
    (0..length.div_ceil(size)).map(move |i| i * size..length.min((i + 1) * size))
}

/// Pairs that [`causal_blocks`] of a document compute.
pub fn causal_block_pairs(length: u64) -> u64 {
    let size = block_size(length);
    let (whole, rest) = (length / size, length % size);
    // Block i, from 1, has `size` queries and i * size keys; the last one what is left.
    let blocks = size.saturating_mul(size).saturating_mul(triangle(whole));
    blocks.saturating_add(rest.saturating_mul(length))
}

/// Queries of a block: as equal as can be.
fn block_size(length: u64) -> u64 {
    let blocks = length.div_ceil(CAUSAL_BLOCK).max(1);
    length.div_ceil(blocks).max(1)
}

impl ModelSpec {
    /// The instance space of a module for one microbatch, and the number of its instances, `N_i`.
    /// A decoder sees the packed sequence, or, where there is none, one caption a clip.
    pub fn instances(&self, module: ModuleId, microbatch: &MicrobatchMeta) -> (InstanceSpace, u32) {
        let clips = microbatch.clips.len() as u32;
        match self.modules[module.index()].kind {
            ModuleKind::Vit { .. } => (InstanceSpace::Images, microbatch.images),
            ModuleKind::Audio { .. } => {
                (InstanceSpace::Sounds, microbatch.audio_seconds.len() as u32)
            }
            ModuleKind::Dit { .. } => (InstanceSpace::Clips, clips),
            ModuleKind::Decoder { .. } if microbatch.has_sequence() => (InstanceSpace::Sequence, 1),
            ModuleKind::Decoder { .. } => (InstanceSpace::Clips, clips),
        }
    }

    /// The work of `slice`, a range of the instances of `module` in `microbatch`.
    pub fn workload(
        &self,
        module: ModuleId,
        microbatch: &MicrobatchMeta,
        slice: Range<u32>,
    ) -> Workload {
        let n = slice.len() as u64;
        let range = slice.start as usize..slice.end as usize;
        let spec = &self.modules[module.index()];
        let mut work = Workload { instances: slice.len() as u32, ..Workload::default() };
        match spec.kind {
            ModuleKind::Vit { .. } => {
                let patches = u64::from(spec.patches_per_image());
                work.tokens = n * patches;
                work.attention_pairs = n.saturating_mul(square(patches));
                work.output_tokens = n * u64::from(spec.tokens_per_image());
            }
            ModuleKind::Audio { frames_per_second, merge } => {
                for s in &microbatch.audio_seconds[range] {
                    let frames = audio_frames(*s, frames_per_second);
                    work.tokens += frames;
                    add(&mut work.attention_pairs, square(frames));
                    work.output_tokens += frames.div_ceil(u64::from(merge));
                }
            }
            ModuleKind::Decoder { .. } if microbatch.has_sequence() => {
                let tokens = self.sequence_length(microbatch);
                work.tokens = tokens;
                let documents = &microbatch.documents;
                work.attention_pairs = document_pairs(tokens, documents, triangle);
                work.computed_pairs = document_pairs(tokens, documents, causal_block_pairs);
                work.output_tokens = tokens;
                work.trained_tokens = microbatch.text_tokens;
            }
            ModuleKind::Decoder { .. } => {
                for clip in &microbatch.clips[range] {
                    work.tokens += clip.caption_tokens;
                    add(&mut work.attention_pairs, triangle(clip.caption_tokens));
                    add(&mut work.computed_pairs, causal_block_pairs(clip.caption_tokens));
                }
                work.output_tokens = work.tokens;
            }
            ModuleKind::Dit { latent_frames_per_second, tokens_per_frame, .. } => {
                for clip in &microbatch.clips[range] {
                    let frames = latent_frames(clip.seconds, latent_frames_per_second);
                    let of_frame = clip.tokens_per_frame.unwrap_or(tokens_per_frame);
                    let tokens = frames.saturating_mul(of_frame.into());
                    add(&mut work.tokens, tokens);
                    add(&mut work.attention_pairs, square(tokens));
                    add(&mut work.context_tokens, clip.caption_tokens);
                    add(&mut work.cross_pairs, tokens.saturating_mul(clip.caption_tokens));
                }
                work.output_tokens = work.tokens;
            }
        }
        if !matches!(spec.kind, ModuleKind::Decoder { .. }) {
            work.computed_pairs = work.attention_pairs;
        }
        work
    }

    /// Tokens of the packed sequence of a microbatch: text, images, sounds and captions.
    pub fn sequence_length(&self, microbatch: &MicrobatchMeta) -> u64 {
        let captions: u64 = microbatch.clips.iter().map(|c| c.caption_tokens).sum();
        let mut tokens = microbatch.text_tokens + captions;
        for m in &self.modules {
            match m.kind {
                ModuleKind::Vit { .. } => {
                    tokens += u64::from(microbatch.images) * u64::from(m.tokens_per_image());
                }
                ModuleKind::Audio { frames_per_second, merge } => {
                    let frames = |s: &f64| audio_frames(*s, frames_per_second);
                    let merged = |s: &f64| frames(s).div_ceil(u64::from(merge));
                    tokens += microbatch.audio_seconds.iter().map(merged).sum::<u64>();
                }
                ModuleKind::Decoder { .. } | ModuleKind::Dit { .. } => {}
            }
        }
        tokens
    }
}

impl MicrobatchMeta {
    /// Whether there is a packed sequence: text, images or sounds, not only clips with captions.
    pub fn has_sequence(&self) -> bool {
        self.text_tokens > 0 || self.images > 0 || !self.audio_seconds.is_empty()
    }
}

fn audio_frames(seconds: f64, frames_per_second: u32) -> u64 {
    (seconds * f64::from(frames_per_second)).ceil().max(1.0) as u64
}

/// Frames that a clip takes, the last one begun; rounding alone begins none.
fn latent_frames(seconds: f64, per_second: f64) -> u64 {
    (seconds * per_second - 1e-6).ceil().max(1.0) as u64
}

/// Adds without wrapping: sizes come from files, and more work than 64 bits count is simply too much.
fn add(total: &mut u64, more: u64) {
    *total = total.saturating_add(more);
}

fn square(tokens: u64) -> u64 {
    tokens.saturating_mul(tokens)
}

/// 1 + 2 + ... + n: the causal pairs of n tokens.
fn triangle(n: u64) -> u64 {
    n.saturating_mul(n.saturating_add(1)) / 2
}

/// Pairs inside the documents of a sequence, by those of one; tokens that are in none are one more document.
fn document_pairs(tokens: u64, documents: &[u64], of_one: fn(u64) -> u64) -> u64 {
    let (mut left, mut pairs) = (tokens, 0);
    for &document in documents {
        let document = document.min(left);
        left -= document;
        add(&mut pairs, of_one(document));
    }
    pairs.saturating_add(of_one(left))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::batch::ClipMeta;
    use crate::spec::model::Tower;

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
        let meta = MicrobatchMeta { images: 10, text_tokens: 6502, ..MicrobatchMeta::default() };
        let model = model();
        assert_eq!(model.instances(VIT, &meta), (InstanceSpace::Images, 10));
        let work = model.workload(VIT, &meta, 2..5);
        assert_eq!((work.instances, work.tokens, work.output_tokens), (3, 3 * 2704, 3 * 169));
        assert_eq!(work.attention_pairs, 3 * 2704 * 2704);
    }

    #[test]
    fn the_packed_sequence_holds_text_images_and_sounds() {
        let meta = MicrobatchMeta {
            images: 10,
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
    fn without_a_sequence_a_decoder_reads_one_caption_a_clip() {
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
    fn work_beyond_all_measure_saturates() {
        let clips =
            vec![ClipMeta { seconds: 1e6, caption_tokens: 1 << 32, ..Default::default() }; 3];
        let meta =
            MicrobatchMeta { audio_seconds: vec![1e6; 3], clips, ..MicrobatchMeta::default() };
        meta.validate().unwrap();
        let mut model = model();
        model.modules[1].kind = ModuleKind::Audio { frames_per_second: 1 << 16, merge: 1 };
        model.modules[3].kind = ModuleKind::Dit {
            latent_frames_per_second: 1e4,
            tokens_per_frame: 1 << 24,
            token_channels: 1,
        };
        model.modules[0].kind =
            ModuleKind::Vit { image_px: 1 << 16, patch_px: 1, merge: 1, tower: Tower::Native };
        model.validate().unwrap();
        assert_eq!(model.workload(DIT, &meta, 0..3).attention_pairs, u64::MAX);
        assert_eq!(model.workload(EARS, &meta, 0..3).attention_pairs, u64::MAX);
        let images = MicrobatchMeta { images: 1 << 20, ..MicrobatchMeta::default() };
        assert_eq!(model.workload(VIT, &images, 0..1 << 20).attention_pairs, u64::MAX);
    }
}
