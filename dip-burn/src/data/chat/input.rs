//! The input of a template: messages whose texts of control tokens are marked.

use minijinja::value::{Value, ValueKind};

use super::output::{LITERAL_END, LITERAL_START, without_marks};
use super::text::ChatText;
use crate::data::conversation::{Role, Turn};
use crate::data::piece::DocumentPiece;

/// The form of a message's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContentForm {
    /// One text; a picture, sound or video is the text that stands for it.
    Text,
    /// A list of objects with `type`.
    Parts,
}

/// A message for a template.
#[derive(Debug, Clone)]
pub(super) struct TurnText {
    message: Value,
    pub is_assistant: bool,
    pub trained: bool,
}

impl TurnText {
    /// The message of a turn.
    pub fn new(turn: &Turn, form: ContentForm, text: &dyn ChatText) -> Self {
        let content = match form {
            ContentForm::Text => {
                let piece = |piece: &DocumentPiece| match piece {
                    DocumentPiece::Text(own) => marked(own, text),
                    DocumentPiece::Picture(_) => text.picture().to_owned(),
                    DocumentPiece::Sound(_) => text.sound().to_owned(),
                    DocumentPiece::Video(_) => text.video().to_owned(),
                };
                Value::from(turn.pieces.iter().map(piece).collect::<String>())
            }
            ContentForm::Parts => {
                let piece = |piece: &DocumentPiece| match piece {
                    DocumentPiece::Text(own) => part("text", Some(marked(own, text))),
                    DocumentPiece::Picture(_) => part("image", None),
                    DocumentPiece::Sound(_) => part("audio", None),
                    DocumentPiece::Video(_) => part("video", None),
                };
                turn.pieces.iter().map(piece).collect()
            }
        };
        let role = ("role".to_owned(), Value::from(turn.role.name()));
        // A call of a tool may have no content.
        let content = (!turn.pieces.is_empty()).then(|| ("content".to_owned(), content));
        let fields = turn.fields.value();
        let fields = fields.try_iter().into_iter().flatten().filter_map(|key| {
            let value = marked_value(&fields.get_item(&key).ok()?, text);
            Some((key.as_str()?.to_owned(), value))
        });
        Self {
            message: [role].into_iter().chain(content).chain(fields).collect(),
            is_assistant: turn.role == Role::Assistant,
            trained: turn.trained,
        }
    }

    /// A message of the user to see which forms a template reads.
    pub fn probe(text: &str, form: ContentForm) -> Self {
        let content = match form {
            ContentForm::Text => Value::from(text),
            ContentForm::Parts => [part("text", Some(text.to_owned()))].into_iter().collect(),
        };
        let fields = [("role", Value::from("user")), ("content", content)];
        Self { message: fields.into_iter().collect(), is_assistant: false, trained: false }
    }
}

fn part(kind: &str, text: Option<String>) -> Value {
    let fields = [("type", Some(kind.to_owned())), ("text", text)];
    fields.into_iter().filter_map(|(name, value)| Some((name, Value::from(value?)))).collect()
}

/// The variables of a template.
pub(super) fn context(
    turns: &[TurnText],
    tools: &Value,
    tokens: &[(&'static str, String)],
    is_prompt: bool,
) -> Value {
    let messages: Value = turns.iter().map(|turn| turn.message.clone()).collect();
    let tools = if tools.is_undefined() { Value::from(()) } else { tools.clone() };
    let fixed = [
        ("messages", messages),
        ("tools", tools),
        ("documents", Value::from(())),
        ("add_generation_prompt", Value::from(is_prompt)),
    ];
    let tokens = tokens.iter().map(|(name, text)| (*name, Value::from(text.as_str())));
    fixed.into_iter().chain(tokens).collect()
}

/// A text whose parts that read like control tokens have marks around them.
fn marked(own: &str, text: &dyn ChatText) -> String {
    let own = without_marks(own);
    let mut out = String::with_capacity(own.len());
    let mut at = 0;
    for range in text.control_texts(&own) {
        out.push_str(&own[at..range.start]);
        out.push(LITERAL_START);
        out.push_str(&own[range.clone()]);
        out.push(LITERAL_END);
        at = range.end;
    }
    out + &own[at..]
}

fn marked_value(value: &Value, text: &dyn ChatText) -> Value {
    match value.kind() {
        ValueKind::String => Value::from(marked(value.as_str().unwrap_or_default(), text)),
        ValueKind::Seq => {
            value.try_iter().into_iter().flatten().map(|item| marked_value(&item, text)).collect()
        }
        ValueKind::Map => {
            let keys = value.try_iter().into_iter().flatten();
            let field = |key: Value| {
                let field = value.get_item(&key).unwrap_or_default();
                (key.as_str().unwrap_or_default().to_owned(), marked_value(&field, text))
            };
            keys.map(field).collect()
        }
        _ => value.clone(),
    }
}
