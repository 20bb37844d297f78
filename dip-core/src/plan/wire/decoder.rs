//! Reads values of expected types, keeps the path to them, and reports whatever is not as it should be.

use std::collections::HashSet;
use std::fmt::{self, Write};
use std::sync::Arc;

use super::reader::{Reader, Syntax, Token};
use crate::plan::findings::Findings;
use crate::plan::violation::ViolationCode;

/// A field of an object, and whether it must be there.
pub(super) type Field = (&'static str, bool);

/// Where the decoder is in the document.
#[derive(Debug, Default)]
pub(super) struct Path(Vec<Step>);

#[derive(Debug)]
enum Step {
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
                Step::Field(name) => write!(f, "{dot}{name}")?,
                Step::Unknown(name) => write!(f, "{dot}{name}")?,
                Step::Index(i) => write!(f, "[{i}]")?,
            }
        }
        Ok(())
    }
}

pub(super) struct Decoder<'a> {
    reader: Reader<'a>,
    path: Path,
    names: HashSet<Arc<str>>,
    pub(super) findings: Findings,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let (path, names, findings) = (Path::default(), HashSet::new(), Findings::default());
        Self { reader: Reader::new(text), path, names, findings }
    }

    /// Reads an object: `each` is called on every known field and must read its value. False where it is no object.
    pub(super) fn object(
        &mut self,
        fields: &'static [Field],
        mut each: impl FnMut(&mut Self, &'static str) -> Result<(), Syntax>,
    ) -> Result<bool, Syntax> {
        let token = self.reader.value()?;
        if token != Token::Object {
            self.wrong_type(&token, "an object")?;
            return Ok(false);
        }
        let (mut seen, mut first) = (0u32, true);
        while let Some(key) = self.reader.key(&mut first)? {
            let Some(i) = fields.iter().position(|(name, _)| *name == key) else {
                self.unknown_field(&key, fields)?;
                continue;
            };
            self.path.0.push(Step::Field(fields[i].0));
            if seen & (1 << i) != 0 {
                let message = "the field is given twice; remove one of them";
                self.report(ViolationCode::DuplicateField, message);
                self.skip()?;
            } else {
                each(self, fields[i].0)?;
            }
            seen |= 1 << i;
            self.path.0.pop();
        }
        for (i, (name, required)) in fields.iter().enumerate() {
            if *required && seen & (1 << i) == 0 {
                self.path.0.push(Step::Field(name));
                self.report(ViolationCode::MissingField, "the field is missing; add it");
                self.path.0.pop();
            }
        }
        Ok(true)
    }

    /// Reads an array: `item` is called on every entry and must read its value. `None` where it is no array.
    ///
    /// Once the report is full, or beyond `most` entries, the rest is read over, so that memory is bounded; the result is
    /// `None` then too, and the second value of the pair tells that there were too many.
    pub(super) fn array<T>(
        &mut self,
        most: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, Syntax>,
    ) -> Result<(Option<Vec<T>>, bool), Syntax> {
        let token = self.reader.value()?;
        if token != Token::Array {
            self.wrong_type(&token, "an array")?;
            return Ok((None, false));
        }
        let (mut items, mut first, mut cut) = (Vec::new(), true, false);
        while self.reader.item(&mut first)? {
            if items.len() >= most || self.findings.is_full() {
                cut = true;
                self.findings.truncated |= self.findings.is_full();
                self.skip()?;
                continue;
            }
            self.path.0.push(Step::Index(items.len()));
            items.push(item(self)?);
            self.path.0.pop();
        }
        let too_many = cut && items.len() >= most;
        Ok(if cut { (None, too_many) } else { (Some(items), false) })
    }

    /// Reads an array without a limit of its own; the text bounds it.
    pub(super) fn list<T>(
        &mut self,
        item: impl FnMut(&mut Self) -> Result<T, Syntax>,
    ) -> Result<Option<Vec<T>>, Syntax> {
        Ok(self.array(usize::MAX, item)?.0)
    }

    /// Reads a text.
    pub(super) fn string(&mut self) -> Result<Option<String>, Syntax> {
        match self.reader.value()? {
            Token::String(text) => Ok(Some(text.into_owned())),
            other => self.wrong_type(&other, "a text").map(|()| None),
        }
    }

    /// Reads a text of which there are few different ones.
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

    /// Reads a time: finite, not negative; NaN where it is not.
    pub(super) fn time(&mut self) -> Result<f64, Syntax> {
        let number = self.number()?;
        Ok(if number.is_nan() { number } else { self.findings.duration(number, &self.path) })
    }

    /// Reads a finite number; NaN where it is not.
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

    /// Reads a whole number of 0 to `most`.
    pub(super) fn integer(&mut self, most: u64) -> Result<Option<u64>, Syntax> {
        match self.reader.value()? {
            Token::Number(text) => Ok(self.whole(text, most)),
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

    /// Reads over a value.
    pub(super) fn skip(&mut self) -> Result<(), Syntax> {
        let token = self.reader.value()?;
        self.reader.skip(&token)
    }

    /// Checks that nothing follows the document.
    pub(super) fn end(&mut self) -> Result<(), Syntax> {
        self.reader.end()
    }

    /// Reports a violation at the present place.
    pub(super) fn report(&mut self, code: ViolationCode, message: impl Into<String>) {
        self.findings.add(code, &self.path, message);
    }

    fn unknown_field(&mut self, key: &str, fields: &[Field]) -> Result<(), Syntax> {
        let mut known = String::new();
        for (i, (name, _)) in fields.iter().enumerate() {
            let _ = write!(known, "{}`{name}`", if i == 0 { "" } else { ", " });
        }
        self.path.0.push(Step::Unknown(quoted(key)));
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

    fn whole(&mut self, text: &str, most: u64) -> Option<u64> {
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
                Ok(number) if number <= most => return Some(number),
                _ => {
                    let message = format!("{value} is above {most}; give a smaller number");
                    (ViolationCode::OutOfRange, message)
                }
            }
        };
        self.report(code, message);
        None
    }
}

/// A field name as part of a path: as it is where it is a plain word, else quoted.
fn quoted(key: &str) -> String {
    let plain = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if plain { shortened(key).into() } else { format!("{:?}", shortened(key)) }
}

/// The first characters of a text that may be of any length.
pub(super) fn shortened(text: &str) -> &str {
    text.char_indices().nth(60).map_or(text, |(end, _)| &text[..end])
}
