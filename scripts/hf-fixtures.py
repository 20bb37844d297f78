#!/usr/bin/env python3
"""Builds the tiny random models of dip-burn/tests/fixtures/hf, with their logits from `transformers`.

Only needed to rebuild the fixtures; the tests read the files in the repository:
    pip install torch transformers safetensors
    python3 scripts/hf-fixtures.py dip-burn/tests/fixtures/hf
Each folder has a model as written by `save_pretrained`, and `expected.safetensors` with
    input_ids [s], logits [s, vocab], and for vision models pixels [n, 3, px, px] and offsets [n].
"""

import json
import sys
from pathlib import Path

import torch
import transformers as tf
from safetensors.torch import save_file

VOCAB = 96
IMAGE_TOKEN = 90
TEXT = dict(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    bos_token_id=1,
    eos_token_id=2,
)


def randomise(model, dtype=torch.float32):
    """Sets all weights, also norms and biases, to random values that are exact in `dtype`."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            is_norm = parameter.dim() == 1 and "norm" in name and name.endswith("weight")
            is_norm |= parameter.dim() == 1 and name.endswith("ln_q.weight")
            value = 1 + 0.2 * noise if is_norm else 0.15 * noise
            parameter.copy_(value.to(dtype).float())
    return model.float().eval()


def sequence(pieces):
    """Token ids, with `n` image tokens for every integer n, and the offset of each image."""
    ids, offsets = [], []
    for piece in pieces:
        if isinstance(piece, int):
            offsets.append(len(ids))
            ids += [IMAGE_TOKEN] * piece
        else:
            ids += piece
    return torch.tensor([ids]), torch.tensor(offsets)


def pixels(count, px):
    return torch.randn(count, 3, px, px, generator=torch.Generator().manual_seed(3))


def qwen_patches(images, patch, merge, frames):
    """[n, 3, px, px] to rows of patches. Patches that merge into one token are adjacent."""
    n, channels, px, _ = images.shape
    blocks = px // patch // merge
    x = images.reshape(n, channels, blocks, merge, patch, blocks, merge, patch)
    x = x.permute(0, 2, 5, 3, 6, 1, 4, 7).unsqueeze(6).repeat(1, 1, 1, 1, 1, 1, frames, 1, 1)
    return x.reshape(n * (px // patch) ** 2, channels * frames * patch * patch)


def save(folder, model, tensors, shard="1GB", dtype=torch.float32):
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    (folder / "generation_config.json").unlink(missing_ok=True)
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "expected.safetensors")
    total = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{folder.name}: {total} bytes, architecture {json.loads((folder / 'config.json').read_text())['architectures']}")


def text_only(folder, model, **how):
    ids, _ = sequence([[5, 17, 3, 88, 41, 7, 60, 22, 9, 33, 71, 2]])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0]
    save(folder, model, dict(input_ids=ids[0].int(), logits=logits), **how)


def llama(root):
    scaling = dict(
        rope_type="llama3",
        rope_theta=500000.0,
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=64,
    )
    config = tf.LlamaConfig(**TEXT, rms_norm_eps=1e-5, rope_parameters=scaling)
    text_only(root / "llama", randomise(tf.LlamaForCausalLM(config)), shard="40KB")


def qwen2(root):
    rope = dict(rope_type="default", rope_theta=1e6)
    config = tf.Qwen2Config(**TEXT, rms_norm_eps=1e-6, rope_parameters=rope, tie_word_embeddings=True)
    text_only(root / "qwen2", randomise(tf.Qwen2ForCausalLM(config), torch.bfloat16), dtype=torch.bfloat16)


def qwen2_vl(root):
    patch, merge, frames, px = 4, 2, 2, 24
    text = TEXT | dict(rms_norm_eps=1e-6)
    text["rope_parameters"] = dict(rope_type="default", rope_theta=1e6, mrope_section=[2, 1, 1])
    vision = dict(
        depth=3,
        embed_dim=32,
        hidden_size=32,
        num_heads=2,
        mlp_ratio=2,
        patch_size=patch,
        spatial_merge_size=merge,
        temporal_patch_size=frames,
        hidden_act="quick_gelu",
    )
    config = tf.Qwen2VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=IMAGE_TOKEN,
        video_token_id=91,
        vision_start_token_id=92,
        vision_end_token_id=93,
        tie_word_embeddings=False,
    )
    model = randomise(tf.Qwen2VLForConditionalGeneration(config))
    images = pixels(2, px)
    ids, offsets = sequence([[5, 17, 92], 9, [93, 41, 7, 92], 9, [93, 60, 22, 9, 2]])
    side = px // patch
    with torch.no_grad():
        logits = model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=qwen_patches(images, patch, merge, frames),
            image_grid_thw=torch.tensor([[1, side, side]] * 2),
            mm_token_type_ids=(ids == IMAGE_TOKEN).int(),
        ).logits[0]
    tensors = dict(input_ids=ids[0].int(), logits=logits, pixels=images, offsets=offsets.int())
    save(root / "qwen2-vl", model, tensors, shard="60KB")


def llava(root, name, vision, dtype, **options):
    px = vision.image_size
    tokens = (px // vision.patch_size) ** 2
    text = tf.LlamaConfig(**TEXT, rms_norm_eps=1e-5)
    config = tf.LlavaConfig(
        text_config=text, vision_config=vision, image_token_id=IMAGE_TOKEN, image_seq_length=tokens, **options
    )
    model = randomise(tf.LlavaForConditionalGeneration(config), dtype)
    images = pixels(2, px)
    ids, offsets = sequence([[5, 17], tokens, [41, 7], tokens, [60, 22, 9, 2]])
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=images).logits[0]
    tensors = dict(input_ids=ids[0].int(), logits=logits, pixels=images, offsets=offsets.int())
    save(root / name, model, tensors, dtype=dtype)


def main():
    root = Path(sys.argv[1])
    llama(root)
    qwen2(root)
    qwen2_vl(root)
    shape = dict(hidden_size=24, intermediate_size=40, num_hidden_layers=4, num_attention_heads=2, image_size=16, patch_size=4)
    llava(root, "llava-clip", tf.CLIPVisionConfig(**shape), torch.float32, vision_feature_layer=-2, vision_feature_select_strategy="default")
    llava(root, "llava-siglip", tf.SiglipVisionConfig(**shape), torch.float16, vision_feature_layer=-2, vision_feature_select_strategy="full")


main()
