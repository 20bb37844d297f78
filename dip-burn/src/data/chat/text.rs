//! What stands for media and for control tokens in a template's text.

use std::ops::Range;

/// How the text of the user and the pictures are written.
pub(crate) trait ChatText {
    /// The parts of a text that read like control tokens.
    fn control_texts(&self, text: &str) -> Vec<Range<usize>>;

    /// Stands for a picture in a template that reads only text.
    fn picture(&self) -> &str;

    /// Stands for a sound in a template that reads only text.
    fn sound(&self) -> &str;

    /// Stands for a video in a template that reads only text; empty if the tokenizer has no token for videos.
    fn video(&self) -> &str;

    /// The token of a picture whose text is no token.
    fn picture_token(&self) -> u32;
}
