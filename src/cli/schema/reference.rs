//! A schema as a reference: a table for every object.

use std::collections::VecDeque;

use schemars::Schema;
use serde_json::{Map, Value};

type Object = Map<String, Value>;

/// Markdown with a table of the fields of every object: the root first, the others as they are met.
pub fn markdown(schema: &Schema) -> String {
    let Some(root) = schema.as_object() else { return String::new() };
    let definitions = root.get("$defs").and_then(Value::as_object).cloned().unwrap_or_default();
    let mut reference = Reference { definitions, waiting: VecDeque::new(), met: Vec::new() };
    let title = root.get("title").and_then(Value::as_str).unwrap_or("file");
    let mut out = reference.section(title, root);
    while let Some(name) = reference.waiting.pop_front() {
        let definition = reference.definitions.get(&name).and_then(Value::as_object).cloned();
        if let Some(definition) = definition {
            out.push_str(&reference.section(&name, &definition));
        }
    }
    out
}

struct Reference {
    definitions: Object,
    /// Definitions that were met and have no section yet.
    waiting: VecDeque<String>,
    met: Vec<String>,
}

impl Reference {
    fn section(&mut self, title: &str, object: &Object) -> String {
        let mut out = format!("### {title}\n\n");
        if let Some(text) = description(object) {
            out.push_str(&format!("{text}\n\n"));
        }
        let required: Vec<&str> = strings(object.get("required"));
        let Some(properties) = object.get("properties").and_then(Value::as_object) else {
            out.push_str(&format!("{}\n\n", self.type_of(object)));
            return out;
        };
        out.push_str("| field | type | default | meaning |\n|---|---|---|---|\n");
        for (name, field) in properties {
            let Some(field) = field.as_object() else { continue };
            let default = match field.get("default") {
                _ if required.contains(&name.as_str()) => "required".into(),
                None | Some(Value::Null) => "absent".into(),
                // The defaults of a table stand in the section of the table.
                Some(Value::Object(_)) => String::new(),
                Some(value) => format!("`{value}`"),
            };
            let (kind, meaning) = (self.type_of(field), description(field).unwrap_or_default());
            out.push_str(&format!("| `{name}` | {kind} | {default} | {meaning} |\n"));
        }
        out.push('\n');
        out
    }

    /// The type of a value in words. Objects that are met get a section.
    fn type_of(&mut self, value: &Object) -> String {
        if let Some(name) = value.get("$ref").and_then(Value::as_str) {
            return self.named(name.trim_start_matches("#/$defs/").to_owned());
        }
        for choice in ["anyOf", "oneOf"] {
            if let Some(choices) = value.get(choice).and_then(Value::as_array) {
                return self.any_of(&choices.clone());
            }
        }
        if let Some(constant) = value.get("const") {
            return format!("`{constant}`");
        }
        let names = strings(value.get("enum"));
        if !names.is_empty() {
            let names: Vec<String> = names.iter().map(|name| format!("`\"{name}\"`")).collect();
            return names.join(", ");
        }
        let items = value.get("items").and_then(Value::as_object).cloned();
        let kinds = match value.get("type") {
            Some(Value::String(kind)) => vec![kind.as_str()],
            kinds => strings(kinds),
        };
        let kinds: Vec<String> = kinds
            .into_iter()
            .filter(|kind| *kind != "null")
            .map(|kind| match (kind, &items) {
                ("array", Some(items)) => format!("list of {}", self.type_of(items)),
                ("array", None) => "list".into(),
                ("object", _) => self.object(value),
                (kind, _) => kind.to_owned(),
            })
            .collect();
        if kinds.is_empty() { "any".into() } else { kinds.join(" or ") }
    }

    /// An object without a name: of one field, as the choices of a tagged type have it, or a map.
    fn object(&mut self, value: &Object) -> String {
        let Some(properties) = value.get("properties").and_then(Value::as_object) else {
            return "table".into();
        };
        let fields = properties.clone();
        let fields = fields.iter().map(|(name, field)| match field.as_object() {
            Some(field) => format!("`{name}` = {}", self.type_of(field)),
            None => format!("`{name}`"),
        });
        format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
    }

    fn any_of(&mut self, choices: &[Value]) -> String {
        let objects = choices.iter().filter_map(Value::as_object);
        let is_value = |choice: &&Object| choice.get("type").is_none_or(|kind| kind != "null");
        let all: Vec<String> =
            objects.filter(is_value).map(|choice| self.type_of(choice)).collect();
        all.join(" or ")
    }

    /// A definition: its name if it has fields, else what it is.
    fn named(&mut self, name: String) -> String {
        let Some(definition) = self.definitions.get(&name).and_then(Value::as_object).cloned()
        else {
            return name;
        };
        if !definition.contains_key("properties") {
            return self.type_of(&definition);
        }
        if !self.met.contains(&name) {
            self.met.push(name.clone());
            self.waiting.push_back(name.clone());
        }
        format!("[{name}](#{})", name.to_lowercase())
    }
}

/// The description on one line. Links of Rust's documentation become code.
fn description(object: &Object) -> Option<String> {
    let text = object.get("description")?.as_str()?;
    let text = text.replace("\n\n", "<br>").replace(['\n'], " ").replace('|', "\\|");
    Some(text.replace("[`", "`").replace("`]", "`"))
}

fn strings(value: Option<&Value>) -> Vec<&str> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}
