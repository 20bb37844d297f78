#!/usr/bin/env python3
"""Everything that is worth measuring on a GPU, in one call of at most 9 minutes, most valuable first.

    scripts/device-report.py --pack device-report         # where there is no GPU: builds and packs dip and its GPU tests
    scripts/device-report.py --use device-report          # on the machine with the GPU
    scripts/device-report.py --device cpu --small         # tries it without a GPU

Every section writes its figures to the folder --out as JSON as soon as it ends; report.json and report.md have all of them. A
second call with the same --out leaves out the sections that are done. A section that fails, or for which no time is left, is
named, and the others go on. It needs Python 3.9; the comparison with PyTorch needs torch.
"""

import argparse
import json
import lzma
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
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
MODELS = {"vlm-1b": VLM_1B, "t2v-1b": T2V_1B}
# Largest difference of a loss from the CPU's, as a share of it. CUDA multiplies f32 in TF32.
LOSS_TOLERANCE = {"cuda": 5e-3, "rocm": 1e-3, "wgpu": 1e-4, "cpu": 1e-6}
LEAST_SECONDS = 5


class Failed(Exception):
    """A section that cannot give its figures."""


class Report:
    """The options of the report, its time, and the figures so far."""

    def __init__(self, options):
        self.options = options
        self.end = time.monotonic() + options.seconds
        self.out = options.out
        self.out.mkdir(parents=True, exist_ok=True)

    def left(self):
        return self.end - time.monotonic()

    def call(self, command, log, seconds):
        """Runs a command with its output in the file `log`. Returns the output."""
        limit = min(seconds, self.left())
        if limit < LEAST_SECONDS:
            raise Failed("no time left")
        log = self.out / log
        with open(log, "w") as out:
            try:
                done = subprocess.run([str(c) for c in command], stdout=out, stderr=subprocess.STDOUT, timeout=limit)
                code = done.returncode
            except subprocess.TimeoutExpired:
                code = f"no exit within {limit:.0f} s"
            except OSError as error:
                raise Failed(str(error)) from error
        text = log.read_text(errors="replace")
        if code != 0:
            raise Failed(f"{' '.join(map(str, command))}: {code}; {log}: " + " / ".join(text.splitlines()[-3:]))
        return text

    def train(self, name, run, seconds):
        """Trains a run, and returns the records of its iterations and the lines that it prints."""
        home = self.out / name
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        model = run["model"]
        if model in MODELS:
            (home / "model.toml").write_text(MODELS[model])
            model = str(home / "model.toml")
        pipeline = "\n".join(f"{key} = {json.dumps(value)}" for key, value in run["pipeline"].items())
        (home / "run.toml").write_text(
            f"""name = {json.dumps(name)}
model = {json.dumps(model)}
iterations = {run["iterations"]}
output = {json.dumps(str(home / "out"))}
[pipeline]
{pipeline}
kernel_folder = {json.dumps(str(self.out / "kernels"))}
[optimizer]
learning_rate = 1e-4
[checkpoint]
every = 0
[evaluation]
every = 0
pictures = 1
captions = 0
clips = 1
samples = 0
"""
        )
        command = [self.options.dip, "train", home / "run.toml", "--restart"]
        text = self.call(command, f"{name}/log.txt", seconds)
        lines = (home / "out" / "metrics.jsonl").read_text().splitlines()
        records = [r["train"] for r in map(json.loads, lines) if "train" in r]
        if not records:
            raise Failed(f"{name}: no iteration was reported")
        return records, text


def median(values):
    values = [v for v in values if v is not None]
    return statistics.median(values) if values else None


def figures(records, text):
    """Medians over all iterations but the first quarter, in which kernels are compiled."""
    late = records[len(records) // 4 :]
    timed = [r for r in late if r["timed"]]
    free = [r for r in late if not r["timed"]] or late
    memory = [line for line in text.splitlines() if line.startswith("memory ")]
    return {
        "iteration_s": median(r["elapsed_s"] for r in free),
        "timed_iteration_s": median(r["elapsed_s"] for r in timed),
        "tokens_per_s": median(r["tokens_per_s"] for r in free),
        "mfu": median(r.get("mfu") for r in free),
        "prediction_error": median(abs(r["predicted_s"] / r["makespan_s"] - 1) for r in timed),
        "runtime_overhead": median(r["makespan_s"] / r["critical_path_s"] - 1 for r in timed),
        "bubble_ratio": median(r["bubble_ratio"] for r in timed),
        "peak_activation_gib": max(max(r["peak_activation_bytes"]) for r in records) / 2**30,
        "peak_gib": max(max(r["peak_bytes"]) for r in records) / 2**30,
        "memory": memory[-1] if memory else None,
        "kernels": next((l for l in text.splitlines() if l.startswith("kernels:")), None),
        "losses": [records[0]["loss"], records[-1]["loss"]],
    }


def run_of(report, model, iterations, **pipeline):
    settings = {"device": report.options.device, "ranks": 1, "timed_every": 2, "window": 1, **pipeline}
    return {"model": model, "iterations": iterations, "pipeline": settings}


def device_facts(report):
    facts = {"cores": os.cpu_count(), "device": report.options.device}
    if report.options.device == "cuda":
        fields = "name,driver_version,memory.total,clocks.max.sm,power.limit,compute_cap"
        query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
        lines = report.call(query, "nvidia-smi.txt", 20).strip().splitlines()
        facts["gpus"] = [dict(zip(fields.split(","), map(str.strip, line.split(",")))) for line in lines]
    facts["dip_bytes"] = pathlib.Path(report.options.dip).stat().st_size
    return facts


def gpu_tests(report):
    if not report.options.tests:
        raise Failed("no test binary: --tests, or pack one with --pack")
    name = f"gpu::{report.options.device}"
    command = [report.options.tests, "--ignored", name, "--test-threads", "1"]
    text = report.call(command, "tests.txt", 120)
    results = [line for line in text.splitlines() if line.startswith("test ")]
    if not any(line.endswith("ok") for line in results):
        raise Failed("no test ran")
    return {"tests": results}


def losses(report):
    """The losses of both tiny models, iteration by iteration, on the device and on the CPU."""
    figures = {}
    tolerance = LOSS_TOLERANCE[report.options.device]
    for model in ["vlm-tiny", "t2v-tiny"]:
        found = {}
        for device in ["cpu", report.options.device]:
            run = run_of(report, model, 6, device=device, ranks=2, partition="rule", search_iterations=1)
            records, _ = report.train(f"losses-{model}-{device}", run, 90)
            found[device] = [r["loss"] for r in records]
        pairs = zip(found["cpu"], found[report.options.device])
        error = max(abs(a / b - 1) for a, b in pairs)
        figures[model] = {"losses": found, "largest_difference": error, "equal": error <= tolerance}
    if not all(f["equal"] for f in figures.values()):
        figures["warning"] = f"losses differ by more than {tolerance}"
    return figures


def step(model, **pipeline):
    def section(report):
        small = report.options.small
        name, iterations = (model.replace("-1b", "-tiny"), 6) if small else (model, 12)
        settings = {**pipeline, **({"precision": "f32"} if small else {})}
        ranks = settings.get("ranks", 1)
        limited = "-limit" if "memory_limit_bytes" in settings else ""
        if limited and small:
            settings["memory_limit_bytes"] = 60_000_000
        precision = settings.get("precision", "f32")
        run = run_of(report, name, iterations, **settings)
        return figures(*report.train(f"{name}-{precision}-{ranks}{limited}", run, 110))

    return section


def kernel_table(report):
    if not report.options.kernels:
        raise Failed("no `kernels` binary: --kernels, or pack one with --pack")
    command = [report.options.kernels, report.options.device, *(["--small"] if report.options.small else [])]
    text = report.call(command, "kernels.jsonl", 60)
    return {"kernels": [json.loads(line) for line in text.splitlines() if line.startswith("{")]}


def calibration(report):
    device, sheet = report.options.device, report.options.sheet
    if device == "wgpu":
        raise Failed("dip calibrate measures CPUs and CUDA devices")
    command = [report.options.dip, "calibrate", "--device", device, "--quick", "--out", report.out / "cluster.toml"]
    command += ["--sheet", sheet] if sheet else []
    return {"text": report.call(command, "calibrate.txt", 90).splitlines()}


def pytorch(report):
    command = [sys.executable, HERE / "device_torch.py", "--device", report.options.device]
    command += ["--small"] if report.options.small else []
    text = report.call(command, "torch.jsonl", 150)
    return {"runs": [json.loads(line) for line in text.splitlines() if line.startswith("{")]}


# The most valuable first.
SECTIONS = [
    ("device", device_facts),
    ("tests", gpu_tests),
    ("losses", losses),
    ("vlm-1b", step("vlm-1b", precision="bf16")),
    ("t2v-1b", step("t2v-1b", precision="bf16")),
    ("torch", pytorch),
    ("vlm-1b-two-ranks", step("vlm-1b", precision="bf16", ranks=2)),
    ("vlm-1b-limit", step("vlm-1b", precision="bf16", memory_limit_bytes=24_000_000_000)),
    ("kernels", kernel_table),
    ("calibration", calibration),
    ("t2v-1b-two-ranks", step("t2v-1b", precision="bf16", ranks=2)),
]


def lines_of(value, depth=0):
    """A section as nested Markdown lists."""
    indent = "  " * depth
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, (dict, list)):
                yield f"{indent}- {key}:"
                yield from lines_of(inner, depth + 1)
            else:
                yield f"{indent}- {key}: {shown(inner)}"
    else:
        for inner in value:
            if isinstance(inner, dict):
                yield f"{indent}- " + ", ".join(f"{key} {shown(x)}" for key, x in inner.items())
            else:
                yield f"{indent}- {shown(inner)}"


def shown(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def assemble(report):
    """Writes report.json and report.md from the files of the sections."""
    done = {}
    for name, _ in SECTIONS:
        path = report.out / f"section-{name}.json"
        if path.is_file():
            done[name] = json.loads(path.read_text())
    (report.out / "report.json").write_text(json.dumps(done, indent=1))
    text = ["# Report of a device"]
    for name, section in done.items():
        text += ["", f"## {name} ({section['seconds']:.0f} s)", ""]
        text += list(lines_of(section.get("figures") or {"failed": section["failed"]}))
    (report.out / "report.md").write_text("\n".join(text) + "\n")


def run_sections(report):
    """Runs the sections that are not done. Returns the names of those that gave no figures."""
    failed = []
    for name, section in SECTIONS:
        path = report.out / f"section-{name}.json"
        if path.is_file() and "figures" in json.loads(path.read_text()):
            print(f"{name}: done before")
            continue
        if report.options.only and name not in report.options.only:
            continue
        start = time.monotonic()
        try:
            result = {"figures": section(report)}
        except (Failed, OSError, KeyError, ValueError, ZeroDivisionError) as error:
            result = {"failed": f"{type(error).__name__}: {error}"}
            failed.append(name)
        result["seconds"] = time.monotonic() - start
        path.write_text(json.dumps(result))
        print(f"{name}: {result.get('failed', 'done')} ({result['seconds']:.0f} s)", flush=True)
        assemble(report)
    return failed


def pack(folder):
    """Builds dip, its GPU tests and the kernel table, and packs them for a machine without a compiler."""
    root = HERE.parent
    folder.mkdir(parents=True, exist_ok=True)
    features = ["--release", "--features", "cuda,wgpu"]
    subprocess.run(["cargo", "build", *features, "--bin", "dip", "--example", "kernels"], cwd=root, check=True)
    tests = ["cargo", "test", *features, "-p", "dip-burn", "--test", "main", "--no-run", "--message-format", "json"]
    text = subprocess.run(tests, cwd=root, check=True, capture_output=True, text=True).stdout
    built = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", root / "target")) / "release"
    test = next(b["executable"] for b in built if b.get("executable") and b["target"]["name"] == "main")
    for source, name in [(target / "dip", "dip"), (target / "examples" / "kernels", "kernels"), (test, "tests")]:
        data = lzma.compress(pathlib.Path(source).read_bytes(), preset=6)
        (folder / f"{name}.xz").write_bytes(data)
        print(f"{name}: {pathlib.Path(source).stat().st_size / 2**20:.1f} MiB, packed {len(data) / 2**20:.1f} MiB")


def unpack(folder, options):
    """Sets the paths of the packed programs."""
    for name in ["dip", "tests", "kernels"]:
        packed, path = folder / f"{name}.xz", options.out / name
        if not path.is_file():
            options.out.mkdir(parents=True, exist_ok=True)
            path.write_bytes(lzma.decompress(packed.read_bytes()))
            path.chmod(0o755)
        setattr(options, name, str(path))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "wgpu", "rocm", "cpu"])
    parser.add_argument("--dip", default="target/release/dip", help="the `dip` command, built with the feature of the device")
    parser.add_argument("--tests", help="the test binary of dip-burn, built with the features cuda,wgpu")
    parser.add_argument("--kernels", help="the example `kernels`")
    parser.add_argument("--sheet", help="preset or TOML of the device's data sheet, for the calibration: h100, h200")
    parser.add_argument("--seconds", type=float, default=530, help="time limit of the call (530)")
    parser.add_argument("--small", action="store_true", help="tiny models and kernels")
    parser.add_argument("--only", nargs="*", help="these sections: " + ", ".join(name for name, _ in SECTIONS))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("device-report-out"), help="folder of the figures")
    parser.add_argument("--pack", type=pathlib.Path, metavar="FOLDER", help="build and pack the programs, and end")
    parser.add_argument("--use", type=pathlib.Path, metavar="FOLDER", help="use packed programs")
    options = parser.parse_args()
    if options.pack:
        return pack(options.pack)
    if options.use:
        unpack(options.use, options)
    if not pathlib.Path(options.dip).is_file():
        sys.exit(f"{options.dip}: not found; build it with `cargo build --release --features {options.device}`, or name it with --dip")
    failed = run_sections(Report(options))
    print("figures are in", options.out / "report.md")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
