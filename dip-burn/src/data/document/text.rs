//! The text of a document, with its control tokens and its trained parts.

use std::ops::Range;

use super::{Document, DocumentError};
use crate::data::chat::ChatText;
use crate::data::conversation::{Conversation, Role, Turn};
use crate::data::marked::MarkedText;
use crate::data::piece::DocumentPiece;
use crate::data::tokenizer::Tokenizer;

impl Document {
    /// The text to train on.
    pub(in crate::data) fn text(&self, tokenizer: &Tokenizer) -> Result<MarkedText, DocumentError> {
        let mut out = match self {
            Self::Plain(pieces) => {
                let mut out = Writer::begin(tokenizer);
                out.pieces(pieces, true);
                out.end();
                return Ok(out.text);
            }
            Self::Conversation(conversation) => match tokenizer.chat_template() {
                Some(chat) => chat.render(conversation, &Written(tokenizer), false)?,
                None => return Ok(Writer::turns(tokenizer, conversation).text),
            },
        };
        close(&mut out, tokenizer);
        Ok(out)
    }

    /// The text to continue.
    pub(in crate::data) fn prompt(
        &self,
        tokenizer: &Tokenizer,
    ) -> Result<MarkedText, DocumentError> {
        match self {
            Self::Plain(pieces) => {
                let mut out = Writer::begin(tokenizer);
                out.pieces(pieces, false);
                Ok(out.text)
            }
            Self::Conversation(conversation) => match tokenizer.chat_template() {
                Some(chat) => Ok(chat.render(conversation, &Written(tokenizer), true)?),
                None => {
                    let mut out = Writer::turns(tokenizer, conversation);
                    out.speaker(Role::Assistant);
                    Ok(out.text)
                }
            },
        }
    }
}

/// Ends a conversation whose template ends the last turn with no control token.
fn close(text: &mut MarkedText, tokenizer: &Tokenizer) {
    let end = text.text.trim_end().len();
    let is_closed = tokenizer.control_texts(&text.text).last().is_some_and(|last| last.end == end);
    if text.trained.last().is_some_and(|last| last.end >= end) && !is_closed {
        let start = text.text.len();
        tokenizer.append_token(text, tokenizer.special().eos);
        text.train_from(start);
    }
}

/// How a tokenizer writes the texts and pictures of a conversation.
struct Written<'a>(&'a Tokenizer);

impl ChatText for Written<'_> {
    fn control_texts(&self, text: &str) -> Vec<Range<usize>> {
        self.0.control_texts(text)
    }

    fn picture(&self) -> &str {
        self.0.picture_text()
    }

    fn sound(&self) -> &str {
        self.0.sound_text()
    }

    fn video(&self) -> &str {
        self.0.video_text().unwrap_or_default()
    }

    fn picture_token(&self) -> u32 {
        self.0.special().image
    }
}

/// Writes a document without a chat template.
struct Writer<'a> {
    text: MarkedText,
    tokenizer: &'a Tokenizer,
}

impl<'a> Writer<'a> {
    fn begin(tokenizer: &'a Tokenizer) -> Self {
        let mut text = MarkedText::default();
        tokenizer.begin().iter().for_each(|&id| tokenizer.append_token(&mut text, id));
        Self { text, tokenizer }
    }

    fn end(&mut self) {
        let start = self.text.text.len();
        for id in self.tokenizer.end() {
            self.tokenizer.append_token(&mut self.text, id);
        }
        self.text.train_from(start);
    }

    fn turns(tokenizer: &'a Tokenizer, conversation: &Conversation) -> Self {
        let mut out = Self::begin(tokenizer);
        for Turn { role, pieces, trained, .. } in &conversation.turns {
            out.speaker(*role);
            out.pieces(pieces, *trained);
            if *trained {
                out.end();
            }
            out.plain("\n");
        }
        out
    }

    fn speaker(&mut self, role: Role) {
        self.plain(&format!("{}: ", role.name().to_uppercase()));
    }

    fn pieces(&mut self, pieces: &[DocumentPiece], trained: bool) {
        for piece in pieces {
            let start = self.text.text.len();
            match piece {
                DocumentPiece::Text(text) => {
                    self.plain(text);
                    if trained {
                        self.text.train_from(start);
                    }
                }
                DocumentPiece::Picture(_) => self.tokenizer.append_picture(&mut self.text),
                DocumentPiece::Sound(_) => self.tokenizer.append_sound(&mut self.text),
                DocumentPiece::Video(_) => {
                    self.text.push_control(self.tokenizer.video_text().unwrap_or_default());
                }
            }
        }
    }

    fn plain(&mut self, text: &str) {
        self.tokenizer.append_text(&mut self.text, text);
    }
}
