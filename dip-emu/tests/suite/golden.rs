use std::fmt::Write;
use std::path::Path;

use dip_core::{
    AudioSpec, ChunkQuery, ClipMeta, CostModel, DecoderSpec, MicrobatchMeta, ModelSpec, ModuleId,
    ModuleKind, StageQuery, Strategy, VitSpec, presets,
};
use dip_emu::AnalyticCost;

/// What a module of the paper is timed with: 8 images, 8 sounds, 8,192 tokens, or 4 clips.
fn microbatch(model: &ModelSpec, kind: &ModuleKind) -> MicrobatchMeta {
    let mut meta = MicrobatchMeta::default();
    if kind.get::<VitSpec>().is_some() {
        meta.images = 8.into();
    } else if kind.get::<AudioSpec>().is_some() {
        meta.audio_seconds = vec![10.0; 8];
    } else if kind.get::<DecoderSpec>().is_some() {
        meta.text_tokens = model.sequence_tokens.into();
    } else {
        meta.clips = vec![ClipMeta { seconds: 4.0, caption_tokens: 60, ..Default::default() }; 4];
    }
    meta
}

/// One line per module: the times and the memory of an inner layer.
fn table() -> String {
    let mut out = String::new();
    for (clusters, models) in [
        (
            &["h800", "h20", "h100"][..],
            &["vlm-s", "vlm-m", "vlm-l", "t2v-s", "t2v-l", "omni-l"][..],
        ),
        (&["cpu"], &["vlm-tiny", "t2v-tiny"]),
    ] {
        for (cluster, model) in clusters.iter().flat_map(|c| models.iter().map(move |m| (c, m))) {
            let model = presets::model(model).unwrap();
            let cost = AnalyticCost::new(&model, &presets::cluster(cluster).unwrap());
            for (id, spec) in model.modules.iter().enumerate() {
                let id = ModuleId::from(id);
                let meta = microbatch(&model, &spec.kind);
                let workload = model.workload(id, &meta, 0..model.instances(id, &meta).1);
                let chunk = ChunkQuery {
                    model: &model,
                    module: id,
                    layers: 1..2,
                    trainable: true,
                    runs_backward: true,
                };
                let keep = Strategy::keep();
                let weights = cost.static_bytes(&chunk);
                let c = cost.stage(&StageQuery { chunk, workload, strategy: &keep }).unwrap();
                let (name, module) = (&model.name, &spec.name);
                writeln!(
                    out,
                    "{cluster:5} {name:9} {module:9} forward {:>9}  backward {:>9}  keeps {:>10}  weights {:>10}",
                    c.forward.to_string(),
                    c.backward.to_string(),
                    c.activation_bytes.to_string(),
                    weights.to_string(),
                )
                .unwrap();
            }
        }
    }
    out
}

/// After an intended change, run `DIP_GOLDENS=write cargo test -p dip-emu golden`.
#[test]
fn layers_of_the_presets_have_the_recorded_costs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/layers.txt");
    if std::env::var("DIP_GOLDENS").is_ok_and(|mode| mode == "write") {
        std::fs::write(&path, table()).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert_eq!(table(), golden.replace('\r', ""));
}
