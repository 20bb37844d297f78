"""LLaVA with towers of CLIP and SigLIP."""

import torch
import transformers as tf

from hf_fixtures.common import IMAGE_TOKEN, TEXT, case, pixels, randomise, sequence, write

SHAPE = dict(
    hidden_size=24, intermediate_size=40, num_hidden_layers=4, num_attention_heads=2, image_size=16, patch_size=4
)


def llava(folder, vision, dtype, **options):
    px = vision.image_size
    tokens = (px // vision.patch_size) ** 2
    text = tf.LlamaConfig(**TEXT, rms_norm_eps=1e-5)
    config = tf.LlavaConfig(
        text_config=text, vision_config=vision, image_token_id=IMAGE_TOKEN, image_seq_length=tokens, **options
    )
    model = randomise(tf.LlavaForConditionalGeneration(config), dtype)

    def pictures(pieces, count):
        ids, offsets = sequence(pieces)
        images = pixels(count, 3, px, px)
        inputs = dict(pixel_values=images) if count else {}
        return case(ids, offsets, [[image] for image in images], **inputs)

    two = pictures([[5, 17], tokens, [41, 7], tokens, [60, 22, 9, 2]], 2)
    write(folder, model, [two, pictures([[5, 17, 41, 7, 60, 2]], 0)], dtype=dtype)


def clip(folder):
    options = dict(vision_feature_layer=-2, vision_feature_select_strategy="default")
    llava(folder, tf.CLIPVisionConfig(**SHAPE), torch.float32, **options)


def siglip(folder):
    options = dict(vision_feature_layer=-2, vision_feature_select_strategy="full")
    llava(folder, tf.SiglipVisionConfig(**SHAPE), torch.float16, **options)


MODELS = {"llava-clip": clip, "llava-siglip": siglip}
PUBLISHED = {}
