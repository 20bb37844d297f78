"""Vision-language models of Qwen."""

import torch
import transformers as tf

from hf_fixtures.common import IMAGE_TOKEN, TEXT, case, pixels, randomise, sequence, write


def patches(images, patch, merge, frames):
    """Pictures [3, height, width] as rows of patches. Patches that merge into one token are adjacent."""
    rows = []
    for image in images:
        channels, height, width = image.shape
        x = image.reshape(channels, height // patch // merge, merge, patch, width // patch // merge, merge, patch)
        x = x.permute(1, 4, 2, 5, 0, 3, 6).unsqueeze(5).repeat(1, 1, 1, 1, 1, frames, 1, 1)
        rows.append(x.reshape(-1, channels * frames * patch * patch))
    return torch.cat(rows)


def qwen2_vl(folder):
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
    model = randomise(tf.Qwen2VLForConditionalGeneration(config), torch.bfloat16)

    def pictures(pieces, count):
        ids, offsets = sequence(pieces)
        images = list(pixels(count, 3, px, px))
        inputs = dict(mm_token_type_ids=(ids == IMAGE_TOKEN).int())
        if count:
            side = px // patch
            inputs["pixel_values"] = patches(images, patch, merge, frames)
            inputs["image_grid_thw"] = torch.tensor([[1, side, side]] * count)
        return case(ids, offsets, [[image] for image in images], **inputs)

    two = pictures([[5, 17, 92], 9, [93, 41, 7, 92], 9, [93, 60, 22, 9, 2]], 2)
    write(folder, model, [two, pictures([[5, 17, 41, 7, 60, 2]], 0)], shard="60KB", dtype=torch.bfloat16)


MODELS = {"qwen2-vl": qwen2_vl}
PUBLISHED = {}
