//! Text encoders of the T5 type.

use serde::{Deserialize, Serialize};

use super::{
    AttentionBias, ClipMeta, Filling, InstanceSpace, MicrobatchMeta, Modality, ModuleSlice,
    ModuleSpec, Workload, add, square,
};
use crate::spec::error::FieldError;

/// Encoder of captions. All tokens of a caption attend to each other; each layer learns what their distance adds to the scores,
/// which are not scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct T5Spec {
    /// Tokens in the vocabulary.
    pub vocab: u32,
    /// Learned distances: half for tokens before, half for tokens after. Half of these are exact, the others grow with the
    /// distance.
    pub buckets: u32,
    /// Distance from which all tokens share the last bucket.
    pub max_distance: u32,
}

impl T5Spec {
    /// The bucket of the key at `key` for the query at `query`.
    pub fn bucket(&self, query: u32, key: u32) -> u32 {
        let side = self.buckets / 2;
        let distance = query.abs_diff(key);
        let after = if key > query { side } else { 0 };
        let exact = side / 2;
        if distance < exact {
            return after + distance;
        }
        // In f32, as the published models compute it: their buckets depend on its rounding.
        let scale = (f64::from(self.max_distance) / f64::from(exact)).ln() as f32;
        let grown = (distance as f32 / exact as f32).ln() / scale * (side - exact) as f32;
        after + (exact + grown as u32).min(side - 1)
    }
}

impl Modality for T5Spec {
    fn name(&self) -> &str {
        "t5"
    }

    fn validate(&self, module: &ModuleSpec) -> Result<(), FieldError> {
        module.check("kind.t5.vocab", self.vocab, 1 << 24)?;
        let buckets = self.buckets;
        if !(4..=1 << 16).contains(&buckets) || !buckets.is_multiple_of(4) {
            let limit = "a multiple of 4 from 4 to 65536";
            let path = module.path("kind.t5.buckets");
            return Err(FieldError::new(path, buckets, limit, "give the published number"));
        }
        let distances = buckets / 4 + 1..=1 << 24;
        let remedy = "give the published distance, most often 128";
        let path = module.path("kind.t5.max_distance");
        FieldError::check_range(path, self.max_distance, distances, remedy)
    }

    fn instances(&self, _: &ModuleSpec, microbatch: &MicrobatchMeta) -> (InstanceSpace, u32) {
        (InstanceSpace::Clips, microbatch.clips.len() as u32)
    }

    fn workload(&self, slice: &ModuleSlice<'_>) -> Workload {
        let mut work = slice.empty_workload();
        let range = slice.instances.start as usize..slice.instances.end as usize;
        for clip in &slice.microbatch.clips[range] {
            add(&mut work.tokens, clip.caption_tokens);
            add(&mut work.attention_pairs, square(clip.caption_tokens));
        }
        work.computed_pairs = work.attention_pairs;
        work.output_tokens = work.tokens;
        work
    }

    fn sequence_tokens(&self, _: &ModuleSpec, _: &MicrobatchMeta) -> u64 {
        0
    }

    /// The token table. The learned distances of the layers are not counted, as norms are not.
    fn start_parameters(&self, module: &ModuleSpec, _: u64) -> u64 {
        u64::from(self.vocab) * u64::from(module.hidden)
    }

    fn end_parameters(&self, _: &ModuleSpec, _: u64) -> u64 {
        0
    }

    fn has_adapter(&self) -> bool {
        false
    }

    fn gated_ffn(&self) -> bool {
        true
    }

    fn attention_bias(&self) -> AttentionBias {
        AttentionBias::None
    }

    /// Captions come with the clips.
    fn fill(&self, _: &Filling<'_>, _: &mut MicrobatchMeta) {}

    fn microbatch_of(&self, _: &ModuleSpec, tokens: u64) -> MicrobatchMeta {
        let clip = ClipMeta { seconds: 1.0, caption_tokens: tokens, tokens_per_frame: None };
        MicrobatchMeta { clips: vec![clip], ..MicrobatchMeta::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_tokens_have_exact_buckets_and_far_ones_share() {
        let t5 = T5Spec { vocab: 9, buckets: 32, max_distance: 128 };
        let before: Vec<u32> = [0, 1, 7, 8, 11, 12, 16, 64, 90, 91, 127, 128, 1000]
            .map(|distance| t5.bucket(2000, 2000 - distance))
            .into();
        assert_eq!(before, [0, 1, 7, 8, 8, 9, 10, 14, 14, 15, 15, 15, 15]);
        assert_eq!(t5.bucket(5, 6), 17);
        // The first distance of every bucket, from `transformers`.
        let firsts = |buckets, max_distance| -> Vec<u32> {
            let t5 = T5Spec { vocab: 9, buckets, max_distance };
            let begins = |&d: &u32| d == 0 || t5.bucket(d, 0) != t5.bucket(d - 1, 0);
            (0..2000).filter(begins).collect()
        };
        assert_eq!(firsts(32, 128), [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91]);
        assert_eq!(firsts(8, 20), [0, 1, 2, 7]);
        assert_eq!(firsts(16, 64), [0, 1, 2, 3, 4, 8, 16, 32]);
        assert_eq!(t5.bucket(0, 4000), 31);
    }
}
