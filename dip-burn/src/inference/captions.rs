//! Captions: prompts run through the pipeline once, then one new token of every caption at a time.
//!
//! Captions are in groups, each a packed sequence. While one rank runs a group, the others run other groups.

use std::collections::VecDeque;

use burn::tensor::backend::Backend;

use crate::batch::{Microbatch, Prompt};
use crate::model::Continuation;
use crate::runtime::{ForwardItem, ForwardPipeline, PipelineError};
use crate::stage::ForwardGoal;

/// Most captions of one group. A token of many captions takes hardly longer than a token of one.
const CAPTIONS_OF_GROUP: usize = 16;

/// A caption that is being written.
struct Caption<'a> {
    prompt: &'a Prompt,
    /// Its number among all prompts.
    number: u64,
    /// The tokens of the prompt, and those that are written.
    tokens: Vec<u32>,
    /// The position of the next token.
    next_position: u32,
    is_done: bool,
}

/// Continues each prompt, up to one of the stop tokens or to the most tokens.
///
/// # Errors
/// [`PipelineError`] if the model predicts no tokens, or a rank has failed.
pub fn continue_prompts<B: Backend>(
    model: &mut ForwardPipeline<'_, B>,
    prompts: &[Prompt],
    how: &Continuation,
) -> Result<Vec<Vec<u32>>, PipelineError> {
    let mut captions: Vec<Caption<'_>> = (0..).zip(prompts).map(Caption::new).collect();
    // One group for each rank keeps all of them busy.
    let groups = model.positions();
    let of_group = captions.len().div_ceil(groups).clamp(1, CAPTIONS_OF_GROUP);
    if how.max_tokens > 0 {
        for some in captions.chunks_mut(of_group * groups) {
            write_groups(model, some.chunks_mut(of_group).collect(), how)?;
        }
    }
    Ok(captions.into_iter().map(Caption::written).collect())
}

/// Writes the captions of groups that are under way together.
fn write_groups<B: Backend>(
    model: &mut ForwardPipeline<'_, B>,
    mut groups: Vec<&mut [Caption<'_>]>,
    how: &Continuation,
) -> Result<(), PipelineError> {
    let has_work = |number: &usize| groups[*number].iter().any(|caption| !caption.is_done);
    let mut under_way: VecDeque<usize> = (0..groups.len()).filter(has_work).collect();
    for &number in &under_way {
        model.submit(vec![item(groups[number], number, true)])?;
    }
    while let Some(number) = under_way.pop_front() {
        let scores = model.wait()?.into_iter().flatten().collect::<Vec<f32>>();
        let group = &mut *groups[number];
        let writing = group.iter_mut().filter(|caption| !caption.is_done);
        let vocabulary = scores.len() / writing.count().max(1);
        let writing = group.iter_mut().filter(|caption| !caption.is_done);
        for (caption, scores) in writing.zip(scores.chunks(vocabulary.max(1))) {
            caption.add(scores, how);
        }
        if group.iter().any(|caption| !caption.is_done) {
            model.submit(vec![item(group, number, false)])?;
            under_way.push_back(number);
        }
    }
    Ok(())
}

/// The next tokens of a group: its prompts, or the last token of every caption that is not done.
fn item(group: &[Caption<'_>], number: usize, begins: bool) -> ForwardItem {
    let microbatch = match begins {
        true => Prompt::packed(group.iter().map(|caption| caption.prompt)),
        false => last_tokens(group),
    };
    let documents = &microbatch.documents;
    let is_last = |&row: &usize| documents.get(row) != documents.get(row + 1);
    let rows = (0..documents.len()).filter(is_last).collect();
    ForwardItem { microbatch, goal: ForwardGoal::Continue { number, begins, rows: Some(rows) } }
}

fn last_tokens(group: &[Caption<'_>]) -> Microbatch {
    let mut microbatch = Microbatch::default();
    for (document, caption) in (0..).zip(group).filter(|(_, caption)| !caption.is_done) {
        microbatch.tokens.extend(caption.tokens.last());
        microbatch.documents.push(document);
        // The last token is one before the next.
        microbatch.positions.push([caption.next_position - 1; 3]);
    }
    microbatch
}

impl<'a> Caption<'a> {
    fn new((number, prompt): (u64, &'a Prompt)) -> Self {
        Self {
            prompt,
            number,
            tokens: prompt.tokens.clone(),
            next_position: prompt.next_position(),
            is_done: prompt.tokens.is_empty(),
        }
    }

    /// The tokens after the prompt.
    fn written(mut self) -> Vec<u32> {
        self.tokens.split_off(self.prompt.tokens.len())
    }

    /// Appends the next token, by its scores.
    fn add(&mut self, scores: &[f32], how: &Continuation) {
        let token = how.choice.next(scores, &self.tokens, self.number);
        self.is_done = how.stop.contains(&token);
        if !self.is_done {
            self.tokens.push(token);
            self.next_position += 1;
            self.is_done = self.tokens.len() - self.prompt.tokens.len() >= how.max_tokens;
        }
    }
}
