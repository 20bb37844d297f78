//! Low-rank adapters in the layout of PEFT: `adapter_config.json` and `adapter_model.safetensors`.

mod export;
mod merge;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use dip_core::{Lora, ModelSpec};
use serde::Deserialize;
use serde_json::Value;

use super::names::{self, Table, TensorLayout};
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
    #[serde(default)]
    alpha_pattern: BTreeMap<String, Value>,
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
            adapter.check(name, module)?;
        }
        Ok(adapter)
    }

    /// Checks that a module has its tensors, of shapes that fit.
    fn check(&self, name: &str, module: &PeftModule) -> Result<(), WeightsError> {
        let shape = |tensor: &Option<String>| tensor.as_ref().and_then(|t| self.store.shape(t));
        let fits = match (shape(&module.a), shape(&module.b), shape(&module.magnitude)) {
            (Some(&[rank, _]), Some(&[_, inner]), None) => rank == inner && !self.config.use_dora,
            (Some(&[rank, _]), Some(&[output, inner]), Some(&[width])) => {
                rank == inner && output == width && self.config.use_dora
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

    /// Factor of the product of the matrices of an adapter of rank `rank`.
    fn scale(&self, rank: usize) -> f64 {
        let rank = rank as f64;
        self.config.lora_alpha / if self.config.use_rslora { rank.sqrt() } else { rank }
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
        for module in model.modules.iter().filter_map(|m| m.lora.as_ref()) {
            self.check_settings(module)?;
        }
        let tables = tables(model, folder)?;
        let mut locations = HashMap::new();
        for (path, module) in &self.modules {
            let entry = self.entry(&tables, path)?;
            let mut first_row = 0;
            for part in &tables[entry.0].entries[entry.1].parts {
                let layer = part.parameter.trim_end_matches(".weight");
                let rank = self.config.r as usize;
                let mut add = |name: &str, tensor: &Option<String>, first_row, rows, layout| {
                    let Some(tensor) = tensor.clone() else { return };
                    let at = ParameterLocation { tensor, first_row, rows, layout };
                    locations.insert(format!("{layer}.lora.{name}"), at);
                };
                add("a", &module.a, 0, rank, TensorLayout::Columns);
                add("b", &module.b, first_row, part.rows, TensorLayout::Columns);
                add("magnitude", &module.magnitude, first_row, part.rows, TensorLayout::Rows);
                first_row += part.rows;
            }
        }
        Ok(locations)
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
    /// The first setting that is not supported.
    fn unsupported(&self) -> Option<String> {
        let bias = self.bias.as_deref().unwrap_or("none");
        match self {
            Self { peft_type, .. } if peft_type != "LORA" => {
                Some(format!("peft_type {peft_type:?} is not LORA"))
            }
            Self { fan_in_fan_out: true, .. } => Some("fan_in_fan_out is set".into()),
            Self { modules_to_save: Some(_), .. } => Some("modules_to_save is set".into()),
            Self { alpha_pattern, .. } if !alpha_pattern.is_empty() => {
                Some("alpha_pattern is set".into())
            }
            Self { r: 0, .. } => Some("r is 0".into()),
            _ if bias != "none" => Some(format!("bias {bias:?} is not none")),
            _ => None,
        }
    }
}

/// The tables of a model under all prefixes that its files may have; their entries are in the same order.
fn tables(model: &ModelSpec, folder: &Path) -> Result<Vec<Table>, WeightsError> {
    let architecture = architecture(folder)?;
    let prefixes = names::prefixes(architecture);
    Ok(prefixes.iter().map(|prefixes| names::table(model, architecture, prefixes)).collect())
}
