//! Names and shapes of tensors in files.

use dip_burn::model::{ChunkSpec, InitialWeights, Modalities};
use dip_burn::stage::ChunkStage;
use dip_burn::weights::{TensorStore, Weights};
use dip_core::*;
use safetensors::tensor::{Dtype, TensorView};

use super::{Fixture, TOLERANCE, set_image_px};
use crate::support::*;

#[test]
fn a_model_of_another_shape_is_refused_with_the_name_of_the_tensor() {
    let fixture = Fixture::read("llava-clip");
    let error = |change: &dyn Fn(&mut ModelSpec)| {
        let mut model = fixture.model.clone();
        change(&mut model);
        Weights::open(&fixture.folder, &model).unwrap_err().to_string()
    };
    let ffn = error(&|m| m.modules[1].ffn = 40);
    assert!(
        ffn.contains("mlp.gate_proj.weight\" has shape [48, 32], but must be [40, 32]"),
        "{ffn}"
    );
    let px = error(&|m| set_image_px(m, 20));
    assert!(px.contains("position_embedding.weight\" has shape [17, 24]"), "{px}");
    let deeper = error(&|m| m.modules[1].layers = 5);
    assert!(deeper.contains("9 tensors are missing") && deeper.contains("layers.4."), "{deeper}");
    let flatter = error(&|m| m.modules[1].layers = 3);
    assert!(flatter.contains("9 tensors belong to nothing in the model"), "{flatter}");
}

#[test]
fn names_of_every_version_of_transformers_are_understood() {
    for (name, renamed) in [
        ("qwen2-vl", &[("model.", "model.language_model."), ("visual.", "model.visual.")][..]),
        ("llava-clip", &[("vision_tower.", "vision_tower.vision_model.")]),
        ("llava-next", &[("vision_tower.", "vision_tower.vision_model.")]),
        (
            "llava-onevision",
            &[
                ("image_newline", "model.image_newline"),
                ("language_model.model.", "model.language_model."),
                ("vision_tower.", "model.vision_tower.vision_model."),
                ("multi_modal_projector.", "model.multi_modal_projector."),
            ],
        ),
        (
            "llava-siglip",
            &[
                ("language_model.model.", "model.language_model."),
                ("language_model.lm_head.", "lm_head."),
                ("vision_tower.", "model.vision_tower.vision_model."),
                ("multi_modal_projector.", "model.multi_modal_projector."),
            ],
        ),
    ] {
        let mut fixture = Fixture::read(name);
        let store = TensorStore::open(&fixture.folder).unwrap();
        let tensors = store.names().map(|old| {
            let new = renamed.iter().find_map(|(from, to)| Some((*to, old.strip_prefix(from)?)));
            let new = new.map_or(old.to_owned(), |(to, rest)| format!("{to}{rest}"));
            (new, (store.shape(old).unwrap().to_vec(), store.all(old).unwrap()))
        });
        let tensors: Vec<_> = tensors.collect();
        let bytes =
            |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let data: Vec<_> = tensors.iter().map(|(_, (_, values))| bytes(values)).collect();
        let views = tensors.iter().zip(&data).map(|((name, (shape, _)), data)| {
            (name, TensorView::new(Dtype::F32, shape.clone(), data).unwrap())
        });
        let file = safetensors::serialize(views, None).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("model.safetensors"), file).unwrap();
        let config = fixture.folder.join("config.json");
        std::fs::copy(config, folder.path().join("config.json")).unwrap();
        fixture.folder = folder.path().to_owned();
        assert!(fixture.difference(&fixture.model) < TOLERANCE, "{name}");
    }
}

#[test]
fn a_rank_reads_no_tensor_of_other_layers() {
    let fixture = Fixture::read("llama");
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(&fixture.folder).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let weights = Weights::open(folder.path(), &fixture.model).unwrap();
    // The shard with the last layer is deleted after its header was read.
    let name = "model.layers.3.mlp.down_proj.weight";
    let store = |path: &std::path::Path| TensorStore::open_file(path).unwrap();
    let shards = std::fs::read_dir(folder.path()).unwrap().map(|f| f.unwrap().path());
    let mut shards = shards.filter(|p| p.extension().is_some_and(|e| e == "safetensors"));
    let shard = shards.find(|p| store(p).shape(name).is_some()).unwrap();
    std::fs::remove_file(shard).unwrap();
    let chunk = |layers| {
        let start = InitialWeights { seed: 0, weights: Some(&weights) };
        let device = Default::default();
        let chunk = ChunkSpec { model: &fixture.model, module: ModuleId(0), layers };
        ChunkStage::<B>::new(&chunk, &Modalities::default(), start, &device)
    };
    assert!(chunk(0..1).is_ok());
    assert!(chunk(3..4).is_err());
}
