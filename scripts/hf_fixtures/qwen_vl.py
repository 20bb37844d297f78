"""Vision-language models of Qwen: pictures and videos of many sizes."""

import torch
import transformers as tf

from hf_fixtures.common import IMAGE_TOKEN, TEXT, case, pixels, randomise, write

VIDEO_TOKEN, VISION_START, VISION_END = 91, 92, 93
PATCH, MERGE, FRAMES = 4, 2, 2
VISION = dict(patch_size=PATCH, spatial_merge_size=MERGE, temporal_patch_size=FRAMES)
TOKENS = dict(
    image_token_id=IMAGE_TOKEN,
    video_token_id=VIDEO_TOKEN,
    vision_start_token_id=VISION_START,
    vision_end_token_id=VISION_END,
    tie_word_embeddings=False,
)


def rows(video):
    """A video [frames, 3, height, width] as rows of patches, and its grid. Patches that merge into one token are adjacent."""
    frames, channels, height, width = video.shape
    blocks = [frames // FRAMES, FRAMES, channels]
    blocks += [height // PATCH // MERGE, MERGE, PATCH, width // PATCH // MERGE, MERGE, PATCH]
    x = video.reshape(blocks).permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    grid = [frames // FRAMES, height // PATCH, width // PATCH]
    return x.reshape(-1, channels * FRAMES * PATCH * PATCH), grid


class Picture:
    """A still picture of this size in pixels."""

    def __init__(self, height, width):
        self.values = pixels(3, height, width, seed=height * 100 + width)

    def runs(self):
        """Its runs of tokens, each with the view that they come from."""
        return [(tokens_of(self.values), self.values)]

    def rows(self):
        return rows(self.values.unsqueeze(0).repeat(FRAMES, 1, 1, 1))


class Video:
    """A video of this number of frames and size. Its frames may be parts of the text, each after a time."""

    def __init__(self, frames, height, width, seconds=0.0, separate=False):
        self.values = pixels(frames, 3, height, width, seed=frames * 10000 + height * 100 + width)
        self.seconds, self.separate = seconds, separate

    def runs(self):
        patches = list(self.values.split(FRAMES))
        if self.separate:
            return [(tokens_of(patch), patch) for patch in patches]
        return [(tokens_of(self.values) * len(patches), self.values)]

    def rows(self):
        return rows(self.values)


def tokens_of(values):
    """Tokens of one picture or of one patch of frames."""
    return values.shape[-2] * values.shape[-1] // (PATCH * MERGE) ** 2


def document(model, *pieces):
    """A sequence of token ids, pictures and videos. It has the positions of the model, and the seconds of a patch of frames."""
    ids, types, offsets, views, seconds = [], [], [], [], []
    media = {Picture: [], Video: []}
    for piece in pieces:
        if isinstance(piece, list):
            ids += piece
            types += [0] * len(piece)
            continue
        kind = [Picture, Video].index(type(piece))
        media[type(piece)].append(piece)
        for i, (count, view) in enumerate(piece.runs()):
            text = [40 + i] * (i > 0) + [VISION_START]
            ids += text + [[IMAGE_TOKEN, VIDEO_TOKEN][kind]] * count + [VISION_END]
            offsets.append(len(types) + len(text))
            types += [0] * len(text) + [1 + kind] * count + [0]
            views.append([view])
            seconds.append(getattr(piece, "seconds", 0.0))
    ids, types = torch.tensor([ids]), torch.tensor([types]).int()
    inputs, grids = dict(mm_token_type_ids=types), {}
    for kind, values, grid in [(Picture, "pixel_values", "image_grid_thw"), (Video, "pixel_values_videos", "video_grid_thw")]:
        if media[kind]:
            inputs[values] = torch.cat([medium.rows()[0] for medium in media[kind]])
            grids[grid] = torch.tensor([medium.rows()[1] for medium in media[kind]])
    if any(seconds):
        grids["second_per_grid_ts"] = torch.tensor([video.seconds for video in media[Video]])
    positions = torch.arange(ids.shape[1]).repeat(3, 1)
    if grids:
        positions = model.model.get_rope_index(ids, types, **grids)[0][:, 0]
    more = dict(positions=positions.float(), seconds=torch.tensor(seconds))
    return case(ids, offsets, views, more=more, **inputs, **grids)


def documents(model, video):
    """No picture, one, and many of different sizes with a video."""
    many = [[5, 17], Picture(24, 40), [41, 7], Picture(16, 8), video, [60, 22], Picture(8, 32), [9, 2]]
    return [document(model, [5, 17, 41, 7, 60, 2]), document(model, Picture(40, 16), [3, 88, 2]), document(model, *many)]


def text(**more):
    sections = dict(rope_type="default", rope_theta=1e6, mrope_section=[2, 1, 1])
    sizes = dict(num_hidden_layers=3, intermediate_size=40)
    return TEXT | sizes | dict(rms_norm_eps=1e-6, rope_parameters=sections) | more


def qwen2_vl(folder):
    vision = VISION | dict(depth=3, embed_dim=16, hidden_size=32, num_heads=2, mlp_ratio=2, hidden_act="quick_gelu")
    config = tf.Qwen2VLConfig(text_config=text(), vision_config=vision, **TOKENS)
    model = randomise(tf.Qwen2VLForConditionalGeneration(config), torch.bfloat16)
    write(folder, model, documents(model, Video(6, 16, 16)), shard="60KB", dtype=torch.bfloat16)


def qwen2_5_vl(folder):
    vision = VISION | dict(depth=4, hidden_size=16, intermediate_size=24, num_heads=2, out_hidden_size=32)
    vision |= dict(window_size=16, fullatt_block_indexes=[1, 3], tokens_per_second=3)
    config = tf.Qwen2_5_VLConfig(text_config=text(), vision_config=vision, **TOKENS)
    model = randomise(tf.Qwen2_5_VLForConditionalGeneration(config), torch.bfloat16)
    write(folder, model, documents(model, Video(6, 16, 16, seconds=0.5)), dtype=torch.bfloat16)


def qwen3_vl(folder):
    vision = VISION | dict(depth=4, hidden_size=16, intermediate_size=24, num_heads=2, out_hidden_size=32)
    vision |= dict(num_position_embeddings=16, deepstack_visual_indexes=[0, 3])
    sections = dict(rope_type="default", rope_theta=1e6, mrope_section=[2, 1, 1], mrope_interleaved=True)
    config = tf.Qwen3VLConfig(text_config=text(intermediate_size=24, head_dim=8, num_attention_heads=2, num_key_value_heads=1, rope_parameters=sections), vision_config=vision, **TOKENS)
    model = randomise(tf.Qwen3VLForConditionalGeneration(config), torch.bfloat16)
    write(folder, model, documents(model, Video(4, 16, 16, separate=True)), dtype=torch.bfloat16)


MODELS = {"qwen2-vl": qwen2_vl, "qwen2-5-vl": qwen2_5_vl, "qwen3-vl": qwen3_vl}


def flat(architecture, sizes, vision, **more):
    """The config of a published model of Qwen2-VL or Qwen2.5-VL, whose decoder is described at the top level."""
    names = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size"]
    mrope = dict(type="mrope", mrope_section=[16, 24, 24])
    config = dict(rope_theta=1e6, rope_scaling=mrope, rms_norm_eps=1e-6, vision_config=vision | dict(depth=32, num_heads=16))
    return dict(architectures=[architecture], **dict(zip(names, sizes)), **config, **more)


def second(*sizes, **more):
    vision = dict(embed_dim=1280, mlp_ratio=4, hidden_size=sizes[0])
    return flat("Qwen2VLForConditionalGeneration", sizes, vision, **more)


def second_and_half(inner, *sizes, **more):
    vision = dict(hidden_size=1280, intermediate_size=inner, out_hidden_size=sizes[0], tokens_per_second=2)
    return flat("Qwen2_5_VLForConditionalGeneration", sizes, vision, **more)


def third(vision, *sizes, tied=False):
    names = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
    rope = dict(mrope_interleaved=True, mrope_section=[24, 20, 20], rope_type="default")
    text = dict(zip(names, sizes)) | dict(num_key_value_heads=8, head_dim=128, vocab_size=151936, rope_theta=5e6, rope_scaling=rope)
    vision = vision | dict(num_heads=16, out_hidden_size=sizes[0], num_position_embeddings=2304)
    return dict(
        architectures=["Qwen3VLForConditionalGeneration"], text_config=text, vision_config=vision, tie_word_embeddings=tied
    )


SMALL = dict(depth=24, hidden_size=1024, intermediate_size=4096, deepstack_visual_indexes=[5, 11, 17])
LARGE = dict(depth=27, hidden_size=1152, intermediate_size=4304, deepstack_visual_indexes=[8, 16, 24])
PUBLISHED = {
    "Qwen2-VL-2B": second(1536, 8960, 28, 12, 2, 151936, tie_word_embeddings=True),
    "Qwen2-VL-7B": second(3584, 18944, 28, 28, 4, 152064),
    "Qwen2-VL-72B": second(8192, 29568, 80, 64, 8, 152064),
    "Qwen2.5-VL-3B": second_and_half(3420, 2048, 11008, 36, 16, 2, 151936, tie_word_embeddings=True),
    "Qwen2.5-VL-7B": second_and_half(3420, 3584, 18944, 28, 28, 4, 152064),
    "Qwen2.5-VL-32B": second_and_half(3456, 5120, 27648, 64, 40, 8, 152064),
    "Qwen2.5-VL-72B": second_and_half(3456, 8192, 29568, 80, 64, 8, 152064),
    "Qwen3-VL-2B": third(SMALL, 2048, 6144, 28, 16, tied=True),
    "Qwen3-VL-4B": third(SMALL, 2560, 9728, 36, 32, tied=True),
    "Qwen3-VL-8B": third(LARGE, 4096, 12288, 36, 32),
    "Qwen3-VL-32B": third(LARGE, 5120, 25600, 64, 64),
}
