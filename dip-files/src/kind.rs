//! Kinds of input files, each with a greatest size.

/// A kind of files, by what they hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Its name in messages, with an article.
    pub name: &'static str,
    /// Bytes of its largest file.
    pub max_bytes: u64,
}

impl Kind {
    /// Models, clusters and runs in TOML.
    pub const TOML: Self = Self::of("a TOML file", 1 << 20);
    /// Batch metadata in JSON Lines: millions of microbatches.
    pub const BATCHES: Self = Self::of("a batch file", 256 << 20);
    /// Plans, task graphs and timelines: about 300 bytes for each of a million tasks.
    pub const PLAN: Self = Self::of("a plan, task graph or timeline", 512 << 20);
    /// Orders of PyTorch's pipelining in CSV.
    pub const ORDER: Self = Self::of("an order", 64 << 20);
    /// `config.json` of models, processors and adapters, chat templates, and indices of weights.
    pub const CONFIG: Self = Self::of("a file that describes a model", 64 << 20);
    /// Tokenizers.
    pub const TOKENIZER: Self = Self::of("a tokenizer", 256 << 20);
    /// Measured profiles.
    pub const PROFILE: Self = Self::of("a profile", 64 << 20);
    /// What a run has learned about the costs of its stages.
    pub const COSTS: Self = Self::of("a file of learned costs", 64 << 20);
    /// The index and the checksums of a checkpoint: a million tensors.
    pub const CHECKPOINT_INDEX: Self = Self::of("the index of a checkpoint", 512 << 20);
    /// Metrics of a run: a million iterations.
    pub const METRICS: Self = Self::of("a file of metrics", 4 << 30);
    /// Pictures and other media of a sample that are files of their own.
    pub const MEDIA: Self = Self::of("a picture, sound or clip", 1 << 30);
    /// Weights, of which only parts are read at a time.
    pub const WEIGHTS: Self = Self::of("a file of weights", 1 << 44);
    /// Shards of data, of which only samples are read at a time.
    pub const SHARD: Self = Self::of("a shard", 1 << 44);

    /// Indexes of shards: about 100 bytes for each picture.
    pub const INDEX: Self = Self::of("the index of a shard", 1 << 30);

    const fn of(name: &'static str, max_bytes: u64) -> Self {
        Self { name, max_bytes }
    }
}
