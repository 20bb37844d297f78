//! Text in which some tokens are control tokens, and others only read like them.

use std::ops::Range;

/// Stands for a token that has no text. Unicode leaves it to private use.
pub(crate) const TOKEN_MARK: &str = "\u{f0002}";

/// A text with control tokens, and what is known about its parts. Ranges are in bytes and in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct MarkedText {
    /// The text. Every text of an added token in it is that token, except in `cuts`.
    pub text: String,
    /// Parts that are not tokenized like the rest.
    pub cuts: Vec<Cut>,
    /// Parts with a loss.
    pub trained: Vec<Range<usize>>,
}

/// A part of a text that is tokenized on its own.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cut {
    pub range: Range<usize>,
    pub kind: CutKind,
}

/// How a part of a text is tokenized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CutKind {
    /// A text that reads like a control token, but is ordinary text.
    Literal,
    /// A token without a text; [`TOKEN_MARK`] stands for it.
    Token(u32),
}

/// A token and the bytes of the text that it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpannedToken {
    pub id: u32,
    pub span: Range<usize>,
}

impl MarkedText {
    /// Appends text in which control tokens are control tokens.
    pub fn push_control(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Appends a token that has no text.
    pub fn push_token(&mut self, id: u32) {
        let at = self.text.len();
        self.text.push_str(TOKEN_MARK);
        self.cuts.push(Cut { range: at..self.text.len(), kind: CutKind::Token(id) });
    }

    /// Appends text whose parts `literal` only read like control tokens.
    pub fn push_text(&mut self, text: &str, literal: impl IntoIterator<Item = Range<usize>>) {
        let at = self.text.len();
        self.text.push_str(text);
        let cut = |range: Range<usize>| Cut {
            range: at + range.start..at + range.end,
            kind: CutKind::Literal,
        };
        self.cuts.extend(literal.into_iter().map(cut));
    }

    /// Gives a loss to everything from byte `start` on.
    pub fn train_from(&mut self, start: usize) {
        self.trained.push(start..self.text.len());
    }
}
