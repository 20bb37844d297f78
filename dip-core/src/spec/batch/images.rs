//! The images of a microbatch: a count, or the size of each.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use super::{MAX_ITEMS, MAX_TOKENS};
use crate::spec::error::FieldError;

/// Maximum number of patches of one image.
const MAX_PATCHES: u32 = 1 << 28;

/// The size of one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ImageSize {
    /// Patches of all its views.
    pub patches: u32,
    /// Its tokens in the decoder.
    pub tokens: u32,
    /// Equal parts that patches attend within: the tiles of a picture, or the frames of a video. Defaults to 1.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub views: u32,
}

const fn one() -> u32 {
    1
}

fn is_one(views: &u32) -> bool {
    *views == 1
}

/// The images of a microbatch, in the order of the sequence.
///
/// In a file `"images": 10` means ten images of the model's own size, and `"images": [{"patches": 1024, "tokens": 256}]` one image
/// of this size.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(untagged))]
pub enum Images {
    /// A number of images of the model's own size.
    Count(u32),
    /// The size of each image.
    Sizes(Vec<ImageSize>),
}

impl Images {
    /// Number of images.
    pub fn len(&self) -> u32 {
        match self {
            Self::Count(count) => *count,
            Self::Sizes(sizes) => u32::try_from(sizes.len()).unwrap_or(u32::MAX),
        }
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sizes of the images in `range`, as runs of equal images with their number. Images of a count have the size `own`.
    ///
    /// # Panics
    /// If the range ends after the last image.
    pub fn runs(
        &self,
        range: Range<u32>,
        own: ImageSize,
    ) -> impl Iterator<Item = (ImageSize, u64)> {
        let (count, sizes) = match self {
            Self::Count(_) => (u64::from(range.end.saturating_sub(range.start)), &[][..]),
            Self::Sizes(sizes) => (0, &sizes[range.start as usize..range.end as usize]),
        };
        let of_count = (count > 0).then_some((own, count));
        let of_sizes = sizes.chunk_by(|a, b| a == b).map(|run| (run[0], run.len() as u64));
        of_count.into_iter().chain(of_sizes)
    }

    /// `count` images of one size: the model's own, or `size`.
    pub fn equal(count: u32, size: Option<ImageSize>) -> Self {
        match size {
            None => Self::Count(count),
            Some(size) => vec![size; count as usize].into(),
        }
    }

    /// The mean size of all images of known size, rounded up; `None` without such images.
    pub fn mean_size<'a>(all: impl IntoIterator<Item = &'a Self>) -> Option<ImageSize> {
        let sizes: Vec<ImageSize> = all.into_iter().flat_map(Self::sizes).copied().collect();
        let count = sizes.len() as u64;
        let mean = |value: fn(&ImageSize) -> u32| {
            let sum: u64 = sizes.iter().map(|size| u64::from(value(size))).sum();
            u32::try_from(sum.div_ceil(count)).unwrap_or(u32::MAX)
        };
        (count > 0).then(|| ImageSize {
            patches: mean(|size| size.patches),
            tokens: mean(|size| size.tokens),
            views: mean(|size| size.views),
        })
    }

    /// The size of each image; empty if only their number is known.
    pub fn sizes(&self) -> &[ImageSize] {
        match self {
            Self::Count(_) => &[],
            Self::Sizes(sizes) => sizes,
        }
    }

    pub(super) fn validate(&self, remedy: &str) -> Result<(), FieldError> {
        for size in self.sizes() {
            FieldError::check_range("images.patches", size.patches, 1..=MAX_PATCHES, remedy)?;
            let tokens = u64::from(size.tokens);
            FieldError::check_range("images.tokens", tokens, 0..=MAX_TOKENS, remedy)?;
            FieldError::check_range("images.views", size.views, 1..=size.patches, remedy)?;
        }
        Ok(())
    }
}

impl Default for Images {
    fn default() -> Self {
        Self::Count(0)
    }
}

impl From<u32> for Images {
    fn from(count: u32) -> Self {
        Self::Count(count)
    }
}

/// No images are a count of 0, so that equal microbatches have one form.
impl From<Vec<ImageSize>> for Images {
    fn from(sizes: Vec<ImageSize>) -> Self {
        if sizes.is_empty() { Self::Count(0) } else { Self::Sizes(sizes) }
    }
}

impl Serialize for Images {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => serializer.serialize_u32(*count),
            Self::Sizes(sizes) => sizes.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Images {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CountOrSizes)
    }
}

struct CountOrSizes;

impl<'de> Visitor<'de> for CountOrSizes {
    type Value = Images;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a number of images, or a list of sizes {\"patches\":..,\"tokens\":..}")
    }

    fn visit_u64<E: serde::de::Error>(self, count: u64) -> Result<Images, E> {
        let too_many = |_| E::custom(format!("images is {count}, but must be at most {MAX_ITEMS}"));
        u32::try_from(count).map(Images::Count).map_err(too_many)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Images, A::Error> {
        let mut sizes: Vec<ImageSize> = Vec::new();
        while let Some(size) = list.next_element()? {
            sizes.push(size);
        }
        Ok(sizes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::BatchMeta;

    #[test]
    fn a_count_and_a_list_of_sizes_survive_a_round_trip() {
        for text in [
            "{\"iteration\":3,\"images\":10,\"text_tokens\":5}\n",
            "{\"iteration\":3,\"images\":[{\"patches\":64,\"tokens\":16},{\"patches\":20,\"tokens\":5,\"views\":4}]}\n",
            "{\"iteration\":3,\"text_tokens\":5}\n",
        ] {
            let batches = BatchMeta::from_jsonl(text).unwrap();
            assert_eq!(batches[0].to_jsonl(), text);
        }
        let none = BatchMeta::from_jsonl("{\"images\":[],\"text_tokens\":5}").unwrap();
        assert_eq!(none[0].microbatches[0].images, Images::Count(0));
    }

    #[test]
    fn a_bad_size_is_named() {
        for (images, named) in [
            ("[{\"patches\":0,\"tokens\":4}]", "images.patches is 0"),
            ("[{\"patches\":4,\"tokens\":1,\"views\":5}]", "images.views is 5"),
            ("[{\"patches\":4}]", "missing field `tokens`"),
            ("[{\"patches\":4,\"tokens\":1,\"px\":2}]", "unknown field `px`"),
            ("[[4,1]]", "expected an object with named fields"),
            ("\"four\"", "a number of images, or a list of sizes"),
            ("-1", "a number of images, or a list of sizes"),
            ("9999999999", "at most"),
        ] {
            let line = format!("{{\"images\":{images}}}");
            let error = BatchMeta::from_jsonl(&line).unwrap_err().to_string();
            assert!(error.contains(named), "{images}: {error}");
        }
    }

    #[test]
    fn equal_neighbours_form_a_run() {
        let size = |patches| ImageSize { patches, tokens: 1, views: 1 };
        let images = Images::from(vec![size(4), size(4), size(8), size(4)]);
        let runs = |images: &Images, range| images.runs(range, size(2)).collect::<Vec<_>>();
        assert_eq!(runs(&images, 0..4), [(size(4), 2), (size(8), 1), (size(4), 1)]);
        assert_eq!(runs(&images, 1..3), [(size(4), 1), (size(8), 1)]);
        assert_eq!(runs(&Images::Count(7), 2..5), [(size(2), 3)]);
        assert_eq!(runs(&Images::Count(7), 2..2), []);
        let mean = Images::mean_size([&images, &Images::Count(3)]);
        assert_eq!(mean, Some(size(5)));
        assert_eq!(Images::mean_size([&Images::Count(3)]), None);
        assert_eq!(Images::equal(2, mean), vec![size(5); 2].into());
        assert_eq!(Images::equal(2, None), Images::Count(2));
    }
}
