//! Chat templates: from the turns of a conversation to one text, in the form that a model was tuned on.
//!
//! Templates are the Jinja of `transformers`, so that a tuned model meets the same tokens in training and in use.

mod environment;
mod input;
mod json;
mod output;
mod text;
mod turns;

use minijinja::Environment;
use thiserror::Error;

use super::conversation::{Conversation, Turn};
use super::error::BoxError;
use super::marked::MarkedText;
use input::{ContentForm, TurnText};
use output::Rendered;
pub(crate) use text::ChatText;

/// Longest template, in bytes.
const MAX_TEMPLATE_BYTES: usize = 1 << 20;

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    /// Texts of special tokens, by name.
    tokens: Vec<(&'static str, String)>,
    /// The forms of a message's content that the template reads.
    forms: ContentForms,
}

#[derive(Debug, Clone, Copy)]
struct ContentForms {
    text: bool,
    parts: bool,
}

/// A conversation that a chat template cannot render.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ChatError {
    /// The template refuses it.
    #[error("the chat template refuses the conversation: {0}; check the order of its roles")]
    Template(#[from] minijinja::Error),
    /// The text of a turn cannot be told from the others.
    #[error(
        "the chat template writes a turn of the assistant differently when others follow, so that it cannot be found; \
         put {{% generation %}} blocks into the template"
    )]
    NoTurns,
    /// The template leaves sounds out.
    #[error("the chat template has {heard} of {sounds} sounds; choose a template for sounds")]
    Sounds {
        /// Sounds in the text.
        heard: usize,
        /// Sounds of the conversation.
        sounds: usize,
    },
    /// The template leaves videos out, or the tokenizer has no token for them.
    #[error(
        "the text has {shown} of {videos} videos; choose a model for videos with its tokenizer and chat template"
    )]
    Videos {
        /// Videos in the text.
        shown: usize,
        /// Videos of the conversation.
        videos: usize,
    },
    /// The template leaves pictures out.
    #[error(
        "the chat template shows {shown} of {pictures} pictures; choose a template for pictures"
    )]
    Pictures {
        /// Pictures in the text.
        shown: usize,
        /// Pictures of the conversation.
        pictures: usize,
    },
}

impl ChatTemplate {
    /// Compiles a template. `tokens` are the texts of special tokens, such as `eos_token`.
    ///
    /// # Errors
    /// The fault of the template.
    pub fn new(
        source: &str,
        tokens: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<Self, BoxError> {
        if source.len() > MAX_TEMPLATE_BYTES {
            let limit = format!("at most {MAX_TEMPLATE_BYTES} bytes are read");
            return Err(format!("its chat template has {} bytes; {limit}", source.len()).into());
        }
        let environment = environment::compile(source)
            .map_err(|error| format!("its chat template is not valid: {error}"))?;
        let mut new = Self {
            environment,
            source: source.to_owned(),
            tokens: tokens.into_iter().collect(),
            forms: ContentForms { text: true, parts: false },
        };
        new.forms = ContentForms {
            text: new.reads(ContentForm::Text),
            parts: new.reads(ContentForm::Parts),
        };
        Ok(new)
    }

    /// The source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text of a conversation, with its trained parts. In a prompt the assistant speaks next, and nothing is trained.
    ///
    /// Trained is what the template writes inside `{% generation %}`. Without such blocks, it is what a turn of the assistant adds
    /// to the text before it, up to its last control token. A turn that no control token ends at the end of the conversation is
    /// left open.
    ///
    /// # Errors
    /// [`ChatError`] says why the conversation does not fit the template.
    pub(crate) fn render(
        &self,
        conversation: &Conversation,
        text: &dyn ChatText,
        is_prompt: bool,
    ) -> Result<MarkedText, ChatError> {
        let turns = self.turns(conversation, text);
        let token = text.picture_token();
        let whole = Rendered::parse(&self.text(&turns, conversation, is_prompt)?, token);
        if is_prompt {
            return Ok(whole.marked);
        }
        self.with_trained_turns(whole, &turns, conversation, text)
    }

    /// True if the content of a message in this form is found in the text.
    fn reads(&self, form: ContentForm) -> bool {
        const PROBE: &str = "dip probe";
        let turns = [TurnText::probe(PROBE, form)];
        let text = self.text(&turns, &Conversation::default(), false);
        text.is_ok_and(|text| text.contains(PROBE) && !text.contains("'type'"))
    }

    fn turns(&self, conversation: &Conversation, text: &dyn ChatText) -> Vec<TurnText> {
        let ContentForms { text: as_text, parts } = self.forms;
        let turn = |turn: &Turn| {
            let form = match turn.has_media() {
                true if parts => ContentForm::Parts,
                false if !as_text && parts => ContentForm::Parts,
                _ => ContentForm::Text,
            };
            TurnText::new(turn, form, text)
        };
        conversation.turns.iter().map(turn).collect()
    }

    fn text(
        &self,
        turns: &[TurnText],
        conversation: &Conversation,
        is_prompt: bool,
    ) -> Result<String, minijinja::Error> {
        let tools = conversation.tools.value();
        let context = input::context(turns, tools, &self.tokens, is_prompt);
        let template = self.environment.get_template(environment::NAME)?;
        template.render(context)
    }
}

#[cfg(test)]
mod tests;
