//! What is known of the media of a shard, sample by sample: from its index, or from the samples that were read so far.

use std::sync::Arc;

use crate::data::encoded::MediaFacts;

/// The facts of all samples of a shard.
#[derive(Debug, Default)]
pub(super) struct KnownMedia {
    pub samples: Vec<KnownSample>,
    /// Samples that were not read yet.
    unread: usize,
    /// Samples that were read since the index was last compared.
    reads: usize,
    /// What the index of the shard has; `None` without one.
    indexed: Option<Extent>,
    /// True if a file differs from that in the index.
    differs: bool,
}

/// How much is known: numbers of media, and samples of sounds.
type Extent = (MediaCounts, u64);

/// Numbers of media.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MediaCounts {
    /// Pictures.
    pub pictures: u64,
    /// Videos.
    pub videos: u64,
    /// Sounds.
    pub sounds: u64,
}

/// The facts of one sample.
#[derive(Debug, Default)]
pub(super) struct KnownSample {
    is_read: bool,
    /// True if a file of which something was known has changed.
    differs: bool,
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
        Self { samples: known, unread: samples, ..Self::default() }
    }

    /// All of some samples, as an index has it.
    pub fn all(samples: Vec<KnownSample>) -> Self {
        let mut all = Self { samples, ..Self::default() };
        all.written();
        all
    }

    /// Reads a sample with what is known of it.
    pub fn read<T>(&mut self, sample: usize, read: impl FnOnce(&mut KnownSample) -> T) -> T {
        let Some(known) = self.samples.get_mut(sample) else {
            return read(&mut KnownSample::default());
        };
        let result = read(known);
        self.differs |= std::mem::take(&mut known.differs);
        self.unread -= usize::from(!known.is_read);
        self.reads += 1;
        known.is_read = true;
        result
    }

    /// Numbers of media of known size.
    pub fn count(&self) -> MediaCounts {
        let mut counts = MediaCounts::default();
        for file in self.samples.iter().flat_map(|sample| &sample.files) {
            counts.pictures += u64::from(file.facts.picture.get().is_some());
            counts.videos += u64::from(file.facts.video.get().is_some());
            counts.sounds += u64::from(file.facts.sound().is_some());
        }
        counts
    }

    fn extent(&self) -> Extent {
        let files = self.samples.iter().flat_map(|sample| &sample.files);
        let heard = files.filter_map(|file| file.facts.sound()).map(|sound| sound.samples).sum();
        (self.count(), heard)
    }

    /// True if all samples were read, and the index of the shard lacks something. Compares once for each reading of all samples,
    /// so that files of which nothing can be known do not make an index be written again and again.
    pub fn is_to_be_written(&mut self) -> bool {
        if self.unread > 0 || self.reads < self.samples.len() {
            return false;
        }
        self.reads = 0;
        self.is_new()
    }

    /// True if something is known that the index of the shard lacks.
    pub fn is_new(&self) -> bool {
        self.differs || self.indexed != Some(self.extent())
    }

    /// Notes that the index has it all.
    pub fn written(&mut self) {
        self.differs = false;
        self.indexed = Some(self.extent());
    }
}

impl KnownSample {
    /// A sample of an index.
    pub fn indexed(files: Vec<KnownFile>) -> Self {
        Self { is_read: true, differs: false, files }
    }

    /// The facts of a file. A file that is new or has changed has none yet.
    pub fn facts(&mut self, name: &str, bytes: u64, modified_ns: Option<u64>) -> Arc<MediaFacts> {
        let is_it = |file: &KnownFile| {
            *file.name == *name && file.bytes == bytes && file.modified_ns == modified_ns
        };
        if let Some(file) = self.files.iter().find(|file| is_it(file)) {
            return file.facts.clone();
        }
        let before = self.files.len();
        self.files.retain(|file| *file.name != *name);
        self.differs |= self.files.len() < before;
        let facts = Arc::<MediaFacts>::default();
        let file = KnownFile { name: name.into(), bytes, modified_ns, facts: facts.clone() };
        self.files.push(file);
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::encoded::SoundFacts;

    /// Reads both samples, each with a file of so many bytes. Returns the facts of the first file.
    fn pass(known: &mut KnownMedia, bytes: u64) -> Arc<MediaFacts> {
        let read = |known: &mut KnownMedia, i| known.read(i, |s| s.facts("wav", bytes, None));
        let first = read(known, 0);
        assert!(!known.is_to_be_written());
        read(known, 1);
        first
    }

    #[test]
    fn an_index_is_written_once_for_what_is_learned_and_never_for_files_of_which_nothing_is() {
        let mut known = KnownMedia::nothing(2);
        pass(&mut known, 10);
        assert!(known.is_to_be_written());
        known.written();
        let samples = |count| KnownSample::indexed(Vec::with_capacity(count));
        let mut indexed = KnownMedia::all(vec![samples(0), samples(0)]);
        for _ in 0..3 {
            pass(&mut indexed, 10);
            assert!(!indexed.is_to_be_written());
        }
        pass(&mut indexed, 10).learn_sound(SoundFacts { samples: 5, longer: true });
        assert!(indexed.is_to_be_written());
        assert!(!indexed.is_to_be_written(), "compared a second time in one reading");
        indexed.written();
        let facts = pass(&mut indexed, 10);
        assert!(!indexed.is_to_be_written());
        // More of a sound becomes known; less is no news.
        facts.learn_sound(SoundFacts { samples: 9, longer: false });
        facts.learn_sound(SoundFacts { samples: 7, longer: true });
        assert_eq!(facts.sound(), Some(SoundFacts { samples: 9, longer: false }));
        pass(&mut indexed, 10);
        assert!(indexed.is_to_be_written());
        indexed.written();
        // Other files of the same names.
        pass(&mut indexed, 11).learn_sound(SoundFacts { samples: 9, longer: false });
        assert!(indexed.is_to_be_written());
    }
}
