//! Writes the adapters of a checkpoint in the layout of PEFT.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use dip_core::{Lora, ModelSpec};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use super::{A, B, BASE, CONFIG, MAGNITUDE, TENSORS, tables};
use crate::weights::export::refuse_existing;
use crate::weights::names::Table;
use crate::weights::{TensorStore, WeightsError, transposed};

/// A tensor to write: `[rows, columns]`, or `[rows]`.
struct AdapterTensor {
    name: String,
    shape: Vec<usize>,
    values: Vec<f32>,
}

/// Writes the adapters among the weights of a checkpoint to the new folder `out`. The model of the folder `from` is the one
/// that they adapt.
///
/// # Errors
/// [`WeightsError`] names the file or tensor and the remedy; `out` appears whole or not at all.
pub fn export_adapter(
    trained: &TensorStore,
    model: &ModelSpec,
    from: &Path,
    out: &Path,
) -> Result<usize, WeightsError> {
    refuse_existing(out)?;
    // The names of modules in memory are those of the newest version.
    let tables = tables(model, from)?;
    let table = tables.last().expect("every architecture has prefixes");
    let lora = only_lora(model, trained.path())?;
    let (tensors, paths) = tensors(trained, table)?;
    let partial = dip_files::partial_folder(out).map_err(WeightsError::io(out))?;
    let bytes =
        |t: &AdapterTensor| t.values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let data: Vec<Vec<u8>> = tensors.iter().map(bytes).collect();
    let views = tensors.iter().zip(&data).map(|(t, data)| {
        let view = TensorView::new(Dtype::F32, t.shape.clone(), data);
        (t.name.as_str(), view.expect("the values fill the shape"))
    });
    let metadata = Some([("format".to_owned(), "pt".to_owned())].into());
    let path = partial.join(TENSORS);
    let file = safetensors::serialize(views, metadata)
        .map_err(|error| WeightsError::format(&path, error, "choose shorter names"))?;
    fs::write(&path, file).map_err(WeightsError::io(&path))?;
    let config = json!({
        "peft_type": "LORA",
        "task_type": null,
        "base_model_name_or_path": from.display().to_string(),
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "use_rslora": lora.rank_stabilized,
        "use_dora": lora.dora,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "target_modules": paths,
    });
    let path = partial.join(CONFIG);
    let text = serde_json::to_vec_pretty(&config).expect("plain data has a JSON form");
    fs::write(&path, text).map_err(WeightsError::io(&path))?;
    dip_files::put_in_place(&partial, out).map_err(WeightsError::io(out))?;
    Ok(tensors.len())
}

/// The settings of the adapters of a model: PEFT has one for all.
fn only_lora<'a>(model: &'a ModelSpec, checkpoint: &Path) -> Result<&'a Lora, WeightsError> {
    let wrong = |what: &str, remedy| Err(WeightsError::format(checkpoint, what.to_owned(), remedy));
    let mut all = model.modules.iter().filter_map(|module| module.lora.as_ref());
    match all.next() {
        None => wrong("the run has no adapters", "leave --adapter out: the export has all weights"),
        Some(lora) if !lora.full.is_empty() => wrong(
            "parts of the model were trained beside the adapters (lora.full)",
            "leave --adapter out: the export has all weights, with the adapters in them",
        ),
        Some(lora) => Ok(lora),
    }
}

/// The tensors of the adapters, and the paths of their modules.
fn tensors(
    trained: &TensorStore,
    table: &Table,
) -> Result<(Vec<AdapterTensor>, BTreeSet<String>), WeightsError> {
    let (mut tensors, mut paths) = (Vec::new(), BTreeSet::new());
    for entry in &table.entries {
        let adapted = entry.parts.iter().find_map(|part| {
            let layer = part.parameter.strip_suffix(".weight")?;
            trained.shape(&format!("{layer}.lora.a")).map(|shape| (layer, shape))
        });
        let Some((layer, &[input, rank])) = adapted else { continue };
        if entry.parts.len() > 1 {
            let what = format!(
                "{:?} holds several adapted projections, which PEFT adapts together",
                entry.name
            );
            let remedy =
                "leave --adapter out: the export has all weights, with the adapters in them";
            return Err(WeightsError::format(trained.path(), what, remedy));
        }
        let output = entry.shape[0];
        let path = entry.name.trim_end_matches(".weight");
        paths.insert(path.to_owned());
        let read = |name: &str| trained.all(&format!("{layer}.lora.{name}"));
        let mut add = |end: &str, shape: Vec<usize>, values| {
            tensors.push(AdapterTensor { name: format!("{BASE}{path}{end}"), shape, values });
        };
        add(A, vec![rank, input], transposed(&read("a")?, input));
        add(B, vec![output, rank], transposed(&read("b")?, rank));
        if trained.shape(&format!("{layer}.lora.magnitude")).is_some() {
            add(MAGNITUDE, vec![output], read("magnitude")?);
        }
    }
    Ok((tensors, paths))
}
