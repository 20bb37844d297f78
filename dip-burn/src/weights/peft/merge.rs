//! Merges an adapter of PEFT into the weights of its model.

use std::collections::HashMap;
use std::path::Path;

use dip_core::ModelSpec;

use super::{PeftAdapter, tables};
use crate::weights::export::{Content, ExportConfig, Exported, Output, Writer};
use crate::weights::{TensorStore, WeightsError};

/// Writes the model of the folder `from` with the adapter of the folder `adapter` in its weights to the new folder `out`.
///
/// # Errors
/// [`WeightsError`] names the file or tensor and the remedy; `out` appears whole or not at all.
pub fn merge(
    adapter: &Path,
    model: &ModelSpec,
    from: &Path,
    out: &Path,
    config: ExportConfig,
) -> Result<Exported, WeightsError> {
    let store = TensorStore::open(from)?;
    let adapter = PeftAdapter::open(adapter)?;
    let tables = tables(model, from)?;
    let mut adapted = HashMap::new();
    for path in adapter.modules.keys() {
        let (_, entry) = adapter.entry(&tables, path)?;
        // The file has the name of one of the versions.
        let names = tables.iter().map(|table| &table.entries[entry].name);
        let name = names.clone().find(|name| store.shape(name).is_some());
        let name = name.ok_or_else(|| WeightsError::Missing {
            path: from.to_owned(),
            count: 1,
            name: names.clone().next().cloned().unwrap_or_default(),
        })?;
        adapted.insert(name.clone(), Delta { adapter: &adapter, path: path.clone() });
    }
    let outputs = store.names().map(|name| Output {
        name: name.to_owned(),
        shape: store.shape(name).unwrap_or_default().to_vec(),
        content: match adapted.remove(name) {
            Some(delta) => Content::Merged(&store, delta),
            None => Content::Copied(&store),
        },
    });
    let outputs: Vec<_> = outputs.collect();
    let writer = Writer { trained: &store, model, config };
    writer.write_model(from, out, &outputs)
}

/// The adapter of one tensor.
pub(in crate::weights) struct Delta<'a> {
    adapter: &'a PeftAdapter,
    path: String,
}

impl Delta<'_> {
    /// Adds the adapter to the weights `[output, input]` of its tensor.
    pub fn add_to(&self, weights: &mut [f32]) -> Result<(), WeightsError> {
        let Self { adapter, path } = self;
        let module = &adapter.modules[path];
        let read = |name: &Option<String>| {
            name.as_ref().map_or_else(|| Ok(Vec::new()), |name| adapter.store.all(name))
        };
        let (a, b, magnitude) = (read(&module.a)?, read(&module.b)?, read(&module.magnitude)?);
        let shape = module.a.as_ref().and_then(|name| adapter.store.shape(name));
        let [rank, input] = shape.and_then(|s| <[usize; 2]>::try_from(s).ok()).unwrap_or_default();
        if rank == 0 || weights.len() * rank != b.len() * input {
            let what = format!("the adapter of {path:?} does not fit its weights");
            let remedy = "give the model that the adapter was trained on";
            return Err(WeightsError::format(adapter.store.path(), what, remedy));
        }
        let scale = adapter.scale(path) as f32;
        for (row, b) in weights.chunks_exact_mut(input).zip(b.chunks_exact(rank)) {
            for (b, a) in b.iter().zip(a.chunks_exact(input)) {
                row.iter_mut().zip(a).for_each(|(w, a)| *w += scale * b * a);
            }
        }
        for (row, magnitude) in weights.chunks_exact_mut(input).zip(magnitude) {
            let norm = row.iter().map(|w| w * w).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
            row.iter_mut().for_each(|w| *w *= magnitude / norm);
        }
        Ok(())
    }
}
