//! How published files name and lay out the weights of each architecture.
//!
//! A table of [`Entry`] says for every tensor of a file which parameters it holds; the same table serves reading and writing.

mod clip;
mod decoder;
mod llava;
mod qwen2_vl;

use dip_core::ModelSpec;
use dip_core::hf::Architecture;

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The parameters it holds, one below the other.
    pub parts: Vec<Part>,
    /// How each of them is laid out.
    pub layout: Layout,
}

/// Rows of a tensor that are one parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// The parameter.
    pub parameter: String,
    /// Its rows in the tensor.
    pub rows: usize,
}

/// How rows of a tensor become a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// As they are.
    Rows,
    /// Transposed: files hold `[output, input]`, all dimensions behind the first taken together.
    Columns,
}

/// The tensors of an architecture.
#[derive(Debug, Default)]
pub struct Table {
    /// Those that the model needs.
    pub entries: Vec<Entry>,
    /// Parameters that are the transpose of a whole tensor which is a parameter, too: tied heads.
    pub tied: Vec<(String, String)>,
}

/// Prefixes of the parts of a model; they differ between versions of `transformers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefixes {
    text: &'static str,
    head: &'static str,
    vision: &'static str,
    adapter: &'static str,
}

/// The prefixes that files of an architecture may have, those of published files first.
pub fn prefixes(architecture: Architecture) -> &'static [Prefixes] {
    match architecture {
        Architecture::Llama | Architecture::Qwen2 => &decoder::PREFIXES,
        Architecture::Qwen2Vl => &qwen2_vl::PREFIXES,
        Architecture::Llava => &llava::PREFIXES,
    }
}

/// The tensors of a model whose modules are named as a `config.json` gives them.
pub fn table(model: &ModelSpec, architecture: Architecture, prefixes: &Prefixes) -> Table {
    let mut table = Table::default();
    match architecture {
        Architecture::Llama | Architecture::Qwen2 => decoder::add(&mut table, model, prefixes),
        Architecture::Qwen2Vl => {
            qwen2_vl::add(&mut table, model, prefixes);
            decoder::add(&mut table, model, prefixes);
        }
        Architecture::Llava => {
            llava::add(&mut table, model, prefixes);
            decoder::add(&mut table, model, prefixes);
        }
    }
    table
}

/// Whether a tensor that no parameter needs belongs to such files all the same.
pub fn is_unused(name: &str, model: &ModelSpec, prefixes: &Prefixes) -> bool {
    // Tables that can be computed, and the head of a tied model, which is its token table.
    let computed = name.ends_with("rotary_emb.inv_freq") || name.ends_with("position_ids");
    let tied = model.modules.iter().any(|m| m.is_tied());
    computed
        || tied && name == format!("{}weight", prefixes.head)
        || clip::is_unused(name, model, prefixes)
}

impl Table {
    fn push(
        &mut self,
        name: String,
        shape: &[usize],
        layout: Layout,
        parameters: &[(String, usize)],
    ) {
        let part = |(parameter, rows): &(String, usize)| Part {
            parameter: parameter.clone(),
            rows: *rows,
        };
        let parts = parameters.iter().map(part).collect();
        self.entries.push(Entry { name, shape: shape.to_vec(), parts, layout });
    }

    /// A tensor that is one parameter of the same shape.
    fn same(&mut self, name: String, shape: &[usize], parameter: String) {
        self.push(name, shape, Layout::Rows, &[(parameter, shape[0])]);
    }

    /// The matrix `[output, input]` of a linear layer, and its bias where it has one.
    fn linear(&mut self, name: &str, [output, input]: [usize; 2], bias: bool, parameter: &str) {
        let weight = format!("{parameter}.weight");
        self.push(format!("{name}.weight"), &[output, input], Layout::Columns, &[(weight, output)]);
        if bias {
            self.same(format!("{name}.bias"), &[output], format!("{parameter}.bias"));
        }
    }

    /// Scale and shift of a layer norm.
    fn layer_norm(&mut self, name: &str, width: usize, parameter: &str) {
        self.same(format!("{name}.weight"), &[width], format!("{parameter}.gamma"));
        self.same(format!("{name}.bias"), &[width], format!("{parameter}.beta"));
    }
}
