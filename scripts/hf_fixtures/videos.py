"""The frames that the video processor of Qwen2-VL chooses, and their pixels.

Writes `expected.safetensors` with, for video NAME that the test draws by the same formula, grid.NAME [3], seconds.NAME [1], the
seconds of a patch of frames, and pixels.NAME, evenly spread values of all patches.
"""

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import Qwen2VLVideoProcessor
from transformers.video_utils import VideoMetadata

# Frames, frames per second, width and height.
VIDEOS = {"short": (9, 24.0, 50, 40), "long": (40, 10.0, 61, 37), "odd": (35, 10.0, 30, 70), "few": (3, 25.0, 33, 33)}
SAMPLES = 1500
PUBLISHED = {}


def drawn(frames, width, height):
    """The frames that the test draws, too."""
    t, y, x = np.mgrid[0:frames, 0:height, 0:width]
    colours = [((7 * x + 3 * y + 50 * c + 11 * t) ^ (x * y >> (3 + c))) & 255 for c in range(3)]
    return torch.from_numpy(np.stack(colours, 1).astype(np.uint8))


def videos(folder):
    folder.mkdir(parents=True, exist_ok=True)
    size = dict(shortest_edge=28 * 28 * 2, longest_edge=28 * 28 * 6)
    plain = Qwen2VLVideoProcessor(size=size, do_sample_frames=True, fps=2)
    # Other frames, fewer in all, and smaller ones in long videos.
    other = dict(fps=4, min_frames=6, max_frames=12, cap_pixels_per_frame=True, max_video_tokens=20)
    other = Qwen2VLVideoProcessor(size=size, do_sample_frames=True, **other)
    expected = {}
    write(expected, "", plain)
    write(expected, "other-", other)
    save_file(expected, folder / "expected.safetensors")


def write(expected, start, processor):
    """Adds what a processor makes of all videos."""
    for name, (frames, rate, width, height) in VIDEOS.items():
        metadata = VideoMetadata(total_num_frames=frames, fps=rate, duration=frames / rate, height=height, width=width)
        out = processor(
            videos=[drawn(frames, width, height)], video_metadata=[metadata], return_metadata=True, return_tensors="pt"
        )
        patches = out["pixel_values_videos"].flatten()
        places = [i * len(patches) // SAMPLES for i in range(SAMPLES)]
        name = start + name
        expected[f"pixels.{name}"] = patches[places].contiguous()
        expected[f"grid.{name}"] = out["video_grid_thw"][0].float()
        expected[f"seconds.{name}"] = torch.tensor([2 / out["video_metadata"][0].sampled_fps])
        print(name, out["video_grid_thw"].tolist(), out["video_metadata"][0].frames_indices, expected[f"seconds.{name}"].item())


MODELS = {"videos": videos}
