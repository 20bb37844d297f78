//! Conversations: turns with a speaker each.

use minijinja::Value;

use super::piece::DocumentPiece;

/// The turns of a conversation, oldest first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Conversation {
    /// The turns.
    pub turns: Vec<Turn>,
    /// The tools that the assistant may call, a list as chat templates read it.
    pub tools: JsonFields,
}

/// JSON whose fields keep their order; by default nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct JsonFields(Value);

impl JsonFields {
    pub(super) fn new(value: Value) -> Self {
        Self(value)
    }

    pub(super) fn value(&self) -> &Value {
        &self.0
    }
}

/// What one speaker says before another does.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// The speaker.
    pub role: Role,
    /// Text, pictures, sounds and videos, in reading order.
    pub pieces: Vec<DocumentPiece>,
    /// True if the model learns to say this.
    pub trained: bool,
    /// Other fields of the message that chat templates read, such as `tool_calls`.
    pub fields: JsonFields,
}

impl Turn {
    /// A turn that is trained if the assistant speaks.
    pub fn new(role: Role, pieces: Vec<DocumentPiece>) -> Self {
        let fields = JsonFields::default();
        Self { role, pieces, trained: role == Role::Assistant, fields }
    }

    /// True if the turn has a picture, a sound or a video.
    pub fn has_media(&self) -> bool {
        self.pieces.iter().any(|piece| !matches!(piece, DocumentPiece::Text(_)))
    }

    /// The text without pictures, sounds and videos.
    pub fn text(&self) -> String {
        let text = |piece: &DocumentPiece| match piece {
            DocumentPiece::Text(text) => Some(text.clone()),
            _ => None,
        };
        self.pieces.iter().filter_map(text).collect()
    }
}

/// The speaker of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Instructions for the whole conversation.
    System,
    /// The user of the model.
    User,
    /// The model.
    Assistant,
    /// The result of a tool that the model called.
    Tool,
}

impl Role {
    /// The name in chat templates.
    pub const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }

    /// The role of a name that data sets use.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "system" | "developer" => Self::System,
            "user" | "human" => Self::User,
            "assistant" | "gpt" | "chatgpt" | "model" | "bot" | "bing" | "bard" => Self::Assistant,
            "tool" | "function" | "observation" => Self::Tool,
            _ => return None,
        })
    }
}
