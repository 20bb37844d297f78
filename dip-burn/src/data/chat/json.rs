//! Values as Python writes them: `json.dumps` and `str`.

use std::fmt::Write;

use minijinja::value::{Value, ValueKind};

/// The options of `json.dumps`.
#[derive(Debug, Clone, Default)]
pub(super) struct Style {
    pub indent: Option<usize>,
    pub ascii: bool,
    pub sorted: bool,
    /// Between items, and between a key and its value.
    pub separators: Option<[String; 2]>,
}

/// The JSON of a value.
pub(super) fn dumps(value: &Value, style: &Style) -> String {
    let items = if style.indent.is_some() { "," } else { ", " };
    let separators = style.separators.clone().unwrap_or([items.into(), ": ".into()]);
    let mut writer = Writer { out: String::new(), style, separators };
    writer.value(value, 0);
    writer.out
}

struct Writer<'a> {
    out: String,
    style: &'a Style,
    separators: [String; 2],
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) {
        match value.kind() {
            ValueKind::None | ValueKind::Undefined => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Map => self.map(value, depth),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter().map(Iterator::collect).unwrap_or_default();
                let write = |writer: &mut Self, item: &Value| writer.value(item, depth + 1);
                self.list(['[', ']'], &items, depth, write);
            }
            ValueKind::Number => {
                let _ = write!(self.out, "{value}");
            }
            _ => self.text(value.as_str().unwrap_or(&value.to_string())),
        }
    }

    fn map(&mut self, value: &Value, depth: usize) {
        let keys = value.try_iter().map(Iterator::collect).unwrap_or_default();
        let mut keys: Vec<Value> = keys;
        if self.style.sorted {
            keys.sort();
        }
        self.list(['{', '}'], &keys, depth, |writer, key| {
            writer.text(key.as_str().unwrap_or(&key.to_string()));
            writer.out.push_str(&writer.separators[1].clone());
            writer.value(&value.get_item(key).unwrap_or_default(), depth + 1);
        });
    }

    fn list(
        &mut self,
        brackets: [char; 2],
        items: &[Value],
        depth: usize,
        write: impl Fn(&mut Self, &Value),
    ) {
        self.out.push(brackets[0]);
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                self.out.push_str(&self.separators[0].clone());
            }
            self.new_line(depth + 1);
            write(self, item);
        }
        if !items.is_empty() {
            self.new_line(depth);
        }
        self.out.push(brackets[1]);
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(indent) = self.style.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', indent.min(64) * depth));
        }
    }

    fn text(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if u32::from(c) < 0x20 || (self.style.ascii && !c.is_ascii()) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(self.out, "\\u{unit:04x}");
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

/// Appends a value as `str` of Python gives it; texts inside lists are quoted.
pub(super) fn write_python(out: &mut String, value: &Value) {
    match value.kind() {
        ValueKind::None | ValueKind::Undefined => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Seq => python_list(out, ['[', ']'], value, write_python),
        ValueKind::Map => python_list(out, ['{', '}'], value, |out, key| {
            write_python(out, key);
            out.push_str(": ");
            write_python(out, &value.get_item(key).unwrap_or_default());
        }),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
            out.push(quote);
            for c in text.chars() {
                match c {
                    '\\' => out.push_str("\\\\"),
                    '\n' => out.push_str("\\n"),
                    '\r' => out.push_str("\\r"),
                    '\t' => out.push_str("\\t"),
                    c if c == quote => out.extend(['\\', c]),
                    c => out.push(c),
                }
            }
            out.push(quote);
        }
        _ => out.push_str(&value.to_string()),
    }
}

fn python_list(
    out: &mut String,
    brackets: [char; 2],
    value: &Value,
    write: impl Fn(&mut String, &Value),
) {
    out.push(brackets[0]);
    for (i, item) in value.try_iter().into_iter().flatten().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        write(out, &item);
    }
    out.push(brackets[1]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(json: &str) -> Value {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn json_is_written_like_json_dumps() {
        let tool = value(r#"{"b":[1,2.5,true,null,[]],"a":"<é>\n\"\u0001","c":{}}"#);
        let plain = dumps(&tool, &Style::default());
        assert_eq!(plain, r#"{"b": [1, 2.5, true, null, []], "a": "<é>\n\"\u0001", "c": {}}"#);
        let style = Style { indent: Some(2), ascii: true, sorted: true, separators: None };
        let indented = dumps(&value(r#"{"b":[1],"a":"é😀"}"#), &style);
        assert_eq!(indented, "{\n  \"a\": \"\\u00e9\\ud83d\\ude00\",\n  \"b\": [\n    1\n  ]\n}");
        let style = Style { separators: Some([",".into(), ":".into()]), ..Style::default() };
        assert_eq!(dumps(&value(r#"{"a":[1,2]}"#), &style), r#"{"a":[1,2]}"#);
    }

    #[test]
    fn values_are_shown_like_python_does() {
        let mut out = String::new();
        write_python(&mut out, &value(r#"[{"a":null,"b":"it's"},true,"x",1.5]"#));
        assert_eq!(out, r#"[{'a': None, 'b': "it's"}, True, 'x', 1.5]"#);
    }
}
