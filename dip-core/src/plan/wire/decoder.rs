//! Reads values of expected types, tracks their paths, and reports violations of the form.

use std::collections::HashSet;
use std::fmt::{self, Write};
use std::sync::Arc;

use super::reader::{JsonReader, Syntax, Token};
use crate::plan::findings::Findings;
use crate::plan::violation::ViolationCode;

/// A field of an object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<F> {
    /// The field as a variant of the object's enum.
    pub(super) field: F,
    pub(super) name: &'static str,
    pub(super) required: bool,
}

/// The position of the decoder in the document.
#[derive(Debug, Default)]
pub(super) struct Path(Vec<PathStep>);

#[derive(Debug)]
enum PathStep {
    Field(&'static str),
    Unknown(String),
    Index(usize),
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("the document");
        }
        for (depth, step) in self.0.iter().enumerate() {
            let dot = if depth == 0 { "" } else { "." };
            match step {
                PathStep::Field(name) => write!(f, "{dot}{name}")?,
                PathStep::Unknown(name) => write!(f, "{dot}{name}")?,
                PathStep::Index(i) => write!(f, "[{i}]")?,
            }
        }
        Ok(())
    }
}

/// The result of reading an array.
pub(super) enum Array<T> {
    Items(Vec<T>),
    /// It has more entries than allowed.
    TooLong,
    /// It is not an array, or the report was full before its end.
    Unreadable,
}

pub(super) struct DocumentDecoder<'a> {
    reader: JsonReader<'a>,
    path: Path,
    names: HashSet<Arc<str>>,
    pub(super) findings: Findings,
}

impl<'a> DocumentDecoder<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let (path, names, findings) = (Path::default(), HashSet::new(), Findings::default());
        Self { reader: JsonReader::new(text), path, names, findings }
    }

    /// Reads an object. Calls `each` for every known field, which must read its value.
    pub(super) fn object<F: Copy>(
        &mut self,
        fields: &[Field<F>],
        mut each: impl FnMut(&mut Self, F) -> Result<(), Syntax>,
    ) -> Result<(), Syntax> {
        let token = self.reader.value()?;
        if token != Token::Object {
            return self.wrong_type(&token, "an object");
        }
        let (mut seen, mut first) = (0u32, true);
        while let Some(key) = self.reader.key(&mut first)? {
            let Some(i) = fields.iter().position(|field| field.name == key) else {
                self.unknown_field(&key, fields)?;
                continue;
            };
            self.path.0.push(PathStep::Field(fields[i].name));
            if seen & (1 << i) != 0 {
                let message = "the field is given twice; remove one of them";
                self.report(ViolationCode::DuplicateField, message);
                self.skip()?;
            } else {
                each(self, fields[i].field)?;
            }
            seen |= 1 << i;
            self.path.0.pop();
        }
        for (i, field) in fields.iter().enumerate() {
            if field.required && seen & (1 << i) == 0 {
                self.path.0.push(PathStep::Field(field.name));
                self.report(ViolationCode::MissingField, "the field is missing; add it");
                self.path.0.pop();
            }
        }
        Ok(())
    }

    /// Reads an array. Calls `item` for every entry, which must read its value.
    ///
    /// After `max_items` entries, or once the report is full, the rest is skipped, so that memory is bounded.
    pub(super) fn array<T>(
        &mut self,
        max_items: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, Syntax>,
    ) -> Result<Array<T>, Syntax> {
        let token = self.reader.value()?;
        if token != Token::Array {
            self.wrong_type(&token, "an array")?;
            return Ok(Array::Unreadable);
        }
        let (mut items, mut first, mut cut) = (Vec::new(), true, false);
        while self.reader.item(&mut first)? {
            if items.len() >= max_items || self.findings.is_full() {
                cut = true;
                self.findings.truncated |= self.findings.is_full();
                self.skip()?;
                continue;
            }
            self.path.0.push(PathStep::Index(items.len()));
            items.push(item(self)?);
            self.path.0.pop();
        }
        Ok(match cut {
            false => Array::Items(items),
            true if items.len() >= max_items => Array::TooLong,
            true => Array::Unreadable,
        })
    }

    /// Reads an array of any length, which the text bounds. Returns `None` if it could not be read.
    pub(super) fn list<T>(
        &mut self,
        item: impl FnMut(&mut Self) -> Result<T, Syntax>,
    ) -> Result<Option<Vec<T>>, Syntax> {
        Ok(match self.array(usize::MAX, item)? {
            Array::Items(items) => Some(items),
            Array::TooLong | Array::Unreadable => None,
        })
    }

    /// Reads a text.
    pub(super) fn string(&mut self) -> Result<Option<String>, Syntax> {
        match self.reader.value()? {
            Token::String(text) => Ok(Some(text.into_owned())),
            other => self.wrong_type(&other, "a text").map(|()| None),
        }
    }

    /// Reads a text. Equal texts share memory.
    pub(super) fn name(&mut self) -> Result<Option<Arc<str>>, Syntax> {
        match self.reader.value()? {
            Token::String(text) => {
                if let Some(name) = self.names.get(&*text) {
                    return Ok(Some(name.clone()));
                }
                let name: Arc<str> = Arc::from(&*text);
                self.names.insert(name.clone());
                Ok(Some(name))
            }
            other => self.wrong_type(&other, "a text").map(|()| None),
        }
    }

    /// Reads a finite time that is not negative. Returns NaN for any other value.
    pub(super) fn time(&mut self) -> Result<f64, Syntax> {
        let number = self.number()?;
        Ok(if number.is_nan() { number } else { self.findings.duration(number, &self.path) })
    }

    /// Reads a finite number. Returns NaN for any other value.
    pub(super) fn number(&mut self) -> Result<f64, Syntax> {
        match self.reader.value()? {
            Token::Number(text) => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => return Ok(number),
                _ => self.not_finite(text),
            },
            Token::NotFinite(text) => self.not_finite(text),
            other => self.wrong_type(&other, "a number")?,
        }
        Ok(f64::NAN)
    }

    /// Reads a whole number from 0 to `max`.
    pub(super) fn integer(&mut self, max: u64) -> Result<Option<u64>, Syntax> {
        match self.reader.value()? {
            Token::Number(text) => Ok(self.whole(text, max)),
            Token::NotFinite(text) => {
                self.not_finite(text);
                Ok(None)
            }
            other => self.wrong_type(&other, "a whole number").map(|()| None),
        }
    }

    /// Reads an identifier.
    pub(super) fn id<T>(&mut self, make: impl FnOnce(u32) -> T) -> Result<Option<T>, Syntax> {
        let id = self.integer(u32::MAX.into())?;
        Ok(id.and_then(|id| u32::try_from(id).ok()).map(make))
    }

    /// Skips a value.
    pub(super) fn skip(&mut self) -> Result<(), Syntax> {
        let token = self.reader.value()?;
        self.reader.skip(&token)
    }

    /// Checks that nothing follows the document.
    pub(super) fn end(&mut self) -> Result<(), Syntax> {
        self.reader.end()
    }

    /// Reports a violation at the current path.
    pub(super) fn report(&mut self, code: ViolationCode, message: impl Into<String>) {
        self.findings.add(code, &self.path, message);
    }

    fn unknown_field<F>(&mut self, key: &str, fields: &[Field<F>]) -> Result<(), Syntax> {
        let mut known = String::new();
        for (i, field) in fields.iter().enumerate() {
            let _ = write!(known, "{}`{}`", if i == 0 { "" } else { ", " }, field.name);
        }
        self.path.0.push(PathStep::Unknown(quoted(key)));
        let message = format!("the format has no such field here, only {known}; remove it");
        self.report(ViolationCode::UnknownField, message);
        self.path.0.pop();
        self.skip()
    }

    fn wrong_type(&mut self, found: &Token<'_>, expected: &str) -> Result<(), Syntax> {
        let what = match found {
            Token::Object => "an object".into(),
            Token::Array => "an array".into(),
            Token::String(text) => format!("the text {:?}", shortened(text)),
            Token::Number(text) => format!("the number {}", shortened(text)),
            Token::NotFinite(text) => (*text).into(),
            Token::Bool(value) => value.to_string(),
            Token::Null => "null".into(),
        };
        let message = format!("{what}, but must be {expected}; correct the value");
        self.report(ViolationCode::WrongType, message);
        self.reader.skip(found)
    }

    fn not_finite(&mut self, text: &str) {
        let message = format!("{} is not finite; give a finite number", shortened(text));
        self.report(ViolationCode::NotFinite, message);
    }

    fn whole(&mut self, text: &str, max: u64) -> Option<u64> {
        let value = shortened(text);
        if text == "-0" {
            return Some(0);
        }
        let (code, message) = if text.contains(['.', 'e', 'E']) {
            if text.parse::<f64>().is_ok_and(f64::is_infinite) {
                self.not_finite(text);
                return None;
            }
            let message = format!(
                "{value} is not a whole number; write digits only, without fraction or exponent"
            );
            (ViolationCode::NotAnInteger, message)
        } else if text.starts_with('-') {
            let message = format!("{value} is negative, but must be at least 0; correct the value");
            (ViolationCode::Negative, message)
        } else {
            match text.parse::<u64>() {
                Ok(number) if number <= max => return Some(number),
                _ => {
                    let message = format!("{value} is above {max}; give a smaller number");
                    (ViolationCode::OutOfRange, message)
                }
            }
        };
        self.report(code, message);
        None
    }
}

/// A field name as part of a path. A name that is not a plain word is quoted.
fn quoted(key: &str) -> String {
    let plain = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if plain { shortened(key).into() } else { format!("{:?}", shortened(key)) }
}

/// The first characters of a text that may be of any length.
pub(super) fn shortened(text: &str) -> &str {
    text.char_indices().nth(60).map_or(text, |(end, _)| &text[..end])
}
