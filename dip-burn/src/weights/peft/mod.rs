//! Low-rank adapters in the layout of PEFT: `adapter_config.json` and `adapter_model.safetensors`.

mod export;
mod merge;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

use dip_core::{Lora, ModelSpec};
use serde::Deserialize;
use serde_json::Value;

use super::names::{self, Table, TensorLayout, TensorPart};
use super::store::read_text;
use super::{ParameterLocation, TensorStore, WeightsError, architecture};

pub use export::export_adapter;
pub(super) use merge::Delta;
pub use merge::merge;

/// The settings of an adapter.
const CONFIG: &str = "adapter_config.json";
/// Its tensors.
const TENSORS: &str = "adapter_model.safetensors";
/// What stands before the path of a module.
const BASE: &str = "base_model.model.";
const A: &str = ".lora_A.weight";
const B: &str = ".lora_B.weight";
const MAGNITUDE: &str = ".lora_magnitude_vector";

/// An adapter of PEFT.
#[derive(Debug)]
pub(super) struct PeftAdapter {
    path: PathBuf,
    store: TensorStore,
    config: PeftConfig,
    /// The adapted modules, by path.
    modules: BTreeMap<String, PeftModule>,
}

/// The tensors of one adapted module.
#[derive(Debug, Clone, Default)]
struct PeftModule {
    a: Option<String>,
    b: Option<String>,
    magnitude: Option<String>,
}

/// How the projections of one tensor share its adapter.
enum Inner {
    /// All have the first matrix, and rows of the second.
    Shared,
    /// Each has this many columns, zero for the others, and rows of the first matrix.
    Blocks(usize),
}

/// The fields of an `adapter_config.json` that change what an adapter computes.
#[derive(Debug, Deserialize)]
struct PeftConfig {
    peft_type: String,
    r: u32,
    lora_alpha: f64,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    fan_in_fan_out: bool,
    #[serde(default)]
    bias: Option<String>,
    /// Ranks of some modules in place of `r`, by the end of their path.
    #[serde(default)]
    rank_pattern: BTreeMap<String, u32>,
    /// The same in place of `lora_alpha`.
    #[serde(default)]
    alpha_pattern: BTreeMap<String, f64>,
    #[serde(default)]
    modules_to_save: Option<Value>,
}

impl PeftAdapter {
    /// Opens the adapter in a folder; reads only its settings and the header of its tensors.
    ///
    /// # Errors
    /// [`WeightsError`] names the file, and a setting that is not supported.
    pub fn open(folder: &Path) -> Result<Self, WeightsError> {
        let path = folder.join(CONFIG);
        let remedy = "give the folder of a LoRA adapter that PEFT has saved";
        let config: PeftConfig = serde_json::from_str(&read_text(&path)?)
            .map_err(|error| WeightsError::format(&path, error, remedy))?;
        if let Some(what) = config.unsupported() {
            let remedy = "merge the adapter with PEFT, and give the merged model";
            return Err(WeightsError::format(&path, what, remedy));
        }
        let store = TensorStore::open_file(&folder.join(TENSORS))?;
        let mut modules = BTreeMap::<String, PeftModule>::new();
        for name in store.names() {
            let inner = name.strip_prefix(BASE).unwrap_or(name);
            let inner =
                inner.strip_suffix(".weight").filter(|i| i.ends_with(MAGNITUDE)).unwrap_or(inner);
            let mut found = false;
            for (end, which) in [(A, 0), (B, 1), (MAGNITUDE, 2)] {
                let Some(module) = inner.strip_suffix(end) else { continue };
                let module = modules.entry(module.to_owned()).or_default();
                let places = [&mut module.a, &mut module.b, &mut module.magnitude];
                *places[which] = Some(name.to_owned());
                found = true;
            }
            if !found {
                let what =
                    format!("tensor {name:?} is no part of a low-rank adapter of a linear layer");
                let remedy = "merge the adapter with PEFT, and give the merged model";
                return Err(WeightsError::format(store.path(), what, remedy));
            }
        }
        let adapter = Self { path: folder.to_owned(), store, config, modules };
        for (name, module) in &adapter.modules {
            adapter.check_shapes(name, module)?;
        }
        Ok(adapter)
    }

    /// Checks that a module has its tensors, of shapes that fit.
    fn check_shapes(&self, name: &str, module: &PeftModule) -> Result<(), WeightsError> {
        let shape = |tensor: &Option<String>| tensor.as_ref().and_then(|t| self.store.shape(t));
        let (expected, dora) = (self.config.of(name).0, self.config.use_dora);
        let fits = match (shape(&module.a), shape(&module.b), shape(&module.magnitude)) {
            (Some(&[rank, _]), Some(&[_, inner]), None) => [rank, inner] == [expected; 2] && !dora,
            (Some(&[rank, _]), Some(&[output, inner]), Some(&[width])) => {
                [rank, inner] == [expected; 2] && output == width && dora
            }
            _ => false,
        };
        if fits {
            return Ok(());
        }
        let what = format!(
            "the tensors of {name:?} are incomplete, or their shapes do not fit each other"
        );
        Err(WeightsError::format(self.store.path(), what, "get the file again"))
    }

    /// Factor of the product of the matrices of a module.
    fn scale(&self, path: &str) -> f64 {
        let (rank, alpha) = self.config.of(path);
        let rank = rank as f64;
        alpha / if self.config.use_rslora { rank.sqrt() } else { rank }
    }

    /// The places of the adapters' parameters in the file, for a model whose adapters are those of the file.
    ///
    /// # Errors
    /// [`WeightsError`] if the adapters of the run differ from the adapters of the file.
    pub fn locations(
        &self,
        model: &ModelSpec,
        folder: &Path,
    ) -> Result<HashMap<String, ParameterLocation>, WeightsError> {
        let loras = || model.modules.iter().filter_map(|m| m.lora.as_ref());
        loras().try_for_each(|lora| self.check_settings(lora))?;
        let tables = tables(model, folder)?;
        let mut locations = HashMap::new();
        let Some(lora) = loras().next() else { return Ok(locations) };
        let is_adapted = |part: &TensorPart| {
            model.modules.iter().any(|module| module.has_adapter(&part.parameter))
        };
        for (path, module) in &self.modules {
            let (table, entry) = self.entry(&tables, path)?;
            let parts = &tables[table].entries[entry].parts;
            let adapted = parts.iter().filter(|part| is_adapted(part)).count();
            let inner = self.inner(path, lora, adapted)?;
            let (mut first_row, mut block) = (0, 0);
            for part in parts {
                let layer = part.parameter.trim_end_matches(".weight");
                let columns = match inner {
                    Inner::Shared => 0..self.config.of(path).0,
                    Inner::Blocks(rank) => block * rank..(block + 1) * rank,
                };
                let rows = first_row..first_row + part.rows;
                first_row = rows.end;
                if !is_adapted(part) {
                    self.check_zeros(path, rows, 0..0)?;
                    continue;
                }
                if let Inner::Blocks(_) = inner {
                    self.check_zeros(path, rows.clone(), columns.clone())?;
                    block += 1;
                }
                let mut add =
                    |name: &str, tensor: &Option<String>, rows: Range<usize>, columns, layout| {
                        let Some(tensor) = tensor.clone() else { return };
                        let (first_row, rows) = (rows.start, rows.len());
                        let at = ParameterLocation { tensor, first_row, rows, columns, layout };
                        locations.insert(format!("{layer}.lora.{name}"), at);
                    };
                add("a", &module.a, columns.clone(), None, TensorLayout::Columns);
                add("b", &module.b, rows.clone(), Some(columns), TensorLayout::Columns);
                add("magnitude", &module.magnitude, rows, None, TensorLayout::Rows);
            }
        }
        Ok(locations)
    }

    /// How the adapters of the projections of one tensor lie in its adapter, if that is what the run needs.
    fn inner(&self, path: &str, lora: &Lora, adapted: usize) -> Result<Inner, WeightsError> {
        let (rank, alpha) = self.config.of(path);
        let one = lora.rank as usize;
        let same = (self.scale(path) / lora.scale() - 1.0).abs() < 1e-6;
        match () {
            () if same && rank == one => Ok(Inner::Shared),
            () if same && rank == one * adapted => Ok(Inner::Blocks(one)),
            () => {
                let what = format!(
                    "{path:?} has rank {rank} and alpha {alpha}, which differs from [lora]"
                );
                let remedy = "merge it with `dip merge`, and start from the merged model";
                Err(WeightsError::format(&self.path.join(CONFIG), what, remedy))
            }
        }
    }

    /// Checks that rows of the second matrix of a module are zero outside `columns`.
    fn check_zeros(
        &self,
        path: &str,
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> Result<(), WeightsError> {
        let Some(b) = &self.modules[path].b else { return Ok(()) };
        let rank = self.config.of(path).0;
        let values = self.store.rows(b, rows)?;
        let is_zero =
            |row: &[f32]| row.iter().enumerate().all(|(i, &v)| v == 0.0 || columns.contains(&i));
        if values.chunks_exact(rank).all(is_zero) {
            return Ok(());
        }
        let what = format!(
            "the adapter of {path:?} adapts projections together that [lora] adapts one by one, or not at all"
        );
        let remedy = "merge it with `dip merge`, and start from the merged model";
        Err(WeightsError::format(self.store.path(), what, remedy))
    }

    /// The tensors that the adapters of a model are read from.
    pub fn store(&self) -> &TensorStore {
        &self.store
    }

    fn check_settings(&self, lora: &Lora) -> Result<(), WeightsError> {
        let PeftConfig { r, lora_alpha, use_rslora, use_dora, .. } = &self.config;
        let same = (lora.rank, lora.rank_stabilized, lora.dora) == (*r, *use_rslora, *use_dora);
        if same && lora.alpha == *lora_alpha {
            return Ok(());
        }
        let what = format!(
            "the adapter has r {r}, lora_alpha {lora_alpha}, use_rslora {use_rslora}, use_dora {use_dora}, which differs from [lora]"
        );
        let remedy = "give [lora] the rank, alpha, rank_stabilized and dora of the adapter";
        Err(WeightsError::format(&self.path.join(CONFIG), what, remedy))
    }

    /// The table and the entry of an adapted module.
    fn entry(&self, tables: &[Table], path: &str) -> Result<(usize, usize), WeightsError> {
        let name = format!("{path}.weight");
        let in_table = |(t, table): (usize, &Table)| {
            Some((t, table.entries.iter().position(|entry| entry.name == name)?))
        };
        tables.iter().enumerate().find_map(in_table).ok_or_else(|| {
            let what = format!("it adapts {path:?}, which the model does not have");
            WeightsError::format(
                self.store.path(),
                what,
                "give the model that the adapter was trained on",
            )
        })
    }
}

impl PeftConfig {
    /// Rank and alpha of a module.
    fn of(&self, path: &str) -> (usize, f64) {
        let rank = of_path(&self.rank_pattern, path).unwrap_or(self.r);
        (rank as usize, of_path(&self.alpha_pattern, path).unwrap_or(self.lora_alpha))
    }

    /// A key of the patterns that is a regular expression: which modules it means depends on the reader.
    fn expression(&self) -> Option<&str> {
        let is_path = |key: &str| key.chars().all(|c| c.is_alphanumeric() || "._".contains(c));
        let mut keys = self.rank_pattern.keys().chain(self.alpha_pattern.keys());
        keys.find(|key| !is_path(key)).map(String::as_str)
    }

    /// The first setting that is not supported.
    fn unsupported(&self) -> Option<String> {
        let bias = self.bias.as_deref().unwrap_or("none");
        match self {
            Self { peft_type, .. } if peft_type != "LORA" => {
                Some(format!("peft_type {peft_type:?} is not LORA"))
            }
            Self { fan_in_fan_out: true, .. } => Some("fan_in_fan_out is set".into()),
            Self { modules_to_save: Some(_), .. } => Some("modules_to_save is set".into()),
            _ if self.expression().is_some() => {
                Some(format!("the pattern {:?} is no path of a module", self.expression()))
            }
            Self { r: 0, .. } => Some("r is 0".into()),
            _ if bias != "none" => Some(format!("bias {bias:?} is not none")),
            _ => None,
        }
    }
}

/// The value of the longest key that ends a path.
fn of_path<T: Copy>(pattern: &BTreeMap<String, T>, path: &str) -> Option<T> {
    let ends = |key: &str| path.strip_suffix(key).is_some_and(|p| p.is_empty() || p.ends_with('.'));
    let matching = pattern.iter().filter(|(key, _)| ends(key));
    matching.max_by_key(|(key, _)| key.len()).map(|(_, &value)| value)
}

/// The tables of a model under all prefixes that its files may have; their entries are in the same order.
fn tables(model: &ModelSpec, folder: &Path) -> Result<Vec<Table>, WeightsError> {
    let architecture = architecture(folder)?;
    let prefixes = names::prefixes(architecture);
    Ok(prefixes.iter().map(|prefixes| names::table(model, architecture, prefixes)).collect())
}
