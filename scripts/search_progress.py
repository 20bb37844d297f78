#!/usr/bin/env python3
"""Measures the gap between each search and the proven bound at several budgets.

    cargo build --release --no-default-features --features cli
    python3 scripts/search_progress.py target/release/dip [seed of the batch] [budgets, comma-separated]

Prints a Markdown table with one row per model and search, and one column per budget. All searches plan the same task graphs.
"""

import pathlib
import re
import subprocess
import sys
import tempfile

MODELS = ["vlm-s", "vlm-m", "vlm-l", "t2v-s", "t2v-l"]
SEARCHES = ["dip", "dip-mcts", "dip-random", "dip-dfs"]


def plan(dip, *arguments):
    command = [dip, "plan", "--threads", "2", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def gap(text):
    """The gap in the output of `dip plan`, in percent."""
    return float(re.search(r"gap ([\d.]+) %", text)[1])


def main():
    dip = sys.argv[1] if len(sys.argv) > 1 else "target/release/dip"
    seed = sys.argv[2] if len(sys.argv) > 2 else "0"
    budgets = (sys.argv[3] if len(sys.argv) > 3 else "0.25,0.5,1,2,5,10").split(",")
    print("| model | search |", " | ".join(f"{b} s" for b in budgets), "|")
    print("|---|---|", "---|" * len(budgets), sep="")
    with tempfile.TemporaryDirectory() as folder:
        for model in MODELS:
            graph = str(pathlib.Path(folder) / f"{model}.json")
            plan(dip, "--model", model, "--seed", seed, "--budget", "1ms", "--graph-out", graph)
            for search in SEARCHES:
                gaps = []
                for budget in budgets:
                    out = plan(dip, "--graph", graph, "--schedule", search, "--budget", f"{budget}s")
                    gaps.append(f"{gap(out):.2f}")
                print(f"| {model} | {search} |", " | ".join(gaps), "|", flush=True)


if __name__ == "__main__":
    main()
