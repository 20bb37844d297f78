//! What is known of the media of a shard, sample by sample: from its index, or from the samples that were read so far.

use std::sync::Arc;

use super::indexing::MediaCounts;
use crate::data::encoded::MediaFacts;

/// The facts of all samples of a shard.
#[derive(Debug, Default)]
pub(super) struct KnownMedia {
    pub samples: Vec<KnownSample>,
    /// Samples that were not read yet.
    unread: usize,
    /// True if something was learned that the index of the shard does not have.
    is_new: bool,
}

/// The facts of one sample.
#[derive(Debug, Default)]
pub(super) struct KnownSample {
    is_read: bool,
    pub files: Vec<KnownFile>,
}

/// The facts of one file of a sample.
#[derive(Debug)]
pub(super) struct KnownFile {
    /// The end of the name of a member of an archive, or the path of a file in the folder of pictures.
    pub name: Box<str>,
    pub bytes: u64,
    /// When a file of its own was changed, in nanoseconds since 1970.
    pub modified_ns: Option<u64>,
    pub facts: Arc<MediaFacts>,
}

impl KnownMedia {
    /// Nothing of `samples` samples.
    pub fn nothing(samples: usize) -> Self {
        let known = (0..samples).map(|_| KnownSample::default()).collect();
        Self { samples: known, unread: samples, is_new: samples > 0 }
    }

    /// All of some samples, as an index has it.
    pub fn all(samples: Vec<KnownSample>) -> Self {
        Self { samples, unread: 0, is_new: false }
    }

    /// Reads a sample with what is known of it.
    pub fn read<T>(&mut self, sample: usize, read: impl FnOnce(&mut KnownSample) -> T) -> T {
        let Some(known) = self.samples.get_mut(sample) else {
            return read(&mut KnownSample::default());
        };
        let before = known.files.len();
        let result = read(known);
        self.unread -= usize::from(!known.is_read);
        self.is_new |= !known.is_read || known.files.len() > before;
        known.is_read = true;
        result
    }

    /// Numbers of media of known size.
    pub fn count(&self) -> MediaCounts {
        let mut counts = MediaCounts::default();
        for file in self.samples.iter().flat_map(|sample| &sample.files) {
            counts.pictures += u64::from(file.facts.picture.get().is_some());
            counts.videos += u64::from(file.facts.video.get().is_some());
            counts.sounds += u64::from(file.facts.sound.get().is_some());
        }
        counts
    }

    /// True if all samples were read, and the index of the shard lacks some of them.
    pub fn is_to_be_written(&self) -> bool {
        self.unread == 0 && self.is_new
    }

    /// True if something was learned that is not written.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Notes that the index has it all.
    pub fn written(&mut self) {
        self.is_new = false;
    }
}

impl KnownSample {
    /// A sample of an index.
    pub fn indexed(files: Vec<KnownFile>) -> Self {
        Self { is_read: true, files }
    }

    /// The facts of a file. A file that is new or has changed has none yet.
    pub fn facts(&mut self, name: &str, bytes: u64, modified_ns: Option<u64>) -> Arc<MediaFacts> {
        let is_it = |file: &KnownFile| {
            *file.name == *name && file.bytes == bytes && file.modified_ns == modified_ns
        };
        if let Some(file) = self.files.iter().find(|file| is_it(file)) {
            return file.facts.clone();
        }
        self.files.retain(|file| *file.name != *name);
        let facts = Arc::<MediaFacts>::default();
        let file = KnownFile { name: name.into(), bytes, modified_ns, facts: facts.clone() };
        self.files.push(file);
        facts
    }
}
