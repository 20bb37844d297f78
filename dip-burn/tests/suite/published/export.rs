//! Exports: checkpoints in the layout of published models.

use std::path::Path;

use dip_burn::checkpoint::CheckpointReader;
use dip_burn::model::WholeModel;
use dip_burn::params::NamedTensors;
use dip_burn::runtime::{TensorKind, Update};
use dip_burn::weights::{ExportConfig, export};
use dip_core::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{Case, Fixture, TOLERANCE, halves, largest, out, planned};
use crate::support::*;

#[test]
fn an_export_in_bf16_rounds_and_an_existing_folder_is_refused() {
    let fixture = Fixture::read("qwen2");
    let config = ExportConfig { bf16: true, ..ExportConfig::default() };
    let parameters = fixture.pipeline(&halves(&fixture.model)).export(TensorKind::Parameters);
    let parameters = parameters.unwrap();
    let folder = fixture.exported(parameters, config);
    let out = out(&folder);
    // The weights of this model have an exact form in bf16.
    let bytes = |folder: &Path| std::fs::metadata(folder.join("model.safetensors")).unwrap().len();
    assert!(bytes(&out) < bytes(&fixture.folder) + 1000);
    let again = Fixture { folder: out.clone(), ..Fixture::read("qwen2") };
    assert!(again.difference(&again.model) < TOLERANCE);
    let checkpoint = CheckpointReader::open(&folder.path().join("checkpoint-00000001")).unwrap();
    let trained = checkpoint.weights().unwrap();
    let error = export(&trained, &fixture.model, &fixture.folder, &out, config).unwrap_err();
    assert!(error.to_string().contains("is there already"), "{error}");
}

#[test]
fn exported_adapters_are_part_of_the_weights() {
    for (name, module) in [("llava-clip", 1), ("llava-onevision", 0), ("smolvlm", 0)] {
        let mut fixture = Fixture::read(name);
        let plain = fixture.model.clone();
        let mut targets = LoraTarget::ALL.to_vec();
        targets.retain(|&t| t != LoraTarget::Gate || plain.modules[module].gated_ffn());
        fixture.model.modules[module].lora =
            Some(Lora { rank: 2, alpha: 5.0, targets, ..Lora::default() });
        let parameters = trained(&fixture);
        let folder = fixture.exported(parameters.clone(), ExportConfig::default());
        let mut whole = WholeModel::<B>::init(&fixture.model, 0, &Default::default()).unwrap();
        whole.load(&parameters).unwrap();
        let moved = |case: Case| {
            let logits = whole.logits(&case.sequence).unwrap().into_data().to_vec::<f32>().unwrap();
            let moved = largest(&case.logits, &logits);
            assert!(moved > 0.02, "{name}: {moved}");
            Case { logits: logits.chunks(96).map(<[f32]>::to_vec).collect(), ..case }
        };
        let cases = fixture.cases.into_iter().map(moved).collect();
        let merged = Fixture { folder: out(&folder), cases, ..fixture };
        let worst = merged.difference(&plain);
        assert!(worst < TOLERANCE, "{name}: {worst}");
    }
}

/// The parameters of a model after three steps.
fn trained(fixture: &Fixture) -> NamedTensors {
    let mut rng = ChaCha8Rng::seed_from_u64(10);
    let partition = halves(&fixture.model);
    let mut pipeline = fixture.pipeline(&partition);
    let (batch, plan) = planned(fixture, &partition, fixture.sequences(), &mut rng, &["keep"]);
    let update = Update { learning_rate: 0.02, clip_norm: 0.0, loss_scale: 1.0 };
    for _ in 0..3 {
        pipeline.run(&plan, &batch, Some(update)).unwrap();
    }
    pipeline.export(TensorKind::Parameters).unwrap()
}
