"""Text models: Llama, Qwen2, Qwen3 and Mistral."""

import torch
import transformers as tf

from hf_fixtures.common import TEXT, case, randomise, sequence, write

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


MODELS = {"llama": llama, "qwen2": qwen2}


def decoder(architecture, sizes, **more):
    """The sizes of a published decoder: width, inner width, layers, heads, key-value heads, vocabulary."""
    names = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size"]
    return dict(architectures=[architecture], **dict(zip(names, sizes)), **more)


def llama_decoder(*sizes, **more):
    return decoder("LlamaForCausalLM", sizes, **more)


def qwen2_decoder(*sizes, **more):
    return decoder("Qwen2ForCausalLM", sizes, **more)


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
}
