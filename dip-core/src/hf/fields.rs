//! Reads fields of a JSON object. Errors name the field.

use serde_json::{Map, Value};

use crate::spec::{FieldError, SpecError};

/// Maximum of every size. The specification has stricter limits.
const MAX_SIZE: u64 = 1 << 24;

const AGAIN: &str = "get the file again: it is broken or cut off";

/// The JSON of a text. Errors begin with `place`, the name of its file with a colon where callers do not know it.
pub(super) fn parsed(text: &str, place: &str) -> Result<Value, SpecError> {
    // Some editors begin a file with a mark of its encoding.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    serde_json::from_str(text).map_err(|e| SpecError::Syntax(format!("{place}{e}; {AGAIN}")))
}

/// One object of a `config.json`. A field that is null counts as absent.
#[derive(Clone)]
pub(super) struct Fields<'a> {
    object: &'a Map<String, Value>,
    /// Path of the object with a dot at its end; empty for the whole file.
    path: String,
}

impl<'a> Fields<'a> {
    pub fn root(json: &'a Value) -> Result<Self, SpecError> {
        match json {
            Value::Object(object) => Ok(Self { object, path: String::new() }),
            _ => Err(SpecError::Syntax(format!("a config.json is one JSON object; {AGAIN}"))),
        }
    }

    /// The whole of a file; errors name the file too.
    pub fn of_file(json: &'a Value, file: &str) -> Result<Self, SpecError> {
        match json {
            Value::Object(object) => Ok(Self { object, path: format!("{file}: ") }),
            _ => Err(SpecError::Syntax(format!("{file} must be one JSON object; {AGAIN}"))),
        }
    }

    /// An object inside this one; `None` if it is absent.
    pub fn child(&self, name: &str) -> Result<Option<Self>, SpecError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(object)) => {
                Ok(Some(Self { object, path: format!("{}{name}.", self.path) }))
            }
            Some(other) => Err(self.wrong(name, other, "an object")),
        }
    }

    /// An object inside this one. An error if it is absent.
    pub fn required_child(&self, name: &str) -> Result<Self, SpecError> {
        self.child(name)?.ok_or_else(|| self.absent(name, "an object"))
    }

    /// True if the object has the field, even if it is null.
    pub fn has(&self, name: &str) -> bool {
        self.object.contains_key(name)
    }

    /// A whole number of at least 0, or `default` if it is absent.
    pub fn whole_or(&self, name: &str, default: u32) -> Result<u32, SpecError> {
        let Some(value) = self.get(name) else { return Ok(default) };
        match value.as_u64() {
            Some(whole @ 0..=MAX_SIZE) => Ok(whole as u32),
            _ => Err(self.wrong(name, value, "a whole number of 0 to 16777216")),
        }
    }

    /// A size of at least 1.
    pub fn size(&self, name: &str) -> Result<u32, SpecError> {
        self.optional_size(name)?.ok_or_else(|| self.absent(name, "a whole number of at least 1"))
    }

    /// A size, or `default` if it is absent.
    pub fn size_or(&self, name: &str, default: u32) -> Result<u32, SpecError> {
        Ok(self.optional_size(name)?.unwrap_or(default))
    }

    /// A size; `None` if it is absent.
    pub fn optional_size(&self, name: &str) -> Result<Option<u32>, SpecError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_u64() {
            Some(size @ 1..=MAX_SIZE) => Ok(Some(size as u32)),
            _ => Err(self.wrong(name, value, "a whole number of 1 to 16777216")),
        }
    }

    /// True if the field is present and neither null nor false.
    pub fn is_set(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| *value != Value::Bool(false))
    }

    pub fn is_number(&self, name: &str) -> bool {
        self.get(name).is_some_and(Value::is_number)
    }

    pub fn is_list(&self, name: &str) -> bool {
        self.get(name).is_some_and(Value::is_array)
    }

    /// A whole number of at least 1; `None` if it is absent.
    pub fn optional_count(&self, name: &str) -> Result<Option<u64>, SpecError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let count = value.as_u64().filter(|&count| count >= 1);
        count.map(Some).ok_or_else(|| self.wrong(name, value, "a whole number of at least 1"))
    }

    pub fn integer_or(&self, name: &str, default: i64) -> Result<i64, SpecError> {
        let Some(value) = self.get(name) else { return Ok(default) };
        value.as_i64().ok_or_else(|| self.wrong(name, value, "one whole number"))
    }

    /// A whole number, or a list of only one.
    pub fn integer_or_only(&self, name: &str, default: i64) -> Result<i64, SpecError> {
        match self.get(name).and_then(Value::as_array).map(Vec::as_slice) {
            Some([only]) => {
                let limit = "one whole number, or a list of one";
                only.as_i64().ok_or_else(|| self.wrong(name, only, limit))
            }
            _ => self.integer_or(name, default),
        }
    }

    pub fn number_or(&self, name: &str, default: f64) -> Result<f64, SpecError> {
        Ok(self.optional_number(name)?.unwrap_or(default))
    }

    pub fn number(&self, name: &str) -> Result<f64, SpecError> {
        self.optional_number(name)?.ok_or_else(|| self.absent(name, "a number"))
    }

    pub fn optional_number(&self, name: &str) -> Result<Option<f64>, SpecError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| self.wrong(name, value, "a number"))
    }

    pub fn flag_or(&self, name: &str, default: bool) -> Result<bool, SpecError> {
        Ok(self.optional_flag(name)?.unwrap_or(default))
    }

    pub fn optional_flag(&self, name: &str) -> Result<Option<bool>, SpecError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.wrong(name, value, "true or false"))
    }

    pub fn text_or(&self, name: &str, default: &'a str) -> Result<&'a str, SpecError> {
        let Some(value) = self.get(name) else { return Ok(default) };
        value.as_str().ok_or_else(|| self.wrong(name, value, "a string"))
    }

    /// A list of strings; empty if it is absent.
    pub fn strings(&self, name: &str) -> Result<Vec<String>, SpecError> {
        let Some(value) = self.get(name) else { return Ok(Vec::new()) };
        let list = value.as_array().and_then(|all| {
            all.iter().map(|v| v.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        });
        list.ok_or_else(|| self.wrong(name, value, "a list of strings"))
    }

    /// One whole number, or a list of them; empty if it is absent.
    pub fn whole_numbers(&self, name: &str) -> Result<Vec<u32>, SpecError> {
        let Some(value) = self.get(name) else { return Ok(Vec::new()) };
        let whole = |value: &Value| u32::try_from(value.as_u64()?).ok();
        let all = match value {
            Value::Array(all) => all.iter().map(whole).collect(),
            one => whole(one).map(|one| vec![one]),
        };
        all.ok_or_else(|| self.wrong(name, value, "a whole number, or a list of them"))
    }

    /// A list of sizes; `None` if it is absent.
    pub fn sizes(&self, name: &str) -> Result<Option<Vec<u32>>, SpecError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let size = |v: &Value| v.as_u64().and_then(|v| u32::try_from(v).ok());
        let list = value.as_array().and_then(|all| all.iter().map(size).collect::<Option<_>>());
        list.map(Some).ok_or_else(|| self.wrong(name, value, "a list of whole numbers"))
    }

    /// A list of at most `longest` pairs of sizes; `None` if it is absent.
    pub fn size_pairs(
        &self,
        name: &str,
        longest: usize,
    ) -> Result<Option<Vec<[u32; 2]>>, SpecError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let pair = |pair: &Value| match pair.as_array()?.as_slice() {
            [a, b] => Some([u32::try_from(a.as_u64()?).ok()?, u32::try_from(b.as_u64()?).ok()?]),
            _ => None,
        };
        let list = value.as_array().filter(|all| all.len() <= longest);
        let list = list.and_then(|all| all.iter().map(pair).collect::<Option<Vec<_>>>());
        let limit = || format!("a list of at most {longest} pairs of whole numbers");
        list.map(Some).ok_or_else(|| self.wrong(name, value, &limit()))
    }

    /// Three numbers, or one that counts three times; `None` if the field is absent.
    pub fn three_numbers(&self, name: &str) -> Result<Option<[f64; 3]>, SpecError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let numbers = match value {
            Value::Array(all) => {
                let all: Option<Vec<f64>> = all.iter().map(Value::as_f64).collect();
                all.and_then(|all| <[f64; 3]>::try_from(all).ok())
            }
            one => one.as_f64().map(|one| [one; 3]),
        };
        numbers.map(Some).ok_or_else(|| self.wrong(name, value, "three numbers"))
    }

    /// True if a field is set to anything but null, or to a list with anything but nulls: `diffusers` lists the library and the
    /// class of every part of a model, and nulls for a part that it lacks.
    pub fn has_component(&self, name: &str) -> bool {
        match self.get(name) {
            None => false,
            Some(Value::Array(all)) => all.iter().any(|part| !part.is_null()),
            Some(_) => true,
        }
    }

    /// The value of a field as text, at most 80 characters.
    pub fn shown(&self, name: &str) -> String {
        self.get(name).map_or_else(|| "absent".into(), shortened)
    }

    /// Refuses a flag that is set.
    pub fn refuse(&self, name: &str, remedy: &str) -> Result<(), SpecError> {
        match self.flag_or(name, false)? {
            true => Err(self.error(name, "true".into(), "false: it is not implemented", remedy)),
            false => Ok(()),
        }
    }

    pub fn error(&self, name: &str, value: String, limit: &str, remedy: &str) -> SpecError {
        FieldError::new(format!("{}{name}", self.path), value, limit, remedy).into()
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    fn absent(&self, name: &str, limit: &str) -> SpecError {
        let remedy = "take the config.json that came with the weights";
        self.error(name, "absent".into(), limit, remedy)
    }

    fn wrong(&self, name: &str, value: &Value, limit: &str) -> SpecError {
        self.error(name, shortened(value), limit, "take the config.json that came with the weights")
    }
}

fn shortened(value: &Value) -> String {
    let shown = value.to_string();
    match shown.chars().count() {
        0..=80 => shown,
        _ => shown.chars().take(80).chain("...".chars()).collect(),
    }
}
