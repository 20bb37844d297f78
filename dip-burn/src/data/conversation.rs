//! Conversations: turns with a speaker each.

use super::document::DocumentPiece;

/// The turns of a conversation, oldest first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Conversation {
    /// The turns.
    pub turns: Vec<Turn>,
}

/// What one speaker says before another does.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// The speaker.
    pub role: Role,
    /// Text and pictures, in reading order.
    pub pieces: Vec<DocumentPiece>,
    /// True if the model learns to say this.
    pub trained: bool,
}

impl Turn {
    /// A turn that is trained if the assistant speaks.
    pub fn new(role: Role, pieces: Vec<DocumentPiece>) -> Self {
        Self { role, pieces, trained: role == Role::Assistant }
    }

    /// The text without the pictures.
    pub fn text(&self) -> String {
        let text = |piece: &DocumentPiece| match piece {
            DocumentPiece::Text(text) => Some(text.clone()),
            DocumentPiece::Picture(_) => None,
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
