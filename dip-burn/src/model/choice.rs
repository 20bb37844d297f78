//! The choice of the next token: a pure function of logits, settings and a random generator.
//!
//! Scores are processed as by `generate` of `transformers`: repetition penalty, then temperature, top-k and top-p if tokens are
//! drawn.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How the next token is chosen. The default takes the most likely one.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenChoice {
    /// True if tokens are drawn; otherwise the most likely one is taken, and only the repetition penalty counts.
    pub draws: bool,
    /// Divides the logits; more than 0.
    pub temperature: f32,
    /// Number of the most likely tokens that may be drawn; 0 for all.
    pub top_k: usize,
    /// Tokens are drawn from the fewest that have this probability together; 1 for all.
    pub top_p: f32,
    /// Divides positive logits of tokens that have occurred, and multiplies negative ones; 1 for none.
    pub repetition_penalty: f32,
    /// Seed of what is drawn.
    pub seed: u64,
}

/// How a text is continued.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Continuation {
    /// The tokens that end it; they do not belong to it.
    pub stop: Vec<u32>,
    /// Most tokens.
    pub max_tokens: usize,
    /// The choice of every token.
    pub choice: TokenChoice,
}

impl Default for TokenChoice {
    fn default() -> Self {
        Self {
            draws: false,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            repetition_penalty: 1.0,
            seed: 0,
        }
    }
}

impl TokenChoice {
    /// The next token of prompt number `prompt`. `logits` has one value for each token of the vocabulary, `tokens` is the text so
    /// far with its prompt. Equal calls give equal tokens.
    pub fn next(&self, logits: &[f32], tokens: &[u32], prompt: u64) -> u32 {
        let scores = self.scores(logits, tokens);
        if !self.draws {
            return largest(&scores);
        }
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(prompt);
        // Each token of a text has its own draw, whatever was drawn before.
        rng.set_word_pos(2 * tokens.len() as u128);
        drawn(&scores, rng.random())
    }

    /// The processed logits; those of tokens that cannot be drawn are negative infinity.
    pub fn scores(&self, logits: &[f32], tokens: &[u32]) -> Vec<f32> {
        let mut scores = logits.to_vec();
        if self.repetition_penalty != 1.0 {
            penalize(&mut scores, logits, tokens, self.repetition_penalty);
        }
        if !self.draws {
            return scores;
        }
        if self.temperature != 1.0 {
            scores.iter_mut().for_each(|score| *score /= self.temperature);
        }
        if self.top_k > 0 {
            keep_top_k(&mut scores, self.top_k);
        }
        if self.top_p < 1.0 {
            keep_top_p(&mut scores, self.top_p);
        }
        scores
    }
}

/// Applies the repetition penalty once to every token that has occurred.
fn penalize(scores: &mut [f32], logits: &[f32], tokens: &[u32], penalty: f32) {
    for &token in tokens {
        let token = token as usize;
        if let (Some(score), Some(&logit)) = (scores.get_mut(token), logits.get(token)) {
            *score = if logit < 0.0 { logit * penalty } else { logit / penalty };
        }
    }
}

/// Keeps the `count` largest scores, and those equal to the last of them.
fn keep_top_k(scores: &mut [f32], count: usize) {
    if count >= scores.len() {
        return;
    }
    let mut sorted = scores.to_vec();
    let (_, &mut least, _) = sorted.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a));
    for score in scores.iter_mut().filter(|score| **score < least) {
        *score = f32::NEG_INFINITY;
    }
}

/// Removes the least likely tokens whose probabilities add up to at most `1 - share`; the most likely one stays.
fn keep_top_p(scores: &mut [f32], share: f32) {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let probabilities = softmax(scores);
    let mut sum = 0.0;
    for &token in order.iter().take(scores.len().saturating_sub(1)) {
        sum += probabilities[token];
        if sum > 1.0 - f64::from(share) {
            break;
        }
        scores[token] = f32::NEG_INFINITY;
    }
}

/// The probabilities of scores.
fn softmax(scores: &[f32]) -> Vec<f64> {
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = scores.iter().map(|&score| f64::from(score - most).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// The token with the largest score, the first of several.
fn largest(scores: &[f32]) -> u32 {
    let all = scores.iter().enumerate();
    let found = all.reduce(|best, next| if next.1 > best.1 { next } else { best });
    found.map_or(0, |(token, _)| token as u32)
}

/// The token at `at`, from 0 to 1, of all tokens in a row by their probabilities.
fn drawn(scores: &[f32], at: f64) -> u32 {
    let mut rest = at;
    for (token, probability) in softmax(scores).into_iter().enumerate() {
        rest -= probability;
        if rest < 0.0 && probability > 0.0 {
            return token as u32;
        }
    }
    // Rounding may leave a little at the end.
    largest(scores)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    /// Settings, and the scores that `transformers` makes of the logits.
    #[derive(Deserialize)]
    struct Case {
        temperature: f32,
        top_k: usize,
        top_p: f32,
        repetition_penalty: f32,
        /// `null` for negative infinity.
        scores: Vec<Option<f32>>,
    }

    #[derive(Deserialize)]
    struct Fixture {
        logits: Vec<f32>,
        tokens: Vec<u32>,
        cases: Vec<Case>,
    }

    #[test]
    fn scores_equal_the_logits_processors_of_transformers() {
        let fixture = include_str!("../../tests/fixtures/generation.json");
        let Fixture { logits, tokens, cases } = serde_json::from_str(fixture).unwrap();
        assert!(cases.len() >= 10);
        for case in cases {
            let choice = TokenChoice {
                draws: true,
                temperature: case.temperature,
                top_k: case.top_k,
                top_p: case.top_p,
                repetition_penalty: case.repetition_penalty,
                seed: 0,
            };
            let found = choice.scores(&logits, &tokens);
            assert_eq!(found.len(), case.scores.len());
            for (token, (found, expected)) in found.iter().zip(case.scores).enumerate() {
                match expected {
                    None => assert_eq!(*found, f32::NEG_INFINITY, "{choice:?}, token {token}"),
                    Some(expected) => {
                        let near = (found - expected).abs() <= 1e-6 * expected.abs().max(1.0);
                        assert!(near, "{choice:?}, token {token}: {found}, not {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn draws_follow_the_probabilities_and_the_seed() {
        let choice = TokenChoice { draws: true, seed: 7, ..TokenChoice::default() };
        let logits = [1f32.ln(), f32::NEG_INFINITY, 3f32.ln()];
        let drawn = |choice: &TokenChoice| -> Vec<u32> {
            (0..4000).map(|prompt| choice.next(&logits, &[0; 5], prompt)).collect()
        };
        let first = drawn(&choice);
        assert_eq!(first, drawn(&choice));
        assert_ne!(first, drawn(&TokenChoice { seed: 8, ..choice.clone() }));
        assert!(!first.contains(&1));
        let share = first.iter().filter(|&&token| token == 0).count() as f64 / 4000.0;
        assert!((share - 0.25).abs() < 0.03, "{share}");
        let along: Vec<u32> = (0..64).map(|n| choice.next(&logits, &vec![0; n], 0)).collect();
        assert!(along.contains(&0) && along.contains(&2), "each token has its own draw");
    }

    #[test]
    fn without_settings_the_first_most_likely_token_is_taken() {
        let greedy = TokenChoice::default();
        assert_eq!(greedy.next(&[0.0, 2.0, 2.0, -1.0], &[], 0), 1);
        assert_eq!(greedy.next(&[f32::NEG_INFINITY; 3], &[], 0), 0);
        let penalized = TokenChoice { repetition_penalty: 3.0, ..greedy };
        assert_eq!(penalized.next(&[1.0, 2.0, -1.0], &[1], 0), 0);
    }
}
