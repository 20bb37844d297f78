"""Checks the JSON Schemas of `dip schema`: what the repository holds and what dip writes is valid, what dip refuses is not.

    python3 scripts/schema_test.py path/to/dip

Needs jsonschema (on Debian, python3-jsonschema) and Python 3.11.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import tomllib

import jsonschema

ROOT = pathlib.Path(__file__).resolve().parent.parent
DIP = str(pathlib.Path(sys.argv[1]).resolve())
FOLDER = tempfile.TemporaryDirectory()


def dip(*arguments):
    """Standard output of a command that must succeed."""
    done = subprocess.run([DIP, *arguments], cwd=FOLDER.name, check=True, capture_output=True, text=True)
    return done.stdout


def schema(name):
    found = json.loads(dip("schema", name))
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


def valid(name, value, what):
    errors = [f"{list(e.absolute_path)}: {e.message}" for e in schema(name).iter_errors(value)]
    assert not errors, f"{what} is no {name}: {errors[:3]}"


def refused(name, value, what):
    assert not schema(name).is_valid(value), f"{what} is a valid {name}"


def file(name):
    return pathlib.Path(FOLDER.name, name)


def specifications():
    presets = json.loads(dip("presets", "--json"))
    for kind in ["model", "cluster"]:
        for preset in presets[kind + "s"]:
            valid(kind, tomllib.loads(dip("presets", "--show", preset["name"])), preset["name"])
    text = dip("presets", "--show", "vlm-s")
    refused("model", tomllib.loads(text.replace("sequence_tokens", "sequence_token")), "a mistyped field")
    refused("model", tomllib.loads(text.replace("layers = ", "layers = -", 1)), "a negative number of layers")
    refused("cluster", tomllib.loads(text), "a model")
    for path in [*ROOT.glob("examples/*.toml"), *ROOT.glob("examples/fine-tune/*.toml")]:
        valid("run", tomllib.loads(path.read_text()), path)
    run = (ROOT / "examples/vlm-tiny.toml").read_text()
    refused("run", tomllib.loads(run + "\n[metric]\ntensorboard = true\n"), "a mistyped table")
    refused("run", tomllib.loads("name = 'a'\nmodel = 'b'\noutput = 'c'\n"), "a run without a length")


def plans():
    lines = [line for path in (ROOT / "tests/goldens/batches").iterdir() for line in path.read_text().splitlines()]
    lines.append('{"images":[{"patches":16,"tokens":4}],"clips":[{"seconds":4.0,"caption_tokens":60}]}')
    for line in lines:
        valid("batch", json.loads(line), line)
    refused("batch", {"image": 3}, "a mistyped field")
    dip("plan", "--model", "vlm-s", "--iterations-budget", "1", "--out", "plan.json", "--graph-out", "graph.json", "--window", "3")
    for name in ["plan", "graph"]:
        valid(name, json.loads(file(f"{name}.json").read_text()), name)
    budget = ["--iterations-budget", "1"]
    for command in [
        ["plan", "--model", "vlm-s", *budget],
        ["check", "plan.json"],
        ["emulate", "plan.json", "--noise", "0.1", "--samples", "3"],
        ["explain", "plan.json", *budget],
        ["tune", "--model", "t2v-s", "--devices", "8", "--microbatches", "16", "--keep", "1", *budget],
        ["compare", "--models", "vlm-tiny", "--schedules", "1f1b", "--iterations", "1", *budget],
        ["sample", "--model", "vlm-s", "--out", "sample.jsonl"],
        ["presets"],
        ["doctor"],
    ]:
        document = json.loads(dip(*command, "--json"))
        valid(document["schema"], document, command)


def training():
    run = (ROOT / "examples/vlm-tiny.toml").read_text()
    file("run.toml").write_text(run)
    short = ["train", "run.toml", "--iterations", "3", "--output", "out", "--restart"]
    document = json.loads(dip(*short, "--trace", "1", "--json"))
    valid(document["schema"], document, "the summary")
    for line in file("out/metrics.jsonl").read_text().splitlines():
        valid("metrics", json.loads(line), line)
    valid("trace", json.loads(file("out/traces/1.jsonl").read_text().splitlines()[1]), "the trace")
    valid("profile", json.loads(file("out/profile.json").read_text()), "the profile")
    shown = dip("train", "run.toml", "--show-defaults")
    valid("run", tomllib.loads(shown), "a run with all settings")


def reference():
    """docs/reference.md is what the types say."""
    names = {"Run": "run", "Model": "model", "Cluster": "cluster", "Batch metadata": "batch"}
    parts = [f"## {title}\n\n{dip('schema', name, '--markdown')}" for title, name in names.items()]
    text = (
        "# Reference: every field of runs, models, clusters and batches\n\n"
        "`dip schema NAME --markdown` prints these tables, and `dip schema NAME` the JSON Schema for editors.\n\n"
        + "".join(parts).rstrip() + "\n"
    )
    path = ROOT / "docs/reference.md"
    if "--write" in sys.argv:
        path.write_text(text)
    assert path.read_text() == text, "docs/reference.md is old; write it anew with --write"


for check in [specifications, plans, training, reference]:
    check()
    print(f"{check.__name__}: as it should be")
