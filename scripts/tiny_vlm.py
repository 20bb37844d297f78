#!/usr/bin/env python3
"""A small model folder of the Qwen2-VL kind with random weights: config, weights, tokenizer, chat template and processor.

    scripts/tiny_vlm.py MODEL FOLDER [FOLDER ...]         # folders of scripts/conversations.py

It stands in for a published folder where none can be fetched: every file has the published layout, so that a run needs no other
setting than it would need for Qwen2-VL itself. The tokenizer is trained on the conversations. Needs torch, transformers, tokenizers.
"""

import argparse
import json
from pathlib import Path

import tokenizers
import torch
import transformers as tf
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers

from hf_fixtures.tokenizers import QWEN2_VL, QWEN_SPLIT

VOCAB = 1500
SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
]
TEXT = dict(
    hidden_size=128, intermediate_size=352, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=4096, rms_norm_eps=1e-6, initializer_range=0.05,
    rope_parameters=dict(rope_type="default", rope_theta=1e5, mrope_section=[4, 6, 6]),
)
VISION = dict(
    depth=4, embed_dim=96, hidden_size=128, num_heads=4, mlp_ratio=4, hidden_act="quick_gelu", patch_size=14, spatial_merge_size=2,
    temporal_patch_size=2, initializer_range=0.05,
)
PIXELS = dict(min_pixels=56 * 56, max_pixels=224 * 224)


def texts(folders):
    """All texts of the conversations that are trained on."""
    for folder in folders:
        for conversation in json.loads((folder / "train.json").read_text()):
            yield from (turn["value"] for turn in conversation["conversations"])
    yield "system\nYou see pictures. user\nassistant\n"


def tokenizer(folders):
    """Bytes and frequent words, like Qwen's own, with its special tokens."""
    t = tokenizers.Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated")
    t.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    size = VOCAB - len(SPECIAL)
    t.train_from_iterator(texts(folders), trainers.BpeTrainer(vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    t.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in SPECIAL])
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=t, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=QWEN2_VL,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    arguments = parser.parse_args()
    arguments.model.mkdir(parents=True, exist_ok=True)
    words = tokenizer(arguments.folders)
    words.save_pretrained(arguments.model)
    ids = dict(zip(SPECIAL, words.convert_tokens_to_ids(SPECIAL)))
    marks = dict(
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"], vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    text = TEXT | dict(vocab_size=len(words), bos_token_id=ids["<|endoftext|>"], eos_token_id=ids["<|im_end|>"])
    torch.manual_seed(0)
    config = tf.Qwen2VLConfig(text_config=text, vision_config=VISION, tie_word_embeddings=False, **marks)
    model = tf.Qwen2VLForConditionalGeneration(config)
    model.generation_config = tf.GenerationConfig(
        do_sample=False, bos_token_id=ids["<|endoftext|>"], eos_token_id=[ids["<|im_end|>"], ids["<|endoftext|>"]],
        pad_token_id=ids["<|endoftext|>"],
    )
    model.save_pretrained(arguments.model)
    size = dict(shortest_edge=PIXELS["min_pixels"], longest_edge=PIXELS["max_pixels"])
    tf.Qwen2VLImageProcessor(size=size, patch_size=14, temporal_patch_size=2, merge_size=2).save_pretrained(arguments.model)
    print(f"{sum(p.numel() for p in model.parameters()):,} weights, {len(words)} tokens in {arguments.model}")


if __name__ == "__main__":
    main()
