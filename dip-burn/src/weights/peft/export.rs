//! Writes the adapters of a checkpoint in the layout of PEFT.

use std::collections::BTreeMap;
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
    let Adapters { tensors, modules } = adapters(trained, table)?;
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
    let config = settings(lora, &modules, from);
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

/// Adapters as PEFT has them.
#[derive(Default)]
struct Adapters {
    tensors: Vec<AdapterTensor>,
    /// The number of adapters in each module, by path.
    modules: BTreeMap<String, usize>,
}

/// The adapters of a checkpoint. Where a tensor holds several projections, PEFT adapts it as one: the first matrices stand below each
/// other, and the second ones are blocks on a diagonal, so that the product is the same.
fn adapters(trained: &TensorStore, table: &Table) -> Result<Adapters, WeightsError> {
    let mut all = Adapters::default();
    for entry in &table.entries {
        let layers = entry.parts.iter().map(|part| {
            let layer = part.parameter.strip_suffix(".weight")?;
            trained.shape(&format!("{layer}.lora.a")).map(|shape| (layer, shape))
        });
        let layers: Vec<_> = layers.collect();
        let count = layers.iter().flatten().count();
        let Some(&(first, &[input, one])) = layers.iter().flatten().next() else { continue };
        let is_dora = trained.shape(&format!("{first}.lora.magnitude")).is_some();
        if is_dora && count < layers.len() {
            let what = format!("{:?} has magnitudes for some of its projections", entry.name);
            let remedy = "leave --adapter out, or give [lora] all projections of the tensor";
            return Err(WeightsError::format(trained.path(), what, remedy));
        }
        let rank = one * count;
        let (mut a, mut b, mut magnitude) = (Vec::new(), Vec::new(), Vec::new());
        let mut block = 0;
        for (part, layer) in entry.parts.iter().zip(layers) {
            let from = b.len();
            b.resize(from + part.rows * rank, 0.0);
            let Some((layer, _)) = layer else { continue };
            let read = |name: &str| trained.all(&format!("{layer}.lora.{name}"));
            a.extend(transposed(&read("a")?, input));
            let second = transposed(&read("b")?, one);
            for (row, values) in b[from..].chunks_exact_mut(rank).zip(second.chunks_exact(one)) {
                row[block * one..(block + 1) * one].copy_from_slice(values);
            }
            if is_dora {
                magnitude.extend(read("magnitude")?);
            }
            block += 1;
        }
        let path = entry.name.trim_end_matches(".weight");
        let output = entry.shape[0];
        let mut add = |end: &str, shape: Vec<usize>, values| {
            let name = format!("{BASE}{path}{end}");
            all.tensors.push(AdapterTensor { name, shape, values });
        };
        add(A, vec![rank, input], a);
        add(B, vec![output, rank], b);
        if is_dora {
            add(MAGNITUDE, vec![output], magnitude);
        }
        all.modules.insert(path.to_owned(), count);
    }
    Ok(all)
}

/// The settings of adapters, as PEFT reads them.
fn settings(lora: &Lora, modules: &BTreeMap<String, usize>, from: &Path) -> serde_json::Value {
    // The scale of a product does not depend on how many adapters its tensor has.
    let alpha = |count: usize| {
        let count = count as f64;
        lora.alpha * if lora.rank_stabilized { count.sqrt() } else { count }
    };
    let several = || modules.iter().filter(|&(_, &count)| count > 1);
    let ranks: BTreeMap<_, _> =
        several().map(|(path, &n)| (path, lora.rank as usize * n)).collect();
    let alphas: BTreeMap<_, _> = several().map(|(path, &n)| (path, alpha(n))).collect();
    json!({
        "peft_type": "LORA",
        "task_type": null,
        "base_model_name_or_path": from.display().to_string(),
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "lora_dropout": 0.0,
        "use_rslora": lora.rank_stabilized,
        "use_dora": lora.dora,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "target_modules": modules.keys().collect::<Vec<_>>(),
    })
}
