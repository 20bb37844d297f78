//! The output of a template: marks in it become cuts and trained parts.

use std::ops::Range;

use crate::data::marked::{Cut, CutKind, MarkedText, TOKEN_MARK};

/// Begins a text of the user that reads like a control token. Unicode leaves the marks to private use.
pub(super) const LITERAL_START: char = '\u{f0000}';
/// Ends a text of the user that reads like a control token.
pub(super) const LITERAL_END: char = '\u{f0001}';
/// Begins what the assistant generates.
pub(super) const GENERATION_START: char = '\u{f0003}';
/// Ends what the assistant generates.
pub(super) const GENERATION_END: char = '\u{f0004}';

/// A text without the marks, which users' texts must not have.
pub(super) fn without_marks(text: &str) -> String {
    text.chars().filter(|c| !('\u{f0000}'..='\u{f0004}').contains(c)).collect()
}

/// The text of a template.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Rendered {
    /// The text without marks.
    pub marked: MarkedText,
    /// The parts that were written inside `{% generation %}`, in bytes.
    pub generated: Vec<Range<usize>>,
}

impl Rendered {
    /// Reads the marks of a text. A mark whose other half a template removed still divides the text, so that what is beside it
    /// cannot join into a control token.
    ///
    /// A [`TOKEN_MARK`] is the token `picture`.
    pub fn parse(text: &str, picture: u32) -> Self {
        let mut out = Self::default();
        let (mut literal, mut generation) = (None, None);
        for c in text.chars() {
            let at = out.marked.text.len();
            let mut cut = |range| out.marked.cuts.push(Cut { range, kind: CutKind::Literal });
            match c {
                LITERAL_START => {
                    if let Some(lone) = literal.replace(at) {
                        cut(lone..lone);
                    }
                }
                LITERAL_END => cut(literal.take().unwrap_or(at)..at),
                GENERATION_START => generation = Some(at),
                GENERATION_END => out.generated.extend(generation.take().map(|start| start..at)),
                c if TOKEN_MARK.contains(c) => out.marked.push_token(picture),
                c => out.marked.text.push(c),
            }
        }
        if let Some(lone) = literal {
            out.marked.cuts.push(Cut { range: lone..lone, kind: CutKind::Literal });
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_become_cuts_and_trained_parts() {
        let text = "a\u{f0000}<s>\u{f0001}b\u{f0003}cd\u{f0004}\u{f0001}e\u{f0000}f";
        let out = Rendered::parse(text, 7);
        assert_eq!(out.marked.text, "a<s>bcdef");
        let cuts: Vec<_> = out.marked.cuts.iter().map(|cut| cut.range.clone()).collect();
        assert_eq!(cuts, [1..4, 7..7, 8..8]);
        assert_eq!(out.generated, vec![5..7; 1]);
        assert_eq!(without_marks(text), "a<s>bcdef");
    }
}
