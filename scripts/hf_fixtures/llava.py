"""LLaVA 1.5, LLaVA-NeXT and LLaVA-OneVision, with towers of CLIP and SigLIP."""

import math

import torch
import transformers as tf
from transformers.models.llava_onevision.modeling_llava_onevision import (
    get_anyres_image_grid_shape,
    image_size_to_num_patches,
    unpad_image,
)

from hf_fixtures.common import IMAGE_TOKEN, TEXT, case, pixels, randomise, sequence, write

SHAPE = dict(
    hidden_size=24, intermediate_size=40, num_hidden_layers=4, num_attention_heads=2, image_size=16, patch_size=4
)
SMALL_TEXT = TEXT | dict(num_hidden_layers=2)
SMALL_SHAPE = SHAPE | dict(num_hidden_layers=3, image_size=12)
# The side is no multiple of the patch: the last pixels are not used.
ODD_SHAPE = SHAPE | dict(num_hidden_layers=2, image_size=18)
# How the views of a picture become tokens: see `image` in dip-burn/tests/suite/published/mod.rs.
ENDED, TILES = 1, 2


def llava(folder, text, vision, dtype, **options):
    px = vision.image_size
    config = tf.LlavaConfig(text_config=text, vision_config=vision, image_token_id=IMAGE_TOKEN, **options)
    model = randomise(tf.LlavaForConditionalGeneration(config), dtype)
    tokens = len(model.model.get_image_features(pixels(1, 3, px, px), return_dict=True).pooler_output[0])

    def pictures(pieces, count):
        ids, offsets = sequence(pieces)
        images = pixels(count, 3, px, px)
        inputs = dict(pixel_values=images) if count else {}
        return case(ids, offsets, [[image] for image in images], **inputs)

    two = pictures([[5, 17], tokens, [41, 7], tokens, [60, 22, 9, 2]], 2)
    write(folder, model, [two, pictures([[5, 17, 41, 7, 60, 2]], 0)], dtype=dtype)


def clip(folder):
    options = dict(vision_feature_layer=-2, vision_feature_select_strategy="default")
    llava(folder, tf.LlamaConfig(**TEXT, rms_norm_eps=1e-5), tf.CLIPVisionConfig(**SHAPE), torch.float32, **options)


def clip_full(folder):
    options = dict(vision_feature_layer=[-1], vision_feature_select_strategy="full")
    text = tf.LlamaConfig(**SMALL_TEXT, rms_norm_eps=1e-5)
    llava(folder, text, tf.CLIPVisionConfig(**ODD_SHAPE), torch.bfloat16, **options)


def siglip(folder):
    options = dict(vision_feature_layer=-2, vision_feature_select_strategy="full")
    llava(folder, tf.LlamaConfig(**TEXT, rms_norm_eps=1e-5), tf.SiglipVisionConfig(**SHAPE), torch.float16, **options)


def siglip_last(folder):
    options = dict(vision_feature_layer=-1, vision_feature_select_strategy="default")
    vision = tf.SiglipVisionConfig(**ODD_SHAPE, vision_use_head=False)
    llava(folder, tf.Qwen2Config(**SMALL_TEXT), vision, torch.bfloat16, **options)


class Tiled:
    """A model that cuts pictures into tiles."""

    def __init__(self, model):
        self.model, self.config = model, model.config
        self.px = self.config.vision_config.image_size

    def picture(self, size, alone):
        """The views of a picture of [height, width], and the numbers of its arrangement."""
        if not alone:
            return pixels(1, 3, self.px, self.px, seed=size[0]), [ENDED]
        count = image_size_to_num_patches(size, self.config.image_grid_pinpoints, self.px)
        return pixels(count, 3, self.px, self.px, seed=size[0]), [TILES, *self.joined(size)]

    def joined(self, size):
        """Tiles along both axes, rows and columns of tokens that are cut off, rows and columns of the rest, and 1 if these are
        interpolated."""
        side = self.px // self.config.vision_config.patch_size
        tiles = get_anyres_image_grid_shape(size, self.config.image_grid_pinpoints, self.px)
        rows, columns = (side * n for n in tiles)
        places = unpad_image(torch.arange(rows * columns).reshape(1, rows, columns), size)[0]
        first, kept = int(places[0, 0]), places.shape
        aspect = getattr(self.config, "vision_aspect_ratio", "anyres_max_999")
        ratio = math.sqrt(kept[0] * kept[1] / (int(aspect.removeprefix("anyres_max_")) * side**2))
        scaled = [int(n // ratio) for n in kept] if ratio > 1.1 else kept
        return [*tiles, first // columns, first % columns, *scaled, int(ratio > 1.1)]

    def inputs(self, pictures, sizes, alone):
        most = max(len(views) for views in pictures)
        padded = [torch.cat([views, torch.zeros(most - len(views), *views.shape[1:])]) for views in pictures]
        inputs = dict(pixel_values=torch.stack(padded), image_sizes=torch.tensor(sizes))
        return inputs if alone else inputs | dict(batch_num_images=torch.tensor([len(sizes)]))

    def case(self, sizes, alone=True):
        """Pictures of these sizes in one sequence, with text between them."""
        if not sizes:
            return case(sequence([[5, 17, 41, 7, 60, 2]])[0])
        pictures, arrangements = zip(*(self.picture(size, alone) for size in sizes))
        inputs = self.inputs(pictures, sizes, alone)
        features = self.model.model.get_image_features(**inputs, return_dict=True).pooler_output
        pieces = [[5, 17]]
        for i, tokens in enumerate(features):
            pieces += [len(tokens), [41 + i, 7]]
        ids, offsets = sequence(pieces + [[60, 2]])
        return case(ids, offsets, [list(views) for views in pictures], arrangements, **inputs)


def next_(folder):
    config = tf.LlavaNextConfig(
        text_config=tf.MistralConfig(**SMALL_TEXT, rms_norm_eps=1e-5, sliding_window=None),
        vision_config=tf.CLIPVisionConfig(**SMALL_SHAPE),
        image_token_id=IMAGE_TOKEN,
        image_grid_pinpoints=[[12, 24], [24, 12], [24, 24], [36, 12], [12, 36]],
    )
    tiled = Tiled(randomise(tf.LlavaNextForConditionalGeneration(config), torch.bfloat16))
    cases = [tiled.case([[20, 57], [64, 50], [9, 7]]), tiled.case([]), tiled.case([[70, 21]])]
    write(folder, tiled.model, cases, dtype=torch.bfloat16)


def onevision(folder):
    config = tf.LlavaOnevisionConfig(
        text_config=tf.Qwen2Config(**SMALL_TEXT, tie_word_embeddings=True),
        vision_config=tf.SiglipVisionConfig(**ODD_SHAPE, vision_use_head=False),
        image_token_id=IMAGE_TOKEN,
        image_grid_pinpoints=[[18 * rows, 18 * columns] for rows in range(1, 4) for columns in range(1, 4)],
        vision_aspect_ratio="anyres_max_2",
    )
    tiled = Tiled(randomise(tf.LlavaOnevisionForConditionalGeneration(config), torch.bfloat16))
    alone, scaled = tiled.case([[13, 17]]), tiled.case([[50, 35]])
    cases = [alone, scaled, tiled.case([]), tiled.case([[20, 57], [64, 50]], alone=False)]
    write(folder, tiled.model, cases, dtype=torch.bfloat16)


MODELS = {
    "llava-clip": clip,
    "llava-clip-full": clip_full,
    "llava-siglip": siglip,
    "llava-siglip-last": siglip_last,
    "llava-next": next_,
    "llava-onevision": onevision,
}

CLIP_L = dict(
    model_type="clip_vision_model", hidden_size=1024, intermediate_size=4096, image_size=336, patch_size=14,
    num_attention_heads=16, num_hidden_layers=24, projection_dim=768, vocab_size=32000,
)
SIGLIP_SO = dict(
    model_type="siglip_vision_model", hidden_size=1152, intermediate_size=4304, image_size=384, patch_size=14,
    num_attention_heads=16, num_hidden_layers=26, vision_use_head=False,
)
VICUNA_7B = dict(model_type="llama", max_position_embeddings=4096, rms_norm_eps=1e-5, vocab_size=32064)
MISTRAL_7B = dict(
    model_type="mistral", intermediate_size=14336, max_position_embeddings=32768, num_key_value_heads=8,
    rms_norm_eps=1e-5, rope_theta=1000000.0, sliding_window=None, vocab_size=32064,
)
VICUNA_13B = VICUNA_7B | dict(
    hidden_size=5120, intermediate_size=13824, num_attention_heads=40, num_hidden_layers=40, num_key_value_heads=40
)


def qwen2(hidden, ffn, layers, heads, kv_heads, vocab, **more):
    return dict(
        model_type="qwen2", hidden_size=hidden, intermediate_size=ffn, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, vocab_size=vocab, **more,
    )


def published(architecture, text, vision, **more):
    return dict(architectures=[architecture], text_config=text, vision_config=vision, **more)


LLAVA, NEXT, ONEVISION = (
    f"{name}ForConditionalGeneration" for name in ("Llava", "LlavaNext", "LlavaOnevision")
)
QWEN2_05B = qwen2(896, 4864, 24, 14, 2, 152000, tie_word_embeddings=True)
PUBLISHED = {
    "llava-1.5-7b": published(LLAVA, VICUNA_7B, CLIP_L),
    "llava-1.5-13b": published(LLAVA, VICUNA_13B, CLIP_L),
    "llava-interleave-qwen-0.5b": published(
        LLAVA, qwen2(1024, 2816, 24, 16, 16, 152000), SIGLIP_SO, vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    ),
    "llava-v1.6-mistral-7b": published(NEXT, MISTRAL_7B, CLIP_L),
    "llava-v1.6-vicuna-7b": published(NEXT, VICUNA_7B, CLIP_L),
    "llava-v1.6-vicuna-13b": published(NEXT, VICUNA_13B, CLIP_L),
    "llava-onevision-qwen2-0.5b-ov": published(ONEVISION, QWEN2_05B, SIGLIP_SO, tie_word_embeddings=True),
    "llava-onevision-qwen2-7b-ov": published(ONEVISION, qwen2(3584, 18944, 28, 28, 4, 152128), SIGLIP_SO),
}


def unused(model):
    """Parameters after the layer of the features: later layers, and the norm after the last."""
    tower, layer = model.model.vision_tower, model.config.vision_feature_layer
    depth = len(tower.encoder.layers)
    after = list(tower.encoder.layers)[depth + 1 + layer :] + [tower.post_layernorm]
    return sum(p.numel() for module in after for p in module.parameters())
