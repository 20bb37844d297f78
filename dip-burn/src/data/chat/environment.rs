//! The Jinja environment of `transformers`: its functions and filters, and Python's way to write values.

use std::fmt::Write;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State};

use super::json;
use super::output::{GENERATION_END, GENERATION_START};

/// The name of the template in its environment.
pub(super) const NAME: &str = "chat";
/// Steps of one rendering, so that no template runs forever.
const MAX_STEPS: u64 = 20_000_000;
/// The day that templates see, in seconds since 1970: 26 July 2024. A fixed day gives a resumed run the same tokens.
const TODAY_S: i64 = 1_721_952_000;

/// An environment with one template.
pub(super) fn compile(source: &str) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_formatter(format_value);
    environment.set_fuel(Some(MAX_STEPS));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", to_json);
    environment.add_filter("dip_generation", |text: String| {
        format!("{GENERATION_START}{text}{GENERATION_END}")
    });
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", today);
    environment.add_template_owned(NAME, with_generation_filters(source))?;
    Ok(environment)
}

/// The source with filters in place of `{% generation %}`, which is no tag of Jinja. White space control stays.
fn with_generation_filters(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let tag = &rest[start + 2..start + length];
        let name = tag.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim();
        let replaced = match name {
            "generation" => tag.replace(name, "filter dip_generation"),
            "endgeneration" => tag.replace(name, "endfilter"),
            _ => tag.to_owned(),
        };
        out.push_str(&rest[..start + 2]);
        out.push_str(&replaced);
        out.push_str("%}");
        rest = &rest[start + length + 2..];
    }
    out + rest
}

/// Writes a value as Python does.
fn format_value(out: &mut Output<'_>, _state: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    let mut text = String::new();
    match value.kind() {
        ValueKind::None | ValueKind::Bool | ValueKind::Seq | ValueKind::Map => {
            json::write_python(&mut text, value)
        }
        ValueKind::Undefined => {}
        _ => {
            write!(text, "{value}").map_err(|_| ErrorKind::WriteFailure)?;
        }
    }
    out.write_str(&text).map_err(|_| ErrorKind::WriteFailure.into())
}

fn to_json(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let style = json::Style {
        indent: options.get::<Option<usize>>("indent")?,
        ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sorted: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        separators: match options.get::<Option<Value>>("separators")? {
            Some(pair) if pair.kind() == ValueKind::Seq => {
                let at = |i| pair.get_item_by_index(i).map(|text| text.to_string());
                Some([at(0)?, at(1)?])
            }
            _ => None,
        },
    };
    options.assert_all_used()?;
    Ok(Value::from(json::dumps(value, &style)))
}

/// The fixed day in the format of `strftime`.
fn today(format: &str) -> Result<String, Error> {
    let invalid = || Error::new(ErrorKind::InvalidOperation, "strftime_now has a wrong format");
    let time = chrono::DateTime::from_timestamp(TODAY_S, 0).ok_or_else(invalid)?;
    let mut text = String::new();
    write!(text, "{}", time.format(format)).map_err(|_| invalid())?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_blocks_keep_their_white_space_control() {
        let source = "a{%- generation -%}b{% endgeneration +%}{{ '{%' }}{% if x %}";
        let expected = "a{%- filter dip_generation -%}b{% endfilter +%}{{ '{%' }}{% if x %}";
        assert_eq!(with_generation_filters(source), expected);
    }

    #[test]
    fn the_day_is_the_same_in_every_run() {
        assert_eq!(today("%d %b %Y").unwrap(), "26 Jul 2024");
        assert!(today("%Q").is_err());
    }
}
