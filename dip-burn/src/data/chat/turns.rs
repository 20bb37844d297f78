//! Finds the turns of the assistant in the text of a template.

use std::ops::Range;

use super::input::TurnText;
use super::output::Rendered;
use super::{ChatError, ChatTemplate, ChatText};
use crate::data::conversation::Conversation;
use crate::data::marked::MarkedText;

impl ChatTemplate {
    /// The text with a loss on the trained turns.
    pub(super) fn with_trained_turns(
        &self,
        whole: Rendered,
        turns: &[TurnText],
        conversation: &Conversation,
        text: &dyn ChatText,
    ) -> Result<MarkedText, ChatError> {
        let answers = || turns.iter().filter(|turn| turn.is_assistant);
        let all = answers().all(|turn| turn.trained);
        let Rendered { mut marked, generated } = whole;
        if !generated.is_empty() && (all || generated.len() == answers().count()) {
            let mut flags = answers().map(|turn| turn.trained);
            let trained = |_: &Range<usize>| all || flags.next().unwrap_or(true);
            marked.trained = generated.into_iter().filter(trained).collect();
            return Ok(marked);
        }
        let clean = |turns: &[TurnText], is_prompt| -> Result<String, ChatError> {
            let rendered = self.text(turns, conversation, is_prompt)?;
            Ok(Rendered::parse(&rendered, text.picture_token()).marked.text)
        };
        for (i, _) in turns.iter().enumerate().filter(|(_, turn)| turn.trained) {
            let (before, after) = match i {
                // Many templates refuse a conversation without turns.
                0 => (String::new(), clean(&turns[..1], false)?),
                _ => (clean(&turns[..i], true)?, clean(&turns[..=i], false)?),
            };
            let closed = match marked.text.starts_with(&before) {
                true => before.clone(),
                false => clean(&turns[..i], false)?,
            };
            let range = match marked.text.starts_with(&closed) {
                true => added(&marked.text, &before, &after),
                false => {
                    let from = marked.trained.last().map_or(0, |last| last.end);
                    moved(&marked.text, from, &before, &after, text)
                }
            };
            let range = range.ok_or(ChatError::NoTurns)?;
            let end = end_of_turn(&marked.text, range.clone(), text);
            marked.trained.push(range.start..end);
        }
        Ok(marked)
    }
}

/// The part of `whole` that a turn adds: from the end of `before`, the text up to the turn, to the end of `after`, the text with it.
///
/// Templates may write a turn differently when others follow; they leave out what it was reasoned, for example. Then it is the
/// longest end of the turn with which the rest of `whole` begins.
fn added(whole: &str, before: &str, after: &str) -> Option<Range<usize>> {
    // A template may open a turn with more than it writes in turns that are complete.
    let start = common_prefix(whole, before);
    if whole.starts_with(after) {
        return (start < after.len()).then_some(start..after.len());
    }
    let turn = &after[common_prefix(after, before)..];
    let rest = &whole[start..];
    let end = turn.char_indices().map(|(i, _)| &turn[i..]).find(|end| rest.starts_with(end))?;
    Some(start..start + end.len())
}

/// The part of `whole` after byte `from` that reads like the turn that `after` adds to `before`, in templates that write earlier
/// turns differently when others follow. The turn must have a control token, which no text of the user has.
fn moved(
    whole: &str,
    from: usize,
    before: &str,
    after: &str,
    text: &dyn ChatText,
) -> Option<Range<usize>> {
    let turn = after[end_of_start(after, before)..].trim_end();
    if text.control_texts(turn).is_empty() {
        return None;
    }
    let start = from + whole[from..].find(turn)?;
    Some(start..start + turn.len())
}

/// Where the last turn of `after` begins: behind the longest end of `before` that it has.
fn end_of_start(after: &str, before: &str) -> usize {
    if after.starts_with(before) {
        return before.len();
    }
    // If an end is there, every shorter one is there.
    let starts: Vec<usize> = before.char_indices().map(|(i, _)| i).collect();
    let first = starts.partition_point(|&start| !after.contains(&before[start..]));
    let Some(&start) = starts.get(first) else { return 0 };
    after.rfind(&before[start..]).map_or(0, |at| at + before.len() - start)
}

/// The bytes with which both texts begin.
fn common_prefix(a: &str, b: &str) -> usize {
    let equal = a.chars().zip(b.chars()).take_while(|(a, b)| a == b);
    equal.map(|(c, _)| c.len_utf8()).sum()
}

/// The end of the last control token of a turn if only white space follows it, otherwise the end of the turn.
fn end_of_turn(whole: &str, range: Range<usize>, text: &dyn ChatText) -> usize {
    let turn = &whole[range.clone()];
    let last = text.control_texts(turn).pop().map(|token| token.end);
    let end = last.filter(|&end| turn[end..].trim().is_empty()).unwrap_or(turn.len());
    range.start + end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_what_it_adds_to_the_text() {
        assert_eq!(added("u:q a:x|u:r a:y|", "u:q a:", "u:q a:x|"), Some(6..8));
        // The reasoning of an earlier turn is left out when others follow.
        assert_eq!(added("u:q a:x|u:r a:y|", "u:q a:", "u:q a:<why>x|"), Some(6..8));
        // A prompt may open the reasoning.
        assert_eq!(added("u:q a:x|", "u:q a:<", "u:q a:x|"), Some(6..8));
        // The instructions stand before the last question.
        assert_eq!(end_of_start("u:q a:x|", "u:be brief q a:"), 6);
        assert_eq!(end_of_start("u:q a:x|", ""), 0);
        assert_eq!(added("u:q a:z", "u:q a:", "u:q a:x|"), None);
    }
}
