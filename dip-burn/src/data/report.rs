//! What became of the samples that were read.

use super::skip::{SkipCounts, SkippedSample};

/// The share of skipped samples from which on something is wrong with the data.
const MANY: f64 = 0.05;
/// Fewer samples say nothing.
const FEW: u64 = 100;

/// The samples of a run so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DataReport {
    /// Samples that were read, used or not.
    pub samples: u64,
    /// Skipped samples, by reason.
    pub skipped: SkipCounts,
    /// The first skipped samples since the start of the process, a few for each reason.
    pub first_skipped: Vec<SkippedSample>,
    /// Documents that were cut to the length of a sequence.
    pub cut_documents: u64,
    /// Tokens that were cut off.
    pub cut_tokens: u64,
    /// Pictures whose pixels could not be decoded. They are grey, and their documents have no loss.
    pub broken_pictures: u64,
    /// True if the model sees pictures, and a whole pass over the data had none.
    pub lacks_pictures: bool,
}

impl DataReport {
    /// A warning if more than one sample in twenty is skipped.
    pub fn skips_many(&self) -> Option<String> {
        let (skipped, samples) = (self.skipped.total(), self.samples);
        let many = samples >= FEW && skipped as f64 > MANY * samples as f64;
        many.then(|| format!("{skipped} of {samples} samples are skipped: {}", self.skips()))
    }

    /// A warning if the data of a model for pictures has none.
    pub fn without_pictures(&self) -> Option<&'static str> {
        self.lacks_pictures.then_some(
            "no sample of a whole pass over the data has a picture, so the vision encoder learns nothing; check the names of \
             the pictures and their folder",
        )
    }

    /// The reasons of skipped samples, with the names of the first ones.
    pub fn skips(&self) -> String {
        let first = self.first_skipped.iter().map(|s| format!("{} ({})", s.name, s.reason.name()));
        let first: Vec<String> = first.collect();
        match first.is_empty() {
            true => self.skipped.to_string(),
            false => format!("{}; first {}", self.skipped, first.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::skip::SkipReason;

    #[test]
    fn many_skipped_samples_are_named() {
        let mut report = DataReport { samples: 120, ..DataReport::default() };
        (0..6).for_each(|_| report.skipped.add(SkipReason::InvalidJson));
        assert_eq!(report.skips_many(), None);
        report.skipped.add(SkipReason::Empty);
        let (reason, name) = (SkipReason::InvalidJson, "a.tar: 7".to_owned());
        report.first_skipped.push(SkippedSample { reason, name });
        let text = report.skips_many().unwrap();
        assert!(text.starts_with("7 of 120 samples are skipped: 6 invalid JSON, 1 empty; first a.tar: 7 (invalid JSON)"), "{text}");
    }
}
