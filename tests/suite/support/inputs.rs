//! Tiny inputs of the command: they train and plan within seconds.

/// Four microbatches of a vision-language model.
pub const BATCH: &str = r#"{"images":10,"text_tokens":6502}
{"images":1,"text_tokens":8023}
{"images":0,"text_tokens":8192}
{"images":40,"text_tokens":1432}
"#;

/// A vision-language model.
#[cfg(feature = "train")]
pub const MODEL: &str = r#"name = "small"
sequence_tokens = 96
max_images = 6
microbatches = 3
parallel = { data = 1, tensor = 1, pipeline = 2 }
[[module]]
name = "vision"
layers = 2
hidden = 16
ffn = 32
heads = 2
kind = { vit = { image_px = 16, patch_px = 4, merge = 2 } }
[[module]]
name = "language"
layers = 2
hidden = 24
ffn = 32
heads = 2
inputs = ["vision"]
kind = { decoder = { vocab = 260 } }
"#;

/// A run of [`MODEL`].
#[cfg(feature = "train")]
pub const RUN: &str = r#"name = "small"
model = "small.toml"
iterations = 40
output = "out"
[pipeline]
search_iterations = 20
[checkpoint]
every = 10
[evaluation]
every = 20
pictures = 4
captions = 2
max_caption_tokens = 8
"#;

/// A text-to-video model.
#[cfg(feature = "train")]
pub const VIDEO_MODEL: &str = r#"name = "small-video"
sequence_tokens = 80
max_clips = 2
microbatches = 3
parallel = { data = 1, tensor = 1, pipeline = 2 }
[[module]]
name = "text"
layers = 2
hidden = 16
ffn = 32
heads = 2
kind = { decoder = { vocab = 260, head = false } }
[[module]]
name = "video"
layers = 2
hidden = 24
ffn = 32
heads = 2
inputs = ["text"]
kind = { dit = { latent_frames_per_second = 3.0, tokens_per_frame = 48, token_channels = 48 } }
"#;

/// A run of [`VIDEO_MODEL`].
#[cfg(feature = "train")]
pub const VIDEO_RUN: &str = r#"name = "small-video"
model = "small.toml"
iterations = 12
output = "out"
[pipeline]
search_iterations = 20
[optimizer]
ema_decay = 0.9
[checkpoint]
every = 6
[evaluation]
every = 6
clips = 4
samples = 2
sample_steps = 3
sample_seconds = 1.0
"#;

/// The `config.json` of a vision-language model of Hugging Face.
#[cfg(feature = "train")]
pub const PUBLISHED_CONFIG: &str = r#"{"architectures":["Qwen2VLForConditionalGeneration"],"hidden_size":24,"intermediate_size":32,
"num_hidden_layers":2,"num_attention_heads":2,"num_key_value_heads":1,"vocab_size":260,"max_position_embeddings":512,
"rms_norm_eps":1e-6,"rope_theta":10000.0,"rope_scaling":{"type":"mrope","mrope_section":[2,2,2]},"tie_word_embeddings":true,
"vision_config":{"depth":2,"embed_dim":16,"hidden_size":24,"num_heads":2,"mlp_ratio":2,"patch_size":4,
"spatial_merge_size":2,"temporal_patch_size":2},"some_field_of_the_future":[1]}"#;

/// A run of [`PUBLISHED_CONFIG`].
#[cfg(feature = "train")]
pub const PUBLISHED_RUN: &str = r#"name = "small"
model = "tiny"
iterations = 3
output = "out"
[sequence]
tokens = 96
images = 4
image_px = 16
[data]
microbatches = 2
[evaluation]
pictures = 0
captions = 0
"#;

/// A cluster whose devices have 22 GB.
pub const CLUSTER: &str = r#"name = "small"
devices_per_node = 8
nodes = 8
[device]
flops_per_s = 989e12
memory_bytes = 22_000_000_000
memory_bytes_per_s = 3.35e12
[links]
intra_node_bytes_per_s = 200e9
inter_node_bytes_per_s = 25e9
host_bytes_per_s = 64e9
"#;
