"""Drawn sounds in files of several formats, their samples, and the features that transformers makes of sounds.

`python3 -m hf_fixtures.sounds OUT`
"""

import sys
from pathlib import Path

import librosa
import numpy as np
import soundfile
import torch
from safetensors.torch import save_file
from transformers import WhisperFeatureExtractor

# Name, sample rate, samples, channels, libsndfile's sample format.
FILES = [
    ("mono16.wav", 16000, 2000, 1, "PCM_16"),
    ("stereo24.wav", 44100, 3000, 2, "PCM_24"),
    ("byte.wav", 22050, 3000, 1, "PCM_U8"),
    ("float.wav", 8000, 2000, 1, "FLOAT"),
    ("stereo.flac", 48000, 6000, 2, "PCM_16"),
    ("mono.ogg", 32000, 8000, 1, "VORBIS"),
    ("mono.mp3", 16000, 8000, 1, "MPEG_LAYER_III"),
]
# Samples of sounds at 16 kHz, and the first, last and middle mel frames that are kept of the longest.
LENGTHS = [8000, 1970, 50, 480000]
KEPT = 6


def drawn(length, channel=0):
    """A sweep over a quiet rattle; tests draw the same."""
    n = np.arange(length, dtype=np.int64)
    rattle = (n * 7919 + channel * 31) % 1000 / 500 - 1
    return 0.4 * np.sin(0.1 * n + 3e-6 * n * n + channel) + 0.1 * rattle


def features(samples, bands):
    """The features of transformers in double precision: [frames, bands], with the number of frames of the sound."""
    extractor = WhisperFeatureExtractor(feature_size=bands)
    out = extractor(samples.astype(np.float32), sampling_rate=16000, return_attention_mask=True, return_tensors="np")
    padded = np.zeros(480000, dtype=np.float32)
    padded[: len(samples)] = samples
    exact = extractor._np_extract_fbank_features(padded[None], "cpu")[0]
    worst = np.abs(exact - out["input_features"][0]).max()
    print(f"{len(samples)} samples, {bands} bands: single precision differs by {worst:.1e}")
    return exact.T, int(out["attention_mask"].sum())


def main(out):
    out.mkdir(parents=True, exist_ok=True)
    expected = {}
    for name, rate, length, channels, subtype in FILES:
        x = np.stack([drawn(length, c) for c in range(channels)], 1)
        soundfile.write(out / name, x, rate, subtype=subtype)
        samples, _ = soundfile.read(out / name, dtype="float32")
        mono = samples if samples.ndim == 1 else samples.mean(1)
        at_model_rate = librosa.resample(mono, orig_sr=rate, target_sr=16000, res_type="soxr_vhq")
        expected[f"{name}.samples"] = torch.tensor(at_model_rate)
    for length in LENGTHS:
        for bands in (80, 128):
            values, frames = features(drawn(length), bands)
            rows = min(2 * ((frames + 1) // 2) + 1, 3000)
            middle = rows // 2 - KEPT // 2
            chosen = range(rows) if rows <= 3 * KEPT else [*range(KEPT), *range(middle, middle + KEPT), *range(rows - KEPT, rows)]
            expected[f"mel.{length}.{bands}"] = torch.tensor(values[list(chosen)], dtype=torch.float32)
            expected[f"rows.{length}.{bands}"] = torch.tensor([float(r) for r in chosen])
            expected[f"frames.{length}"] = torch.tensor([float(frames)])
    save_file(expected, out / "expected.safetensors")
    print(sum(f.stat().st_size for f in out.iterdir()), "bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
