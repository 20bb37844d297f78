//! Results on standard output: as text, or as one JSON document.

use std::fmt::Display;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::files::write_whole;
use super::terminal;

/// Figures that a command prints.
pub trait Figures: Serialize + JsonSchema {
    /// The name and version of their document. A version only gains fields.
    const SCHEMA: &'static str;
}

/// Figures with the name of their schema.
#[derive(Serialize)]
struct Document<'a, F> {
    schema: &'static str,
    #[serde(flatten)]
    figures: &'a F,
}

/// `--json` of all commands that print figures.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Output")]
pub struct JsonOutput {
    /// Print figures as a JSON document in place of text, or write it to FILE beside the text
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    json: Option<Option<PathBuf>>,
}

impl JsonOutput {
    /// True if standard output holds the document alone.
    pub fn is_alone(&self) -> bool {
        matches!(self.json, Some(None))
    }

    /// Says something beside the results: on standard output, or on standard error if that holds a document.
    pub fn say(&self, text: impl Display) {
        match self.is_alone() {
            true => terminal::progress(text),
            false if terminal::is_quiet() => {}
            false => anstream::println!("{text}"),
        }
    }

    /// Prints the results: `text` does, or the document of `figures` in place of it.
    pub fn print<F: Figures>(&self, figures: &F, text: impl FnOnce()) -> Result<()> {
        let document = || serde_json::to_string_pretty(&Document { schema: F::SCHEMA, figures });
        match &self.json {
            None => text(),
            Some(None) => println!("{}", document()?),
            Some(Some(path)) => {
                write_whole(path, format!("{}\n", document()?).as_bytes())?;
                text();
            }
        }
        Ok(())
    }
}
