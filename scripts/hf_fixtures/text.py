"""Text models: Llama, Qwen2, Qwen3 and Mistral."""

import torch
import transformers as tf

from hf_fixtures.common import TEXT, case, randomise, sequence, write

SHALLOW = TEXT | dict(num_hidden_layers=2)
IDS = [5, 17, 3, 88, 41, 7, 60, 22, 9, 33, 71, 2]


def text_only(folder, model, lengths=(12, 5), **how):
    """Writes a model with a sequence of each length."""
    ids = (IDS * 40)[: max(lengths)]
    cases = [case(sequence([ids[:n]])[0]) for n in lengths]
    write(folder, model, cases, **how)


def llama(folder):
    scaling = dict(
        rope_type="llama3",
        rope_theta=500000.0,
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=64,
    )
    config = tf.LlamaConfig(**TEXT, rms_norm_eps=1e-5, rope_parameters=scaling)
    text_only(folder, randomise(tf.LlamaForCausalLM(config)), shard="40KB")


def qwen2(folder):
    rope = dict(rope_type="default", rope_theta=1e6)
    config = tf.Qwen2Config(**TEXT, rms_norm_eps=1e-6, rope_parameters=rope, tie_word_embeddings=True)
    text_only(folder, randomise(tf.Qwen2ForCausalLM(config), torch.bfloat16), dtype=torch.bfloat16)


def llama_biases(folder):
    rope = dict(rope_type="linear", rope_theta=1e4, factor=2.5)
    config = tf.LlamaConfig(**SHALLOW, attention_bias=True, mlp_bias=True, rope_parameters=rope)
    text_only(folder, randomise(tf.LlamaForCausalLM(config)))


def mistral(folder):
    rope = dict(rope_type="default", rope_theta=1e5)
    config = tf.MistralConfig(**SHALLOW, rms_norm_eps=1e-5, rope_parameters=rope, sliding_window=5)
    text_only(folder, randomise(tf.MistralForCausalLM(config), torch.float16), dtype=torch.float16)


def qwen2_yarn(folder):
    """Positions scaled by YaRN; the second layer has a window."""
    rope = dict(rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=64)
    window = dict(use_sliding_window=True, sliding_window=4, max_window_layers=1)
    config = tf.Qwen2Config(**SHALLOW, rope_parameters=rope, **window)
    text_only(folder, randomise(tf.Qwen2ForCausalLM(config), torch.bfloat16), dtype=torch.bfloat16)


def qwen3(folder):
    """Heads whose widths do not add up to the width of the model."""
    rope = dict(rope_type="default", rope_theta=1e6)
    config = tf.Qwen3Config(**SHALLOW, head_dim=12, rope_parameters=rope, tie_word_embeddings=True)
    text_only(folder, randomise(tf.Qwen3ForCausalLM(config)))


MODELS = {
    "llama": llama,
    "llama-biases": llama_biases,
    "mistral": mistral,
    "qwen2": qwen2,
    "qwen2-yarn": qwen2_yarn,
    "qwen3": qwen3,
}


def decoder(architecture, sizes, **more):
    """The sizes of a published decoder: width, inner width, layers, heads, key-value heads, vocabulary."""
    names = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size"]
    return dict(architectures=[architecture], **dict(zip(names, sizes)), **more)


def llama_decoder(*sizes, **more):
    return decoder("LlamaForCausalLM", sizes, **more)


def qwen2_decoder(*sizes, **more):
    return decoder("Qwen2ForCausalLM", sizes, **more)


def qwen3_decoder(*sizes, **more):
    return decoder("Qwen3ForCausalLM", sizes, head_dim=128, **more)


def mistral_decoder(*sizes, **more):
    return decoder("MistralForCausalLM", sizes, **more)


PUBLISHED = {
    "Llama-2-7b": llama_decoder(4096, 11008, 32, 32, 32, 32000),
    "Llama-2-13b": llama_decoder(5120, 13824, 40, 40, 40, 32000),
    "Llama-2-70b": llama_decoder(8192, 28672, 80, 64, 8, 32000),
    "Llama-3.1-8B": llama_decoder(4096, 14336, 32, 32, 8, 128256),
    "Llama-3.1-70B": llama_decoder(8192, 28672, 80, 64, 8, 128256),
    "Llama-3.1-405B": llama_decoder(16384, 53248, 126, 128, 8, 128256),
    "Llama-3.2-1B": llama_decoder(2048, 8192, 16, 32, 8, 128256, head_dim=64, tie_word_embeddings=True),
    "Llama-3.2-3B": llama_decoder(3072, 8192, 28, 24, 8, 128256, head_dim=128, tie_word_embeddings=True),
    "Qwen2-0.5B": qwen2_decoder(896, 4864, 24, 14, 2, 151936, tie_word_embeddings=True),
    "Qwen2-7B": qwen2_decoder(3584, 18944, 28, 28, 4, 152064),
    "Qwen2-72B": qwen2_decoder(8192, 29568, 80, 64, 8, 152064),
    "Qwen2.5-0.5B": qwen2_decoder(896, 4864, 24, 14, 2, 151936, tie_word_embeddings=True),
    "Qwen2.5-1.5B": qwen2_decoder(1536, 8960, 28, 12, 2, 151936, tie_word_embeddings=True),
    "Qwen2.5-3B": qwen2_decoder(2048, 11008, 36, 16, 2, 151936, tie_word_embeddings=True),
    "Qwen2.5-14B": qwen2_decoder(5120, 13824, 48, 40, 8, 152064),
    "Qwen2.5-32B": qwen2_decoder(5120, 27648, 64, 40, 8, 152064),
    "Qwen3-0.6B": qwen3_decoder(1024, 3072, 28, 16, 8, 151936, tie_word_embeddings=True),
    "Qwen3-1.7B": qwen3_decoder(2048, 6144, 28, 16, 8, 151936, tie_word_embeddings=True),
    "Qwen3-4B": qwen3_decoder(2560, 9728, 36, 32, 8, 151936, tie_word_embeddings=True),
    "Qwen3-8B": qwen3_decoder(4096, 12288, 36, 32, 8, 151936),
    "Qwen3-14B": qwen3_decoder(5120, 17408, 40, 40, 8, 151936),
    "Qwen3-32B": qwen3_decoder(5120, 25600, 64, 64, 8, 151936),
    "Mistral-7B-v0.1": mistral_decoder(4096, 14336, 32, 32, 8, 32000, sliding_window=4096),
    "Mistral-7B-v0.3": mistral_decoder(4096, 14336, 32, 32, 8, 32768, sliding_window=None),
    "Mistral-Nemo-12B": mistral_decoder(5120, 14336, 40, 32, 8, 131072, head_dim=128, sliding_window=None),
    "Mistral-Small-24B": mistral_decoder(5120, 32768, 40, 32, 8, 131072, head_dim=128, sliding_window=None),
}
