//! Writes a checkpoint as a published model: the layout of Hugging Face, in shards of bounded size.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use burn::tensor::bf16;
use dip_core::ModelSpec;
use rayon::prelude::*;
use safetensors::tensor::Dtype;
use serde_json::json;

use super::header::header;
use super::names::{self, TableEntry, TensorLayout, TensorPart};
use super::peft::Delta;
use super::store::WeightFiles;
use super::{
    CONFIG, TensorStore, WeightsError, architecture, fitting, is_adapter, transposed, unnamed,
};

/// The end of the name of an index of shards.
const INDEX_END: &str = ".safetensors.index.json";
/// Largest file that is copied with the weights, such as a tokenizer.
const MAX_COPIED_BYTES: u64 = 256 << 20;

/// The format of the written weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportConfig {
    /// Most bytes of a shard, unless a single tensor is larger.
    pub shard_bytes: u64,
    /// True to round weights to bf16, false to keep f32.
    pub bf16: bool,
}

impl Default for ExportConfig {
    fn default() -> Self {
        Self { shard_bytes: 4 << 30, bf16: false }
    }
}

/// The size of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    /// Number of tensors.
    pub tensors: usize,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Number of shards.
    pub shards: usize,
}

/// A tensor to write.
pub(super) struct Output<'a> {
    pub name: String,
    pub shape: Vec<usize>,
    pub content: Content<'a>,
}

/// The source of the values of a tensor.
pub(super) enum Content<'a> {
    /// Parameters of the checkpoint.
    Trained(TableEntry),
    /// A tensor of the published model that the trained model lacks.
    Copied(&'a TensorStore),
    /// A tensor of the published model, with an adapter of PEFT.
    Merged(&'a TensorStore, Delta<'a>),
}

/// Writes the weights of a checkpoint of `model` to the new folder `out`, with the `config.json` and the other small files of the published model
/// in the folder `from`. Adapters are merged into their weights.
///
/// # Errors
/// [`WeightsError`] names the file or tensor and the remedy; `out` appears whole or not at all.
pub fn export(
    trained: &TensorStore,
    model: &ModelSpec,
    from: &Path,
    out: &Path,
    config: ExportConfig,
) -> Result<Exported, WeightsError> {
    refuse_existing(out)?;
    let published = published(from)?;
    let outputs = outputs(trained, model, from, published.as_ref())?;
    let writer = Writer { trained, model, config };
    writer.write_model(from, out, &outputs)
}

pub(super) fn refuse_existing(out: &Path) -> Result<(), WeightsError> {
    match out.exists() {
        false => Ok(()),
        true => {
            let remedy = "choose a new folder, or remove this one";
            Err(WeightsError::format(out, "is there already", remedy))
        }
    }
}

/// The weights of the published model; `None` if training began from only a `config.json`.
fn published(from: &Path) -> Result<Option<TensorStore>, WeightsError> {
    let has_weights = WeightFiles::of(from).iter().all(|part| part.exist_in(from));
    has_weights.then(|| TensorStore::open(from)).transpose()
}

/// The tensors of the published layout with the source of each.
fn outputs<'a>(
    trained: &TensorStore,
    model: &ModelSpec,
    from: &Path,
    published: Option<&'a TensorStore>,
) -> Result<Vec<Output<'a>>, WeightsError> {
    let architecture = architecture(from)?;
    let (_, table) = match published {
        Some(store) => fitting(store, model, architecture),
        None => {
            let prefixes = names::prefixes(architecture)[0];
            (prefixes, names::table(model, architecture, &prefixes))
        }
    };
    check_every_parameter_has_a_place(trained, &table)?;
    let copied = published.into_iter().flat_map(|store| {
        unnamed(store, &table).map(|name| Output {
            name: name.to_owned(),
            shape: store.shape(name).unwrap_or_default().to_vec(),
            content: Content::Copied(store),
        })
    });
    // The head of a tied model is its token table, so a separate one is not copied.
    let tied = !table.tied.is_empty();
    let copied =
        copied.filter(|o| !(tied && o.name.ends_with("lm_head.weight"))).collect::<Vec<_>>();
    let named = table.entries.into_iter().map(|entry| Output {
        name: entry.name.clone(),
        shape: entry.shape.clone(),
        content: Content::Trained(entry),
    });
    Ok(named.chain(copied).collect())
}

fn check_every_parameter_has_a_place(
    trained: &TensorStore,
    table: &names::Table,
) -> Result<(), WeightsError> {
    let parts = table.entries.iter().flat_map(|e| &e.parts).map(|p| p.parameter.as_str());
    let tied = table.tied.iter().map(|head| head.parameter.as_str());
    let placed: BTreeSet<&str> = parts.chain(tied).collect();
    match trained.names().find(|name| !placed.contains(name) && !is_adapter(name)) {
        Some(name) => Err(WeightsError::Unknown { name: name.to_owned() }),
        None => Ok(()),
    }
}

/// Writes tensors from the parameters of a checkpoint.
pub(super) struct Writer<'a> {
    pub trained: &'a TensorStore,
    pub model: &'a ModelSpec,
    pub config: ExportConfig,
}

impl Writer<'_> {
    /// Writes all tensors, and the small files of the model in the folder `from`, to the new folder `out`.
    pub(super) fn write_model(
        &self,
        from: &Path,
        out: &Path,
        outputs: &[Output<'_>],
    ) -> Result<Exported, WeightsError> {
        refuse_existing(out)?;
        let partial = dip_files::partial_folder(out).map_err(WeightsError::io(out))?;
        let parts = WeightFiles::of(from);
        let exported = self.write(&partial, outputs, parts)?;
        copy_small_files(from, &partial)?;
        if parts.iter().any(|part| !part.folder.is_empty()) {
            copy_parts(from, &partial, parts)?;
        }
        dip_files::put_in_place(&partial, out).map_err(WeightsError::io(out))?;
        Ok(exported)
    }

    fn write(
        &self,
        folder: &Path,
        outputs: &[Output<'_>],
        parts: &[WeightFiles],
    ) -> Result<Exported, WeightsError> {
        let mut exported = Exported { tensors: outputs.len(), bytes: 0, shards: 0 };
        for part in parts {
            let folder = folder.join(part.folder);
            fs::create_dir_all(&folder).map_err(WeightsError::io(&folder))?;
            let own = outputs.iter().filter(|output| output.name.starts_with(part.folder));
            let own: Vec<&Output<'_>> = own.collect();
            exported.bytes += own.iter().map(|output| self.bytes(output)).sum::<u64>();
            exported.shards += self.write_part(&folder, &own, part)?;
        }
        Ok(exported)
    }

    /// Writes the tensors of one part and returns the number of its shards.
    fn write_part(
        &self,
        folder: &Path,
        outputs: &[&Output<'_>],
        part: &WeightFiles,
    ) -> Result<usize, WeightsError> {
        let shards = self.shards(outputs);
        let count = shards.len();
        let own_name = |output: &Output<'_>| output.name[part.folder.len()..].to_owned();
        let file = |i| if count == 1 { part.single() } else { part.shard(i + 1, count) };
        shards
            .par_iter()
            .enumerate()
            .try_for_each(|(i, shard)| self.write_shard(&folder.join(file(i)), shard, &own_name))?;
        if count > 1 {
            let bytes: u64 = outputs.iter().map(|output| self.bytes(output)).sum();
            let of_shard = |(i, shard): (usize, &Vec<&Output<'_>>)| {
                shard.iter().map(|output| (own_name(output), file(i))).collect::<Vec<_>>()
            };
            let weight_map: BTreeMap<_, _> = shards.iter().enumerate().flat_map(of_shard).collect();
            let index = json!({ "metadata": { "total_size": bytes }, "weight_map": weight_map });
            let text = serde_json::to_vec_pretty(&index).expect("plain data has a JSON form");
            let path = folder.join(part.index());
            dip_files::write_synced(&path, &text).map_err(WeightsError::io(&path))?;
        }
        Ok(count)
    }

    /// Splits the tensors into shards, in order.
    fn shards<'o, 'a>(&self, outputs: &[&'o Output<'a>]) -> Vec<Vec<&'o Output<'a>>> {
        let mut shards: Vec<Vec<&Output<'_>>> = Vec::new();
        let mut left = 0;
        for &output in outputs {
            let bytes = self.bytes(output);
            if shards.is_empty() || bytes > left {
                shards.push(Vec::new());
                left = self.config.shard_bytes;
            }
            left = left.saturating_sub(bytes);
            shards.last_mut().expect("one was pushed").push(output);
        }
        shards
    }

    fn element_bytes(&self) -> u64 {
        if self.config.bf16 { 2 } else { 4 }
    }

    fn bytes(&self, output: &Output<'_>) -> u64 {
        output.shape.iter().map(|&d| d as u64).product::<u64>() * self.element_bytes()
    }

    fn write_shard(
        &self,
        path: &Path,
        shard: &[&Output<'_>],
        name: &(dyn Fn(&Output<'_>) -> String + Sync),
    ) -> Result<(), WeightsError> {
        let file = File::create(path).map_err(WeightsError::io(path))?;
        let mut file = BufWriter::new(file);
        let dtype = if self.config.bf16 { Dtype::BF16 } else { Dtype::F32 };
        let shapes: Vec<_> = shard.iter().map(|o| (name(o), o.shape.clone())).collect();
        file.write_all(&header(dtype, &shapes)).map_err(WeightsError::io(path))?;
        for output in shard {
            let bytes = self.encoded(&self.values(output)?);
            file.write_all(&bytes).map_err(WeightsError::io(path))?;
        }
        let file = file.into_inner().map_err(|e| WeightsError::io(path)(e.into_error()))?;
        file.sync_all().map_err(WeightsError::io(path))
    }

    fn encoded(&self, values: &[f32]) -> Vec<u8> {
        match self.config.bf16 {
            true => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
            false => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }

    fn values(&self, output: &Output<'_>) -> Result<Vec<f32>, WeightsError> {
        let entry = match &output.content {
            Content::Copied(store) => return store.all(&output.name),
            Content::Merged(store, delta) => {
                let mut values = store.all(&output.name)?;
                delta.add_to(&mut values)?;
                return Ok(values);
            }
            Content::Trained(entry) => entry,
        };
        let count: usize = entry.shape.iter().product();
        let row = count / entry.shape[0].max(1);
        let mut values = Vec::with_capacity(count);
        for part in &entry.parts {
            values.extend(self.part(part, entry.layout, row)?);
        }
        Ok(values)
    }

    /// A parameter, merged with its adapter, as rows of `row` values of its tensor.
    fn part(
        &self,
        part: &TensorPart,
        layout: TensorLayout,
        row: usize,
    ) -> Result<Vec<f32>, WeightsError> {
        let mut values = self.trained.all(&part.parameter)?;
        if values.len() != part.rows * row {
            return Err(WeightsError::Shape {
                path: self.trained.path().to_owned(),
                name: part.parameter.clone(),
                found: self.trained.shape(&part.parameter).unwrap_or_default().to_vec(),
                expected: vec![row, part.rows],
            });
        }
        if let Some(layer) = part.parameter.strip_suffix(".weight") {
            self.merge(layer, part.rows, &mut values)?;
        }
        Ok(match layout {
            TensorLayout::Rows => values,
            TensorLayout::Columns => transposed(&values, row),
        })
    }

    /// Adds the product of the matrices of an adapter to the weights `[input, output]` of a layer, if it has one.
    fn merge(&self, layer: &str, output: usize, weights: &mut [f32]) -> Result<(), WeightsError> {
        let name = format!("{layer}.lora.a");
        let Some([_, rank]) = self.trained.shape(&name) else { return Ok(()) };
        let (a, b) = (self.trained.all(&name)?, self.trained.all(&format!("{layer}.lora.b"))?);
        let module = layer.split('.').next().unwrap_or_default();
        let lora = self.model.module(module).and_then(|(_, m)| m.lora.as_ref());
        let Some(lora) = lora.filter(|lora| lora.rank as usize == *rank) else {
            let what = format!("{name:?} has rank {rank}, which differs from the run");
            let remedy = "give the run.toml that the checkpoint was trained with";
            return Err(WeightsError::format(self.trained.path(), what, remedy));
        };
        let scale = lora.scale() as f32;
        for (w, a) in weights.chunks_exact_mut(output).zip(a.chunks_exact(*rank)) {
            for (a, b) in a.iter().zip(b.chunks_exact(output)) {
                w.iter_mut().zip(b).for_each(|(w, b)| *w += scale * a * b);
            }
        }
        if !lora.dora {
            return Ok(());
        }
        let magnitudes = self.trained.all(&format!("{layer}.lora.magnitude"))?;
        let mut squares = vec![0.0; output];
        for row in weights.chunks_exact(output) {
            squares.iter_mut().zip(row).for_each(|(sum, w)| *sum += w * w);
        }
        let factor = |(m, square): (&f32, &f32)| m / square.sqrt().max(f32::MIN_POSITIVE);
        let factors: Vec<f32> = magnitudes.iter().zip(&squares).map(factor).collect();
        for row in weights.chunks_exact_mut(output) {
            row.iter_mut().zip(&factors).for_each(|(w, factor)| *w *= factor);
        }
        Ok(())
    }
}

/// Copies `config.json`, tokenizers and other small files, but no weights.
fn copy_small_files(from: &Path, to: &Path) -> Result<(), WeightsError> {
    let io = || WeightsError::io(from);
    for entry in fs::read_dir(from).map_err(io())? {
        let entry = entry.map_err(io())?;
        let name = entry.file_name();
        let shown = name.to_string_lossy();
        let small = shown == CONFIG
            || [".json", ".txt", ".model", ".jinja"].iter().any(|end| shown.ends_with(end));
        let metadata = fs::metadata(entry.path()).map_err(io())?;
        let copied = small && !shown.ends_with(INDEX_END) && metadata.is_file();
        if copied && metadata.len() <= MAX_COPIED_BYTES {
            let target = to.join(&name);
            fs::copy(entry.path(), &target).map_err(WeightsError::io(&target))?;
        }
    }
    Ok(())
}

/// Copies the folders of the other parts of a model whole, such as its autoencoder, and the small files of the parts that were
/// written.
fn copy_parts(from: &Path, to: &Path, written: &[WeightFiles]) -> Result<(), WeightsError> {
    let io = || WeightsError::io(from);
    for entry in fs::read_dir(from).map_err(io())? {
        let entry = entry.map_err(io())?;
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !path.is_dir() || hidden {
            continue;
        }
        let target = to.join(entry.file_name());
        fs::create_dir_all(&target).map_err(WeightsError::io(&target))?;
        let name = format!("{}/", entry.file_name().to_string_lossy());
        if written.iter().any(|part| part.folder == name) {
            copy_small_files(&path, &target)?;
            continue;
        }
        for file in fs::read_dir(&path).map_err(WeightsError::io(&path))? {
            let file = file.map_err(WeightsError::io(&path))?;
            if file.path().is_file() {
                let target = target.join(file.file_name());
                fs::copy(file.path(), &target).map_err(WeightsError::io(&target))?;
            }
        }
    }
    Ok(())
}
