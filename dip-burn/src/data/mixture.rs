//! Several sources in one, in shares.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::document::Document;
use super::error::DataError;
use super::skip::{SkipCounts, SkippedSample};
use super::source::{DataSource, SourcePosition};

/// Draws each document from one of several sources, at random by their weights.
///
/// The choice follows from the seed and the number of the document alone, so a resumed run gets the same documents.
pub struct Mixture<D = Document> {
    parts: Vec<MixturePart<D>>,
    seed: u64,
    drawn: u64,
    /// The part of the last document.
    last: Option<usize>,
}

/// A source of a [`Mixture`].
pub struct MixturePart<D = Document> {
    /// The source.
    pub source: Box<dyn DataSource<D>>,
    /// Its share of the documents, relative to the weights of the others; more than 0.
    pub weight: f64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MixturePosition {
    drawn: u64,
    /// The weights that chose the documents so far.
    weights: Vec<f64>,
    parts: Vec<SourcePosition>,
}

impl<D> Mixture<D> {
    /// A mixture of `parts`, of which there is at least one.
    pub fn new(parts: Vec<MixturePart<D>>, seed: u64) -> Self {
        Self { parts, seed, drawn: 0, last: None }
    }

    /// The part of document `drawn`.
    fn choice(&self, drawn: u64) -> usize {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(drawn);
        let total: f64 = self.parts.iter().map(|part| part.weight).sum();
        let mut at = rng.random::<f64>() * total;
        for (i, part) in self.parts.iter().enumerate() {
            at -= part.weight;
            if at < 0.0 {
                return i;
            }
        }
        self.parts.len() - 1
    }
}

impl<D> DataSource<D> for Mixture<D> {
    fn next_document(&mut self) -> Result<D, DataError> {
        let chosen = self.choice(self.drawn);
        (self.drawn, self.last) = (self.drawn + 1, Some(chosen));
        self.parts[chosen].source.next_document()
    }

    fn position(&self) -> SourcePosition {
        SourcePosition::new(&MixturePosition {
            drawn: self.drawn,
            weights: self.parts.iter().map(|part| part.weight).collect(),
            parts: self.parts.iter().map(|part| part.source.position()).collect(),
        })
    }

    fn restore(&mut self, position: &SourcePosition) -> Result<(), DataError> {
        let MixturePosition { drawn, weights, parts } = position.get()?;
        if !weights.iter().eq(self.parts.iter().map(|part| &part.weight))
            || parts.len() != self.parts.len()
        {
            return Err(DataError::position("the mixture has other parts or weights"));
        }
        self.drawn = drawn;
        let mut sources = self.parts.iter_mut().zip(&parts);
        sources.try_for_each(|(part, position)| part.source.restore(position))
    }

    /// The passes over the part that has the fewest.
    fn passes(&self) -> u64 {
        self.parts.iter().map(|part| part.source.passes()).min().unwrap_or(0)
    }

    fn last_name(&self) -> Option<String> {
        self.parts.get(self.last?)?.source.last_name()
    }

    fn skipped(&self) -> SkipCounts {
        let mut all = SkipCounts::default();
        self.parts.iter().for_each(|part| all.merge(&part.source.skipped()));
        all
    }

    fn first_skipped(&self) -> Vec<SkippedSample> {
        self.parts.iter().flat_map(|part| part.source.first_skipped()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::DocumentPiece;

    /// Counts up, with its name.
    struct Numbers(&'static str, u32);

    impl DataSource for Numbers {
        fn next_document(&mut self) -> Result<Document, DataError> {
            self.1 += 1;
            Ok(Document::Plain(vec![DocumentPiece::Text(format!("{} {}", self.0, self.1))]))
        }

        fn position(&self) -> SourcePosition {
            SourcePosition::new(&self.1)
        }

        fn restore(&mut self, position: &SourcePosition) -> Result<(), DataError> {
            self.1 = position.get()?;
            Ok(())
        }
    }

    fn mixture(weights: [f64; 2]) -> Mixture {
        let part = |name, weight| MixturePart { source: Box::new(Numbers(name, 0)), weight };
        Mixture::new(vec![part("a", weights[0]), part("b", weights[1])], 3)
    }

    #[test]
    fn documents_come_in_the_shares_of_the_weights_and_resume_exactly() {
        let mut whole = mixture([3.0, 1.0]);
        let texts: Vec<String> =
            (0..400).map(|_| whole.next_document().unwrap().marked_text()).collect();
        let of_a = texts.iter().filter(|text| text.starts_with('a')).count();
        assert!((270..330).contains(&of_a), "{of_a}");
        let mut first = mixture([3.0, 1.0]);
        (0..150).for_each(|_| drop(first.next_document().unwrap()));
        let mut again = mixture([3.0, 1.0]);
        again.restore(&first.position()).unwrap();
        assert_eq!(again.next_document().unwrap().marked_text(), texts[150]);
        assert!(mixture([1.0, 1.0]).restore(&first.position()).is_err());
    }
}
