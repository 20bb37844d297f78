//! The files beside a `tokenizer.json` that name its special tokens and its chat template.

use std::path::{Path, PathBuf};

use dip_files::Kind;
use serde_json::Value;

use crate::data::error::DataError;

const TEMPLATE: &str = "chat_template.jinja";
/// Files that hold a template in a field, in the order in which they count.
const TEMPLATE_JSON: [&str; 3] =
    ["chat_template.json", "processor_config.json", "tokenizer_config.json"];

/// What the files of a model say about its tokens.
#[derive(Debug, Default)]
pub(super) struct ModelFiles {
    folder: PathBuf,
    tokenizer_config: Value,
    special_tokens_map: Value,
    generation_config: Value,
    config: Value,
    /// `chat_template.jinja`
    template: Option<String>,
    /// `chat_template.json` and `processor_config.json`
    template_json: [Value; 2],
}

/// The source of a chat template, and its file.
pub(super) struct TemplateSource<'a> {
    pub path: PathBuf,
    pub text: &'a str,
}

impl ModelFiles {
    /// Reads the files of a folder; all of them may be absent.
    ///
    /// # Errors
    /// [`DataError`] names a file that cannot be read or is not JSON.
    pub fn read(folder: &Path) -> Result<Self, DataError> {
        let json = |name: &str| json_file(&folder.join(name));
        Ok(Self {
            folder: folder.to_owned(),
            tokenizer_config: json("tokenizer_config.json")?,
            special_tokens_map: json("special_tokens_map.json")?,
            generation_config: json("generation_config.json")?,
            config: json("config.json")?,
            template: text_file(&folder.join(TEMPLATE))?,
            template_json: [json(TEMPLATE_JSON[0])?, json(TEMPLATE_JSON[1])?],
        })
    }

    /// The text of a named token such as `eos_token`.
    pub fn token(&self, name: &str) -> Option<&str> {
        [&self.tokenizer_config, &self.special_tokens_map].into_iter().find_map(|file| {
            let token = file.get(name)?;
            token.as_str().or_else(|| token.get("content")?.as_str())
        })
    }

    /// The id of a field such as `eos_token_id`; the first one of a list.
    pub fn id(&self, name: &str) -> Option<u32> {
        let text = self.config.get("text_config").unwrap_or(&Value::Null);
        [&self.generation_config, &self.config, text].into_iter().find_map(|file| {
            let id = file.get(name)?;
            let id = id.as_array().map_or(Some(id), |ids| ids.first())?;
            id.as_u64().and_then(|id| u32::try_from(id).ok())
        })
    }

    /// A switch of the tokenizer such as `add_bos_token`.
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.tokenizer_config.get(name)?.as_bool()
    }

    /// The chat template: `chat_template.jinja`, or the one named `default` in the other files.
    pub fn chat_template(&self) -> Option<TemplateSource<'_>> {
        let source = |name: &str, text| TemplateSource { path: self.folder.join(name), text };
        if let Some(text) = &self.template {
            return Some(source(TEMPLATE, text));
        }
        let [own, processor] = &self.template_json;
        let files = TEMPLATE_JSON.into_iter().zip([own, processor, &self.tokenizer_config]);
        let mut given = files.filter_map(|(name, file)| Some((name, file.get("chat_template")?)));
        let (name, found) = given.next()?;
        default_template(found).map(|text| source(name, text))
    }
}

/// A template is a text, a list of objects with `name` and `template`, or an object of templates by name.
fn default_template(json: &Value) -> Option<&str> {
    match json {
        Value::String(text) => Some(text),
        Value::Array(named) => {
            let is_default = |t: &&Value| t.get("name").and_then(Value::as_str) == Some("default");
            named.iter().find(is_default)?.get("template")?.as_str()
        }
        _ => json.get("default")?.as_str(),
    }
}

/// The JSON of a file; null if there is no file.
fn json_file(path: &Path) -> Result<Value, DataError> {
    let Some(text) = text_file(path)? else { return Ok(Value::Null) };
    serde_json::from_str(&text)
        .map_err(|source| DataError::ModelFile { path: path.to_owned(), source: source.into() })
}

/// The text of a file without a byte-order mark; `None` if there is no file.
fn text_file(path: &Path) -> Result<Option<String>, DataError> {
    let io = |source| DataError::Io { path: path.to_owned(), source };
    if !path.exists() {
        return Ok(None);
    }
    let text = dip_files::read_text(path, Kind::CONFIG).map_err(io)?;
    Ok(Some(text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned()))
}
