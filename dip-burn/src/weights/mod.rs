//! Reads and writes the weights of published models: safetensors in the layout of Hugging Face.
//!
//! ```text
//! config.json -> architecture -> names: the tensor of each parameter
//! shards + index -> TensorStore -> Weights: each chunk reads its own parameters
//! weights of a checkpoint -> export: the same table in the other direction
//! ```

#[cfg(test)]
mod damage_tests;
mod error;
mod export;
pub(crate) mod header;
mod names;
mod peft;
mod store;

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use dip_core::ModelSpec;
use dip_core::hf::{self, Architecture, HfModel, PipelineFiles};

use crate::params::ParameterMap;
use names::{Prefixes, Table, TensorLayout};
use peft::PeftAdapter;

pub use error::WeightsError;
pub use export::{ExportConfig, Exported, export};
pub use peft::{export_adapter, merge};
pub use store::TensorStore;

/// The file that describes a model.
pub const CONFIG: &str = "config.json";

/// The weights of a model in a folder, by parameter.
#[derive(Debug)]
pub struct Weights {
    store: TensorStore,
    locations: HashMap<String, ParameterLocation>,
    adapter: Option<AdapterFile>,
}

/// The adapters that a run starts from.
#[derive(Debug)]
struct AdapterFile {
    adapter: PeftAdapter,
    locations: HashMap<String, ParameterLocation>,
}

/// The place of a parameter.
#[derive(Debug, Clone)]
struct ParameterLocation {
    tensor: String,
    first_row: usize,
    rows: usize,
    /// Columns of a matrix; `None` for all.
    columns: Option<Range<usize>>,
    layout: TensorLayout,
}

impl Weights {
    /// Opens the weights of `model` in `folder`. Checks that every tensor is there and has the right shape, but reads none.
    ///
    /// # Errors
    /// [`WeightsError`] names the file, the tensor and the remedy.
    pub fn open(folder: &Path, model: &ModelSpec) -> Result<Self, WeightsError> {
        let architecture = architecture(folder)?;
        let store = TensorStore::open(folder)?;
        let (prefixes, table) = fitting(&store, model, architecture);
        check(&store, model, &prefixes, &table)?;
        Ok(Self { store, locations: locations(&table), adapter: None })
    }

    /// The same weights, with adapters from a folder in the layout of PEFT. `folder` has the weights of `model`.
    ///
    /// # Errors
    /// [`WeightsError`] if the file does not fit the adapters of the model.
    pub fn with_adapter(
        self,
        adapter: &Path,
        folder: &Path,
        model: &ModelSpec,
    ) -> Result<Self, WeightsError> {
        let adapter = PeftAdapter::open(adapter)?;
        let locations = adapter.locations(model, folder)?;
        Ok(Self { adapter: Some(AdapterFile { adapter, locations }), ..self })
    }

    /// The norm of the weights of every output of a linear layer.
    fn output_norms(&self, weight: &str) -> Result<Vec<f32>, WeightsError> {
        let at = self.locations.get(weight);
        let at = at.ok_or_else(|| WeightsError::Unknown { name: weight.to_owned() })?;
        let values = self.store.rows(&at.tensor, at.first_row..at.first_row + at.rows)?;
        let row = (values.len() / at.rows.max(1)).max(1);
        let norm = |row: &[f32]| row.iter().map(|w| w * w).sum::<f32>().sqrt();
        Ok(values.chunks_exact(row).map(norm).collect())
    }

    /// A parameter of an adapter: from the file of adapters if there is one. Otherwise the matrices stay as they were drawn, `None`,
    /// and magnitudes are the norms of the weights.
    fn read_adapter(
        &self,
        name: &str,
        shape: &[usize],
    ) -> Result<Option<TensorData>, WeightsError> {
        match &self.adapter {
            Some(file) => read(file.adapter.store(), &file.locations, name, shape).map(Some),
            None => match name.strip_suffix(".lora.magnitude") {
                Some(layer) => {
                    let norms = self.output_norms(&format!("{layer}.weight"))?;
                    Ok(Some(TensorData::new(norms, shape.to_vec())))
                }
                None => Ok(None),
            },
        }
    }

    /// Reads the parameter `name` of shape `shape`, and no other bytes of its file.
    ///
    /// # Errors
    /// [`WeightsError`] if there is no such parameter, it has another shape, or the file cannot be read.
    pub fn read(&self, name: &str, shape: &[usize]) -> Result<TensorData, WeightsError> {
        read(&self.store, &self.locations, name, shape)
    }
}

/// Reads a parameter from its place in a store.
fn read(
    store: &TensorStore,
    locations: &HashMap<String, ParameterLocation>,
    name: &str,
    shape: &[usize],
) -> Result<TensorData, WeightsError> {
    let at = locations.get(name);
    let at = at.ok_or_else(|| WeightsError::Unknown { name: name.to_owned() })?;
    let mut values = store.rows(&at.tensor, at.first_row..at.first_row + at.rows)?;
    if let Some(columns) = &at.columns {
        let width = values.len() / at.rows.max(1);
        let rows = values.chunks_exact(width.max(1));
        values = rows.flat_map(|row| &row[columns.clone()]).copied().collect();
    }
    let values = match at.layout {
        TensorLayout::Rows => values,
        TensorLayout::Columns => transposed(&values, at.rows),
    };
    let expected: usize = shape.iter().product();
    if values.len() != expected {
        return Err(WeightsError::Shape {
            path: store.path().to_owned(),
            name: at.tensor.clone(),
            found: store.shape(&at.tensor).unwrap_or_default().to_vec(),
            expected: shape.to_vec(),
        });
    }
    Ok(TensorData::new(values, shape.to_vec()))
}

/// Replaces every parameter by its tensor in the files. Without a file of adapters, their matrices stay as they are.
pub(crate) struct ReadWeights<'a> {
    pub weights: &'a Weights,
    /// The first error, if any.
    pub error: Option<WeightsError>,
}

impl<B: Backend> ParameterMap<B> for ReadWeights<'_> {
    fn map<const D: usize>(
        &mut self,
        name: &str,
        parameter: Tensor<B, D>,
        _: Option<Tensor<B, D>>,
    ) -> Tensor<B, D> {
        if self.error.is_some() {
            return parameter;
        }
        let data = match is_adapter(name) {
            true => self.weights.read_adapter(name, &parameter.dims()),
            false => self.weights.read(name, &parameter.dims()).map(Some),
        };
        match data {
            Ok(Some(data)) => Tensor::from_data(data, &parameter.device()),
            Ok(None) => parameter,
            Err(error) => {
                self.error = Some(error);
                parameter
            }
        }
    }
}

/// True if a parameter belongs to an adapter.
pub(crate) fn is_adapter(parameter: &str) -> bool {
    [".lora.a", ".lora.b", ".lora.magnitude"].iter().any(|end| parameter.ends_with(end))
}

/// Number of weights in the files of a model, norms and biases included. A head that is the token table counts once.
pub fn parameters(model: &HfModel) -> u64 {
    let prefixes = names::prefixes(model.architecture)[0];
    let table = names::table(&model.spec, model.architecture, &prefixes);
    let elements = |shape: &[usize]| shape.iter().map(|&d| d as u64).product::<u64>();
    table.entries.iter().map(|entry| elements(&entry.shape)).sum()
}

/// The architecture of the model in a folder.
fn architecture(folder: &Path) -> Result<Architecture, WeightsError> {
    let read = |name: &str| {
        let path = folder.join(name);
        path.exists().then(|| store::read_text(&path)).transpose()
    };
    let (path, model) = match PipelineFiles::read(read)? {
        Some(files) => (folder.to_owned(), hf::from_pipeline("", &files)),
        None => {
            let path = folder.join(CONFIG);
            let model = hf::from_config("", &store::read_text(&path)?);
            (path, model)
        }
    };
    model.map(|m| m.architecture).map_err(|source| WeightsError::Config { path, source })
}

/// The prefixes with which the store has most tensors, and their table.
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
    // If several have as many, the first counts.
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

/// The tensors of a store that are not in the table.
fn unnamed<'a>(store: &'a TensorStore, table: &Table) -> impl Iterator<Item = &'a str> {
    let named: std::collections::HashSet<String> =
        table.entries.iter().map(|e| e.name.clone()).collect();
    store.names().filter(move |name| !named.contains(*name))
}

fn locations(table: &Table) -> HashMap<String, ParameterLocation> {
    let mut locations = HashMap::new();
    for entry in &table.entries {
        let mut first_row = 0;
        for part in &entry.parts {
            let (tensor, layout) = (entry.name.clone(), entry.layout);
            let at =
                ParameterLocation { tensor, first_row, rows: part.rows, columns: None, layout };
            locations.insert(part.parameter.clone(), at);
            first_row += part.rows;
        }
    }
    for tied in &table.tied {
        let entry = table.entries.iter().find(|entry| entry.name == tied.tensor);
        let rows = entry.map_or(0, |entry| entry.shape[0]);
        let (tensor, layout) = (tied.tensor.clone(), TensorLayout::Columns);
        let at = ParameterLocation { tensor, first_row: 0, rows, columns: None, layout };
        locations.insert(tied.parameter.clone(), at);
    }
    locations
}

/// Transposes `[rows, columns]` to `[columns, rows]`, in squares that fit the cache.
fn transposed(values: &[f32], rows: usize) -> Vec<f32> {
    const SQUARE: usize = 32;
    let columns = values.len() / rows.max(1);
    let mut transposed = vec![0.0; values.len()];
    for top in (0..rows).step_by(SQUARE) {
        for left in (0..columns).step_by(SQUARE) {
            for row in top..(top + SQUARE).min(rows) {
                for column in left..(left + SQUARE).min(columns) {
                    transposed[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    transposed
}

/// The folder of a published model, where `model` is the folder or its `config.json`. `None` for presets and model TOMLs.
pub fn model_folder(model: &str) -> Option<PathBuf> {
    let path = Path::new(model);
    if path.is_dir() {
        return Some(path.to_owned());
    }
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    is_json.then(|| dip_files::parent(path).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_larger_than_a_square_is_transposed() {
        let (rows, columns) = (37, 70);
        let values: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
        let columns_first = transposed(&values, rows);
        for (row, column) in [(0, 0), (36, 69), (5, 33), (32, 1)] {
            assert_eq!(columns_first[column * rows + row], values[row * columns + column]);
        }
        assert_eq!(transposed(&columns_first, columns), values);
    }
}
