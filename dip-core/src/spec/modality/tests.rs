//! A modality from another crate.

use super::*;
use crate::spec::batch::BatchMeta;
use crate::spec::ids::ModuleId;

/// An encoder of point clouds that hands on one token for each cloud.
#[derive(Debug)]
struct PointClouds {
    coordinates: u32,
}

impl Modality for PointClouds {
    fn name(&self) -> &str {
        "point_cloud"
    }

    fn output_tokens(&self, _: u64) -> u64 {
        1
    }

    fn start_parameters(&self, module: &ModuleSpec, _: u64) -> u64 {
        u64::from(self.coordinates) * u64::from(module.hidden)
    }
}

/// A decoder with an encoder of point clouds.
fn model() -> ModelSpec {
    let mut model = ModelSpec::from_toml(
        "name = 'clouds'\nsequence_tokens = 64\n\
         [[module]]\nname = 'clouds'\nlayers = 2\nhidden = 16\nffn = 32\nheads = 2\n\
         kind.audio = { frames_per_second = 1, merge = 1 }\n\
         [[module]]\nname = 'language'\nlayers = 2\nhidden = 24\nffn = 32\nheads = 2\n\
         inputs = ['clouds']\nkind.decoder = { vocab = 32 }\n",
    )
    .unwrap();
    model.modules[0].kind = ModuleKind::other(PointClouds { coordinates: 3 });
    model.validate().unwrap();
    model
}

#[test]
fn instances_of_another_modality_take_their_tokens_in_the_sequence() {
    let model = model();
    let text = "{\"text_tokens\":10,\"other\":{\"clouds\":[5,7]}}";
    let batch = BatchMeta::from_jsonl(text).unwrap();
    let meta = &batch[0].microbatches[0];
    let (space, count) = model.instances(ModuleId(0), meta);
    assert_eq!((space, count), (InstanceSpace::Other("clouds".into()), 2));
    let work = model.workload(ModuleId(0), meta, 0..2);
    assert_eq!((work.tokens, work.attention_pairs, work.output_tokens), (12, 25 + 49, 2));
    assert_eq!(model.sequence_length(meta), 12);
    assert_eq!(model.parameters(ModuleId(0)).first, 3 * 16);
    assert_eq!(model.output_width(ModuleId(0)), 24);
    assert_eq!(BatchMeta::from_jsonl(&batch[0].to_jsonl()).unwrap(), batch);
}

#[test]
fn a_typical_microbatch_has_all_modalities_and_fills_the_sequence() {
    let model = model();
    let meta = model.filled(0.5);
    assert_eq!(meta.sizes_of("clouds"), [256; 4]);
    assert_eq!(model.sequence_length(&meta), 64);
}

#[test]
fn another_modality_is_compared_by_its_settings_and_cannot_be_read_from_a_file() {
    let model = model();
    assert_eq!(model.modules[0].kind, ModuleKind::other(PointClouds { coordinates: 3 }));
    assert_ne!(model.modules[0].kind, ModuleKind::other(PointClouds { coordinates: 4 }));
    assert!(model.modules[0].kind.get::<PointClouds>().is_some());
    assert!(model.modules[0].kind.get::<DecoderSpec>().is_none());
    let json = serde_json::to_string(&model).unwrap();
    assert!(json.contains("point_cloud"), "{json}");
    let error = serde_json::from_str::<ModelSpec>(&json).unwrap_err().to_string();
    assert!(error.contains("ModuleKind::other"), "{error}");
}
