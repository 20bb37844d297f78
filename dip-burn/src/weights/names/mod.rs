//! Names and layouts of the weights of each architecture in published files.
//!
//! A [`Table`] lists the parameters of every tensor of a file. The same table serves reading and writing.

mod clip;
mod decoder;
mod idefics;
mod llava;
mod qwen2_audio;
mod qwen_vl;
mod wan;

use dip_core::hf::Architecture;
use dip_core::{ModelSpec, NormKind};

pub use wan::{TEXT_ENCODER, TRANSFORMER};

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct TableEntry {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its parameters, one after another.
    pub parts: Vec<TensorPart>,
    /// The layout of each part.
    pub layout: TensorLayout,
}

/// The rows of a tensor that are one parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorPart {
    /// The parameter.
    pub parameter: String,
    /// Its rows in the tensor.
    pub rows: usize,
}

/// The relation between the rows of a tensor and a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorLayout {
    /// The parameter is the rows.
    Rows,
    /// The parameter is their transpose: files hold `[output, input]`, where the input is all dimensions after the first.
    Columns,
}

/// The tensors of an architecture.
#[derive(Debug, Default)]
pub struct Table {
    /// The tensors that the model needs.
    pub entries: Vec<TableEntry>,
    /// The heads that share the token table.
    pub tied: Vec<TiedHead>,
}

/// A parameter that is the transpose of the tensor of another parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct TiedHead {
    /// The parameter.
    pub parameter: String,
    /// The tensor.
    pub tensor: String,
}

/// Prefixes of the parts of a model; they differ between versions of `transformers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefixes {
    text: &'static str,
    head: &'static str,
    vision: &'static str,
    adapter: &'static str,
}

/// The prefixes that files of an architecture may have; the prefixes of published files come first.
pub fn prefixes(architecture: Architecture) -> &'static [Prefixes] {
    match architecture {
        Architecture::Llama | Architecture::Mistral | Architecture::Qwen2 | Architecture::Qwen3 => {
            &decoder::PREFIXES
        }
        Architecture::Qwen2Vl | Architecture::Qwen25Vl | Architecture::Qwen3Vl => {
            &qwen_vl::PREFIXES
        }
        Architecture::Llava | Architecture::LlavaNext | Architecture::LlavaOnevision => {
            &llava::PREFIXES
        }
        Architecture::Idefics3 | Architecture::SmolVlm => &idefics::PREFIXES,
        Architecture::Qwen2Audio => &qwen2_audio::PREFIXES,
        Architecture::Wan => &wan::PREFIXES,
    }
}

/// The tensors of a model whose modules are named as a `config.json` gives them.
pub fn table(model: &ModelSpec, architecture: Architecture, prefixes: &Prefixes) -> Table {
    let mut table = Table::default();
    match architecture {
        Architecture::Llama | Architecture::Mistral | Architecture::Qwen2 | Architecture::Qwen3 => {
            decoder::add(&mut table, model, prefixes)
        }
        Architecture::Qwen2Vl | Architecture::Qwen25Vl | Architecture::Qwen3Vl => {
            qwen_vl::add(&mut table, model, prefixes);
            decoder::add(&mut table, model, prefixes);
        }
        Architecture::Llava | Architecture::LlavaNext | Architecture::LlavaOnevision => {
            llava::add(&mut table, model, prefixes);
            decoder::add(&mut table, model, prefixes);
        }
        Architecture::Idefics3 | Architecture::SmolVlm => {
            idefics::add(&mut table, model, prefixes);
            decoder::add(&mut table, model, prefixes);
        }
        Architecture::Qwen2Audio => {
            qwen2_audio::add(&mut table, model, prefixes);
            decoder::add(&mut table, model, prefixes);
        }
        Architecture::Wan => wan::add(&mut table, model, prefixes),
    }
    table
}

/// True for a tensor that such files hold although no parameter needs it.
pub fn is_unused(name: &str, model: &ModelSpec, prefixes: &Prefixes) -> bool {
    // Tables that can be computed, and the head of a tied model, which repeats its token table.
    let computed = name.ends_with("rotary_emb.inv_freq") || name.ends_with("position_ids");
    let tied = model.modules.iter().any(|m| m.is_tied());
    computed
        || tied && name == format!("{}weight", prefixes.head)
        || clip::is_unused(name, model, prefixes)
        || wan::is_unused(name)
}

impl Table {
    fn push(
        &mut self,
        name: String,
        shape: &[usize],
        layout: TensorLayout,
        parts: Vec<TensorPart>,
    ) {
        self.entries.push(TableEntry { name, shape: shape.to_vec(), parts, layout });
    }

    /// Adds a tensor that is one parameter of the same shape.
    fn same(&mut self, name: String, shape: &[usize], parameter: String) {
        self.push(name, shape, TensorLayout::Rows, vec![TensorPart { parameter, rows: shape[0] }]);
    }

    /// Adds the matrix `[output, input]` of a linear layer and its bias, if it has one.
    fn linear(&mut self, name: &str, [output, input]: [usize; 2], bias: bool, parameter: &str) {
        let part = TensorPart { parameter: format!("{parameter}.weight"), rows: output };
        self.push(format!("{name}.weight"), &[output, input], TensorLayout::Columns, vec![part]);
        if bias {
            self.same(format!("{name}.bias"), &[output], format!("{parameter}.bias"));
        }
    }

    /// Adds the scale of a norm, and its shift if it has one.
    fn norm(&mut self, name: &str, width: usize, kind: NormKind, parameter: &str) {
        match kind {
            NormKind::Layer => self.layer_norm(name, width, parameter),
            NormKind::Rms => {
                self.same(format!("{name}.weight"), &[width], format!("{parameter}.gamma"))
            }
        }
    }

    /// Adds scale and shift of a layer norm.
    fn layer_norm(&mut self, name: &str, width: usize, parameter: &str) {
        self.same(format!("{name}.weight"), &[width], format!("{parameter}.gamma"));
        self.same(format!("{name}.bias"), &[width], format!("{parameter}.beta"));
    }
}
