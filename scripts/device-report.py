#!/usr/bin/env python3
"""Trains small and large models on one device and prints throughput, MFU and the planner's error, as a Markdown table.

    cargo build --release --features cuda
    scripts/device-report.py --device cuda --sheet h200

It takes less than 10 minutes. It calibrates operators first, then profiles, plans and trains every run for a few iterations.
It skips and names the runs for which no time is left. It needs Python 3.9 and nothing else. To try it on a machine without a
GPU, use `--device cpu --small`.
"""

import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

VLM_1B = """
name = "vlm-1b"
sequence_tokens = 2048
max_images = 12
microbatches = 8
parallel = { data = 1, tensor = 1, pipeline = 2 }
[[module]]
name = "vision"
layers = 24
hidden = 1024
ffn = 4096
heads = 16
kind = { vit = { image_px = 224, patch_px = 14, merge = 2 } }
[[module]]
name = "language"
layers = 24
hidden = 1536
ffn = 4096
heads = 12
kv_heads = 4
inputs = ["vision"]
kind = { decoder = { vocab = 32000 } }
"""

T2V_1B = """
name = "t2v-1b"
sequence_tokens = 256
max_clips = 4
microbatches = 8
parallel = { data = 1, tensor = 1, pipeline = 2 }
[[module]]
name = "text"
layers = 12
hidden = 1024
ffn = 2816
heads = 16
kv_heads = 4
kind = { decoder = { vocab = 260, head = false } }
[[module]]
name = "video"
layers = 20
hidden = 1536
ffn = 6144
heads = 12
inputs = ["text"]
kind = { dit = { latent_frames_per_second = 3.0, tokens_per_frame = 192, token_channels = 48 } }
"""

# Name, model, iterations, precision, ranks.
FULL = [
    ("vlm-tiny", "vlm-tiny", 40, "f32", 2),
    ("vlm-1b", VLM_1B, 8, "bf16", 1),
    ("vlm-1b", VLM_1B, 8, "bf16", 2),
    ("t2v-1b", T2V_1B, 8, "bf16", 1),
    ("t2v-1b", T2V_1B, 8, "bf16", 2),
    ("vlm-1b", VLM_1B, 8, "f32", 1),
    ("t2v-tiny", "t2v-tiny", 40, "f32", 2),
]
SMALL = [("vlm-tiny", "vlm-tiny", 6, "f32", 2), ("t2v-tiny", "t2v-tiny", 6, "f32", 1)]


def run_toml(folder, case, device):
    """Writes the run of one case to `folder` and returns its path."""
    name, model, iterations, precision, ranks = case
    if "\n" in model:
        (folder / "model.toml").write_text(model)
        model = str(folder / "model.toml")
    path = folder / "run.toml"
    path.write_text(f"""
name = {json.dumps(name)}
model = {json.dumps(model)}
iterations = {iterations}
output = {json.dumps(str(folder / "out"))}
[pipeline]
device = {json.dumps(device)}
ranks = {ranks}
precision = {json.dumps(precision)}
[optimizer]
learning_rate = 1e-4
[checkpoint]
every = {iterations + 1}
[evaluation]
every = {iterations + 1}
""")
    return path


def figures(metrics):
    """Medians over all iterations except the first quarter, in which kernels are compiled and tuned."""
    records = [json.loads(line) for line in metrics.read_text().splitlines()]
    train = [r["train"] for r in records if "train" in r]
    losses = (train[0]["loss"], train[-1]["loss"])
    train = train[len(train) // 4:]

    def median(field):
        values = [r[field] for r in train if r.get(field) is not None]
        return statistics.median(values) if values else None

    errors = [abs(r["predicted_s"] / r["makespan_s"] - 1) for r in train]
    overhead = [r["makespan_s"] / r["critical_path_s"] - 1 for r in train]
    peak = max(max(r["peak_activation_bytes"]) for r in train)
    return {
        "iteration": median("elapsed_s"),
        "tokens": median("tokens_per_s"),
        "mfu": median("mfu"),
        "error": statistics.mean(errors),
        "overhead": statistics.median(overhead),
        "bubbles": median("bubble_ratio"),
        "peak": peak / 2**30,
        "loss": losses,
    }


def row(case, f):
    name, _, iterations, precision, ranks = case
    share = lambda x: "" if x is None else f"{100 * x:.1f} %"
    tokens = "" if f["tokens"] is None else f"{f['tokens']:,.0f}"
    return (f"| {name} | {precision} | {ranks} | {1e3 * f['iteration']:.1f} | {tokens} | {share(f['mfu'])} "
            f"| {share(f['error'])} | {share(f['overhead'])} | {share(f['bubbles'])} | {f['peak']:.2f} "
            f"| {f['loss'][0]:.3f}, {f['loss'][1]:.3f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dip", default="target/release/dip", help="the `dip` command, built with the feature of the device")
    parser.add_argument("--device", default="cuda", choices=["cuda", "wgpu", "rocm", "cpu"])
    parser.add_argument("--sheet", help="preset or TOML of the device's data sheet; also calibrates operators")
    parser.add_argument("--seconds", type=float, default=570, help="time limit of the whole report (570)")
    parser.add_argument("--small", action="store_true", help="run only the two tiny models")
    parser.add_argument("--out", type=pathlib.Path, help="folder for cluster, profiles and metrics")
    options = parser.parse_args()
    if not pathlib.Path(options.dip).is_file():
        sys.exit(f"{options.dip}: not found; build it with `cargo build --release --features {options.device}`, or name it with --dip")

    end = time.monotonic() + options.seconds
    folder = options.out or pathlib.Path(tempfile.mkdtemp(prefix="dip-report-"))
    folder.mkdir(parents=True, exist_ok=True)
    left = lambda: end - time.monotonic()

    def call(arguments, log):
        """Runs `dip` with its output in the file `log`. Returns False and prints the end of the log if it fails."""
        with open(log, "w") as out:
            try:
                code = subprocess.run([options.dip, *arguments], stdout=out, stderr=subprocess.STDOUT, timeout=max(left(), 1)).returncode
            except subprocess.TimeoutExpired:
                code = "no exit: out of time"
        if code == 0:
            return True
        print(f"`{' '.join(map(str, arguments))}` failed ({code}):", *log.read_text().splitlines()[-5:], sep="\n  ")
        return False

    if shutil.which("nvidia-smi") and options.device == "cuda":
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        print(subprocess.run(query, capture_output=True, text=True).stdout.strip())
    if options.sheet or options.device == "cpu":
        sheet = ["--sheet", options.sheet] if options.sheet else []
        kind = ["calibrate", "--device", options.device, *sheet, "--quick", "--out", folder / "cluster.toml"]
        if call([str(a) for a in kind], folder / "calibrate.txt"):
            print((folder / "calibrate.txt").read_text())

    print("| model | precision | ranks | ms per iteration | tokens/s | MFU | planner's error | runtime overhead | bubbles "
          "| peak activations, GiB | loss, first and last |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    failed = []
    for i, case in enumerate(SMALL if options.small else FULL):
        if left() < 20:
            failed.append(f"{case[0]} ({case[3]}, {case[4]} ranks): no time left")
            continue
        home = folder / f"{i}-{case[0]}"
        home.mkdir(exist_ok=True)
        if call(["train", str(run_toml(home, case, options.device)), "--restart"], home / "log.txt"):
            print(row(case, figures(home / "out" / "metrics.jsonl")), flush=True)
        else:
            failed.append(f"{case[0]} ({case[3]}, {case[4]} ranks): {home / 'log.txt'}")
    for line in failed:
        print("skipped:", line)
    print("logs, profiles and metrics are in", folder)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
