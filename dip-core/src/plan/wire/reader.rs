//! Reads JSON from text, one token at a time and without a tree. Accepts Python's `NaN`, `Infinity` and `-Infinity`.

use std::borrow::Cow;

/// Deepest nesting of a document.
const MAX_DEPTH: usize = 128;

/// A syntax error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Syntax {
    /// Byte offset.
    pub(super) at: usize,
    /// What is wrong.
    pub(super) message: String,
}

/// A scalar, or the opening of a container.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token<'a> {
    Object,
    Array,
    String(Cow<'a, str>),
    Number(&'a str),
    NotFinite(&'static str),
    Bool(bool),
    Null,
}

pub(super) struct JsonReader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> JsonReader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Reads a scalar or the opening bracket of a container.
    pub(super) fn value(&mut self) -> Result<Token<'a>, Syntax> {
        const WORDS: [(&str, Token<'static>); 6] = [
            ("true", Token::Bool(true)),
            ("false", Token::Bool(false)),
            ("null", Token::Null),
            ("NaN", Token::NotFinite("NaN")),
            ("Infinity", Token::NotFinite("Infinity")),
            ("-Infinity", Token::NotFinite("-Infinity")),
        ];
        let word = |text: &str| WORDS.iter().find(|(word, _)| text.starts_with(word)).cloned();
        match self.peek() {
            Some(b'{') => self.take(Token::Object),
            Some(b'[') => self.take(Token::Array),
            Some(b'"') => self.string().map(Token::String),
            Some(b) => match word(&self.text[self.at..]) {
                Some((word, token)) => {
                    self.at += word.len();
                    Ok(token)
                }
                None if b == b'-' || b.is_ascii_digit() => self.number().map(Token::Number),
                None => Err(self.unexpected("a value")),
            },
            None => Err(self.unexpected("a value")),
        }
    }

    /// Reads the next key of an open object, or `None` at its end. `first` starts as true.
    pub(super) fn key(&mut self, first: &mut bool) -> Result<Option<Cow<'a, str>>, Syntax> {
        if !self.has_next(b'}', first)? {
            return Ok(None);
        }
        if self.peek() != Some(b'"') {
            return Err(self.unexpected("a field name in quotes"));
        }
        let key = self.string()?;
        if self.peek() != Some(b':') {
            return Err(self.unexpected("`:`"));
        }
        self.at += 1;
        Ok(Some(key))
    }

    /// Returns true if an open array has another item. `first` starts as true.
    pub(super) fn item(&mut self, first: &mut bool) -> Result<bool, Syntax> {
        self.has_next(b']', first)
    }

    /// Skips the rest of a value that starts with `token`.
    pub(super) fn skip(&mut self, token: &Token<'_>) -> Result<(), Syntax> {
        self.skip_nested(token, 0)
    }

    /// Checks that nothing follows the document.
    pub(super) fn end(&mut self) -> Result<(), Syntax> {
        if self.peek().is_some() { Err(self.unexpected("the end of the document")) } else { Ok(()) }
    }

    fn skip_nested(&mut self, token: &Token<'_>, depth: usize) -> Result<(), Syntax> {
        if depth > MAX_DEPTH {
            let message =
                format!("values are nested deeper than {MAX_DEPTH}; no field of this format is");
            return Err(Syntax { at: self.at, message });
        }
        let mut first = true;
        match token {
            Token::Object => {
                while self.key(&mut first)?.is_some() {
                    let inner = self.value()?;
                    self.skip_nested(&inner, depth + 1)?;
                }
            }
            Token::Array => {
                while self.item(&mut first)? {
                    let inner = self.value()?;
                    self.skip_nested(&inner, depth + 1)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn has_next(&mut self, close: u8, first: &mut bool) -> Result<bool, Syntax> {
        match self.peek() {
            Some(b) if b == close => {
                self.at += 1;
                Ok(false)
            }
            Some(b',') if !*first => {
                self.at += 1;
                if self.peek() == Some(close) {
                    return Err(self.unexpected("another entry after `,`"));
                }
                Ok(true)
            }
            Some(_) if *first => {
                *first = false;
                Ok(true)
            }
            _ => Err(self.unexpected(&format!("`,` or `{}`", close as char))),
        }
    }

    fn take(&mut self, token: Token<'a>) -> Result<Token<'a>, Syntax> {
        self.at += 1;
        Ok(token)
    }

    fn peek(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.at..];
        let space = rest.iter().take_while(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')).count();
        self.at += space;
        rest.get(space).copied()
    }

    fn unexpected(&self, expected: &str) -> Syntax {
        let message = match self.text.get(self.at..).and_then(|rest| rest.chars().next()) {
            Some(c) => format!("found {c:?}, but expected {expected}"),
            None => format!("the text ends, but {expected} is expected; is the file truncated?"),
        };
        Syntax { at: self.at, message }
    }

    fn number(&mut self) -> Result<&'a str, Syntax> {
        let start = self.at;
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        if self.byte() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.byte(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(&self.text[start..self.at])
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn digits(&mut self) -> Result<(), Syntax> {
        let rest = &self.text.as_bytes()[self.at..];
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 {
            return Err(self.unexpected("a digit"));
        }
        self.at += digits;
        Ok(())
    }

    /// Reads a string from its opening quote. Copies only strings with escapes.
    fn string(&mut self) -> Result<Cow<'a, str>, Syntax> {
        self.at += 1;
        let mut owned = String::new();
        loop {
            let run = self.at;
            let rest = &self.text.as_bytes()[run..];
            let len = rest.iter().take_while(|&&b| b >= 0x20 && b != b'"' && b != b'\\').count();
            self.at += len;
            let plain = &self.text[run..self.at];
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(if owned.is_empty() {
                        Cow::Borrowed(plain)
                    } else {
                        Cow::Owned(owned + plain)
                    });
                }
                Some(b'\\') => {
                    owned.push_str(plain);
                    self.at += 1;
                    owned.push(self.escape()?);
                }
                Some(_) => return Err(self.unexpected("no control character inside a string")),
                None => return Err(self.unexpected("the closing quote of a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Syntax> {
        let c = match self.byte() {
            Some(c @ (b'"' | b'\\' | b'/')) => c as char,
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            _ => return Err(self.unexpected("one of the escapes of JSON after `\\`")),
        };
        self.at += 1;
        Ok(c)
    }

    /// Reads `uXXXX`, or two escapes if the first is the leading half of a surrogate pair.
    fn unicode_escape(&mut self) -> Result<char, Syntax> {
        let lone = Syntax { at: self.at, message: "a surrogate escape stands alone".into() };
        let first = self.hex()?;
        if !(0xd800..0xe000).contains(&first) {
            return char::from_u32(first).ok_or(lone);
        }
        if first >= 0xdc00 || !self.text.as_bytes()[self.at..].starts_with(b"\\u") {
            return Err(lone);
        }
        self.at += 1;
        let second = self.hex()?;
        if !(0xdc00..0xe000).contains(&second) {
            return Err(lone);
        }
        char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)).ok_or(lone)
    }

    fn hex(&mut self) -> Result<u32, Syntax> {
        self.at += 1;
        let digits = self.text.as_bytes().get(self.at..self.at + 4).unwrap_or_default();
        if digits.len() < 4 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(self.unexpected("four hexadecimal digits after `\\u`"));
        }
        let value = digits.iter().fold(0, |v, &d| v * 16 + (d as char).to_digit(16).unwrap_or(0));
        self.at += 4;
        Ok(value)
    }
}

/// Line and column of a byte offset, both from 1. The column counts characters.
pub(super) fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |i| i + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}
