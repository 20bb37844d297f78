//! Weights of published models: safetensors in the layout of Hugging Face, in and out.
//!
//! ```text
//! config.json -> architecture -> names: which tensor holds which parameter
//! shards + index -> TensorStore -> Weights: each chunk reads the parameters that it holds
//! checkpoint -> export: the same table the other way round
//! ```

mod error;
mod export;
mod names;
mod store;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use dip_core::ModelSpec;
use dip_core::hf::{self, Architecture};

use crate::files;
use crate::params::ParameterMap;
use names::{Layout, Prefixes, Table};

pub use error::WeightsError;
pub use export::{ExportConfig, Exported, export};
pub use store::TensorStore;

/// The file that describes a model.
pub const CONFIG: &str = "config.json";

/// The weights of a model in a folder, by parameter.
#[derive(Debug)]
pub struct Weights {
    store: TensorStore,
    sources: HashMap<String, Source>,
}

/// Where a parameter is.
#[derive(Debug, Clone)]
struct Source {
    tensor: String,
    first_row: usize,
    rows: usize,
    layout: Layout,
}

impl Weights {
    /// Opens the weights of `model` in `folder` and checks that every tensor is there and has its shape; reads none.
    ///
    /// # Errors
    /// [`WeightsError`] names the file, the tensor and the remedy.
    pub fn open(folder: &Path, model: &ModelSpec) -> Result<Self, WeightsError> {
        let architecture = architecture(folder)?;
        let store = TensorStore::open(folder)?;
        let (prefixes, table) = fitting(&store, model, architecture);
        check(&store, model, &prefixes, &table)?;
        Ok(Self { store, sources: sources(&table) })
    }

    /// The parameter `name` of shape `shape`, from the bytes that hold it and no others.
    ///
    /// # Errors
    /// [`WeightsError`] where there is no such parameter, it has another shape, or the file cannot be read.
    pub fn read(&self, name: &str, shape: &[usize]) -> Result<TensorData, WeightsError> {
        let source = self.sources.get(name);
        let source = source.ok_or_else(|| WeightsError::Unknown { name: name.to_owned() })?;
        let rows = source.first_row..source.first_row + source.rows;
        let values = self.store.rows(&source.tensor, rows)?;
        let values = match source.layout {
            Layout::Rows => values,
            Layout::Columns => transposed(&values, source.rows),
        };
        let expected: usize = shape.iter().product();
        if values.len() != expected {
            return Err(WeightsError::Shape {
                path: self.store.path().to_owned(),
                name: source.tensor.clone(),
                found: self.store.shape(&source.tensor).unwrap_or_default().to_vec(),
                expected: shape.to_vec(),
            });
        }
        Ok(TensorData::new(values, shape.to_vec()))
    }
}

/// Replaces parameters by those of files; adapters stay as they are, for files do not have them.
pub(crate) struct Reader<'a> {
    pub weights: &'a Weights,
    pub error: Option<WeightsError>,
}

impl<B: Backend> ParameterMap<B> for Reader<'_> {
    fn map<const D: usize>(
        &mut self,
        name: &str,
        parameter: Tensor<B, D>,
        _: Option<Tensor<B, D>>,
    ) -> Tensor<B, D> {
        if self.error.is_some() || is_adapter(name) {
            return parameter;
        }
        match self.weights.read(name, &parameter.dims()) {
            Ok(data) => Tensor::from_data(data, &parameter.device()),
            Err(error) => {
                self.error = Some(error);
                parameter
            }
        }
    }
}

/// Whether a parameter is a matrix of an adapter.
pub(crate) fn is_adapter(parameter: &str) -> bool {
    parameter.ends_with(".lora.a") || parameter.ends_with(".lora.b")
}

/// The architecture that the `config.json` of a folder names.
fn architecture(folder: &Path) -> Result<Architecture, WeightsError> {
    let path = folder.join(CONFIG);
    let model = hf::from_config("", &store::read_text(&path)?);
    model.map(|m| m.architecture).map_err(|source| WeightsError::Config { path, source })
}

/// The prefixes under which most of the tensors are there, and the table with them.
fn fitting(
    store: &TensorStore,
    model: &ModelSpec,
    architecture: Architecture,
) -> (Prefixes, Table) {
    let tables = names::prefixes(architecture).iter().map(|prefixes| {
        let table = names::table(model, architecture, prefixes);
        let found = table.entries.iter().filter(|e| store.shape(&e.name).is_some()).count();
        (found, *prefixes, table)
    });
    // Of equal ones the first.
    let best = tables.reduce(|best, next| if next.0 > best.0 { next } else { best });
    let (_, prefixes, table) = best.expect("every architecture has prefixes");
    (prefixes, table)
}

fn check(
    store: &TensorStore,
    model: &ModelSpec,
    prefixes: &Prefixes,
    table: &Table,
) -> Result<(), WeightsError> {
    let path = || store.path().to_owned();
    let missing: Vec<_> = table.entries.iter().filter(|e| store.shape(&e.name).is_none()).collect();
    if let Some(first) = missing.first() {
        let (count, name) = (missing.len(), first.name.clone());
        return Err(WeightsError::Missing { path: path(), count, name });
    }
    for entry in &table.entries {
        let found = store.shape(&entry.name).unwrap_or_default();
        if found != entry.shape {
            let (name, found) = (entry.name.clone(), found.to_vec());
            return Err(WeightsError::Shape {
                path: path(),
                name,
                found,
                expected: entry.shape.clone(),
            });
        }
    }
    let extra: Vec<_> =
        unnamed(store, table).filter(|name| !names::is_unused(name, model, prefixes)).collect();
    match extra.first() {
        None => Ok(()),
        Some(name) => {
            Err(WeightsError::Extra { path: path(), count: extra.len(), name: (*name).to_owned() })
        }
    }
}

/// The tensors of a store that the table does not name.
fn unnamed<'a>(store: &'a TensorStore, table: &Table) -> impl Iterator<Item = &'a str> {
    let named: std::collections::HashSet<String> =
        table.entries.iter().map(|e| e.name.clone()).collect();
    store.names().filter(move |name| !named.contains(*name))
}

fn sources(table: &Table) -> HashMap<String, Source> {
    let mut sources = HashMap::new();
    for entry in &table.entries {
        let mut first_row = 0;
        for part in &entry.parts {
            let (tensor, layout) = (entry.name.clone(), entry.layout);
            let source = Source { tensor, first_row, rows: part.rows, layout };
            sources.insert(part.parameter.clone(), source);
            first_row += part.rows;
        }
    }
    for (parameter, tensor) in &table.tied {
        let rows = table.entries.iter().find(|e| e.name == *tensor).map_or(0, |e| e.shape[0]);
        let tensor = tensor.clone();
        let source = Source { tensor, first_row: 0, rows, layout: Layout::Columns };
        sources.insert(parameter.clone(), source);
    }
    sources
}

/// `[rows, columns]` as `[columns, rows]`, in squares that stay in the cache.
fn transposed(values: &[f32], rows: usize) -> Vec<f32> {
    const SQUARE: usize = 32;
    let columns = values.len() / rows.max(1);
    let mut turned = vec![0.0; values.len()];
    for top in (0..rows).step_by(SQUARE) {
        for left in (0..columns).step_by(SQUARE) {
            for row in top..(top + SQUARE).min(rows) {
                for column in left..(left + SQUARE).min(columns) {
                    turned[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    turned
}

/// The folder of a model that is a `config.json` or a folder with one; none for presets and model TOMLs.
pub fn model_folder(model: &str) -> Option<PathBuf> {
    let path = Path::new(model);
    match path.extension() {
        _ if path.is_dir() => Some(path.to_owned()),
        Some(extension) if extension == "json" => Some(files::parent(path).to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_larger_than_a_square_is_transposed() {
        let (rows, columns) = (37, 70);
        let values: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
        let turned = transposed(&values, rows);
        for (row, column) in [(0, 0), (36, 69), (5, 33), (32, 1)] {
            assert_eq!(turned[column * rows + row], values[row * columns + column]);
        }
        assert_eq!(transposed(&turned, columns), values);
    }
}
