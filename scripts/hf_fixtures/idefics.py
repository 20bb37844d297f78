"""Idefics3 and SmolVLM. The processor cuts a picture into squares, which are pictures of the model."""

import torch
import transformers as tf

from hf_fixtures.common import IMAGE_TOKEN, TEXT, case, pixels, randomise, sequence, write

PX = 24
# How the views of a picture become tokens: see `image` in dip-burn/tests/suite/published/mod.rs.
SPLIT = 3
SHAPE = dict(
    hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2, image_size=PX, patch_size=4
)
# Tokens before the squares of a picture, and around the square with the whole picture.
AROUND, ROW_1_COL_1, ROW_1_COL_2, ROW_2_COL_1, ROW_2_COL_2, WHOLE, NEW_LINE = range(81, 88)


def model(folder, architecture, scale, dtype, **options):
    config = architecture.config_class(
        text_config=dict(model_type="llama", rms_norm_eps=1e-5) | TEXT | dict(num_hidden_layers=2),
        vision_config=SHAPE,
        image_token_id=IMAGE_TOKEN,
        scale_factor=scale,
        **options,
    )
    built = randomise(architecture(config), dtype)
    tokens = (PX // SHAPE["patch_size"] // scale) ** 2

    def square(name):
        return [[AROUND, name], tokens]

    whole = square(WHOLE) + [[AROUND]]
    rows = square(ROW_1_COL_1) + square(ROW_1_COL_2) + [[NEW_LINE]] + square(ROW_2_COL_1) + square(ROW_2_COL_2)
    cut = rows + [[NEW_LINE, NEW_LINE]] + whole

    def pictures(pieces, grids=()):
        """Text with pictures that are cut into squares. `grids` has the rows and columns of each; a whole picture has none."""
        ids, offsets = sequence(pieces)
        squares = list(pixels(len(offsets), 3, PX, PX, seed=len(offsets))) if offsets else []
        inputs = dict(pixel_values=torch.stack(squares)[None]) if squares else {}
        firsts, images = [], []
        for rows, columns in grids:
            count = rows * columns + 1
            firsts.append(offsets[sum(len(image) for image in images)])
            images.append([squares.pop(0) for _ in range(count)])
        return case(ids, firsts, images, [[SPLIT, *grid] for grid in grids], **inputs)

    cases = [
        pictures([[5, 17]] + whole + [[41, 2]], [(0, 0)]),
        pictures([[5, 17, 41, 7, 60, 2]]),
        pictures([[5]] + cut + [[9, 11]] + whole + [[22, 2]], [(2, 2), (0, 0)]),
    ]
    write(folder, built, cases, dtype=dtype)


def idefics3(folder):
    model(folder, tf.Idefics3ForConditionalGeneration, 2, torch.bfloat16)


def smolvlm(folder):
    model(folder, tf.SmolVLMForConditionalGeneration, 3, torch.bfloat16, tie_word_embeddings=True)


MODELS = {"idefics3": idefics3, "smolvlm": smolvlm}


def published(architecture, text, vision, scale):
    names = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
    text_names = names + ["num_key_value_heads", "vocab_size"]
    return dict(
        architectures=[f"{architecture}ForConditionalGeneration"],
        text_config=dict(model_type="llama", rms_norm_eps=1e-5, **dict(zip(text_names, text))),
        vision_config=dict(zip(names + ["image_size", "patch_size"], vision)),
        scale_factor=scale,
    )


SIGLIP_BASE = (768, 3072, 12, 12, 512, 16)
SIGLIP_SO = (1152, 4304, 27, 16, 384, 14)
SMOL_135M = (576, 1536, 30, 9, 3, 49280)
SMOL_360M = (960, 2560, 32, 15, 5, 49280)
SMOL_17B = (2048, 8192, 24, 32, 32, 49155)
LLAMA_8B = (4096, 14336, 32, 32, 8, 128259)
PUBLISHED = {
    "SmolVLM-256M-Instruct": published("Idefics3", SMOL_135M, SIGLIP_BASE, 4),
    "SmolVLM-500M-Instruct": published("Idefics3", SMOL_360M, SIGLIP_BASE, 4),
    "SmolVLM-Instruct": published("Idefics3", SMOL_17B, SIGLIP_SO, 3),
    "SmolVLM2-256M-Video-Instruct": published("SmolVLM", SMOL_135M, SIGLIP_BASE, 4),
    "SmolVLM2-500M-Video-Instruct": published("SmolVLM", SMOL_360M, SIGLIP_BASE, 4),
    "SmolVLM2-2.2B-Instruct": published("SmolVLM", (2048, 8192, 24, 32, 32, 49280), SIGLIP_SO, 3),
    "Idefics3-8B-Llama3": published("Idefics3", LLAMA_8B, (1152, 4304, 27, 16, 364, 14), 2),
}
