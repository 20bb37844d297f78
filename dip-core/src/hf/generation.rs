//! `generation_config.json`: how a published model continues texts.

use super::fields::Fields;
use crate::spec::SpecError;

const FILE: &str = "generation_config.json";
const REMEDY: &str = "take the file that came with the weights, or set it in [evaluation]";

/// How a published model continues texts. Absent fields are `None`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GenerationConfig {
    /// The tokens that end a text; empty if the file names none.
    pub eos: Vec<u32>,
    /// Most tokens of a continuation.
    pub max_new_tokens: Option<u32>,
    /// True if tokens are drawn.
    pub do_sample: Option<bool>,
    /// Divides the logits; 0 for the most likely token.
    pub temperature: Option<f64>,
    /// The number of the most likely tokens that may be drawn; 0 for all.
    pub top_k: Option<u32>,
    /// The probability that the drawn tokens have together.
    pub top_p: Option<f64>,
    /// Lowers the scores of tokens that have occurred.
    pub repetition_penalty: Option<f64>,
}

impl GenerationConfig {
    /// Reads the text of a `generation_config.json`.
    ///
    /// # Errors
    /// [`SpecError`] names the field, its value, the limit and the remedy.
    pub fn read(text: &str) -> Result<Self, SpecError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let json = serde_json::from_str(text);
        let json = json.map_err(|error| SpecError::Syntax(format!("{FILE}: {error}")))?;
        let file = Fields::of_file(&json, FILE)?;
        let number = |name, least: f64, most: f64| -> Result<Option<f64>, SpecError> {
            let found = file.optional_number(name)?;
            match found {
                Some(found) if !(found >= least && found <= most) => {
                    let limit = format!("{least} to {most}");
                    Err(file.error(name, found.to_string(), &limit, REMEDY))
                }
                found => Ok(found),
            }
        };
        Ok(Self {
            eos: file.whole_numbers("eos_token_id")?,
            max_new_tokens: file.optional_size("max_new_tokens")?,
            do_sample: file.optional_flag("do_sample")?,
            temperature: number("temperature", 0.0, 1e6)?,
            top_k: match file.is_number("top_k") {
                true => Some(file.whole_or("top_k", 0)?),
                false => None,
            },
            top_p: number("top_p", 0.0, 1.0)?,
            repetition_penalty: number("repetition_penalty", 1e-3, 1e3)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_published_files_are_read() {
        let qwen = r#"{"bos_token_id":151643,"pad_token_id":151643,"do_sample":true,"eos_token_id":[151645,151643],
            "repetition_penalty":1.05,"temperature":0.000001,"top_k":1,"top_p":0.001,"transformers_version":"4.49.0"}"#;
        let found = GenerationConfig::read(qwen).unwrap();
        let expected = GenerationConfig {
            eos: vec![151_645, 151_643],
            max_new_tokens: None,
            do_sample: Some(true),
            temperature: Some(1e-6),
            top_k: Some(1),
            top_p: Some(0.001),
            repetition_penalty: Some(1.05),
        };
        assert_eq!(found, expected);
        let llama =
            r#"{"eos_token_id":2,"max_new_tokens":128,"temperature":null,"do_sample":false}"#;
        let found = GenerationConfig::read(llama).unwrap();
        let expected = GenerationConfig {
            eos: vec![2],
            max_new_tokens: Some(128),
            do_sample: Some(false),
            ..GenerationConfig::default()
        };
        assert_eq!(found, expected);
        assert_eq!(GenerationConfig::read("{}").unwrap(), GenerationConfig::default());
    }

    #[test]
    fn wrong_values_are_named() {
        for (text, named) in [
            ("[]", "one JSON object"),
            ("{", "generation_config.json: "),
            (r#"{"eos_token_id":-1}"#, "generation_config.json: eos_token_id is -1"),
            (r#"{"eos_token_id":[1,"a"]}"#, "eos_token_id is [1,\"a\"]"),
            (r#"{"temperature":-1}"#, "temperature is -1, but must be"),
            (r#"{"top_p":1.5}"#, "top_p is 1.5"),
            (r#"{"top_k":1.5}"#, "top_k is 1.5"),
            (r#"{"do_sample":1}"#, "do_sample is 1"),
        ] {
            let error = GenerationConfig::read(text).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
