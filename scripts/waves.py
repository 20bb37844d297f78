#!/usr/bin/env python3
"""Compares the search with schedules made by hand, on chains of two chunks per rank within the memory of those schedules.

    cargo build --release --no-default-features --features cli
    python3 scripts/waves.py target/release/dip --ranks 4,6,8,16 --budget 2s
    python3 scripts/waves.py target/release/dip --ranks 8 --stages 0.3 --microbatches 0.3 --loop

A microbatch takes 1,000 s forward, 1,200 s backward and 800 s for weight gradients on every rank, over both chunks; a transfer takes
50 s. `--stages` and `--microbatches` draw log-normal factors with this deviation for stages and for microbatches. Prints a Markdown
table with one row per number of microbatches and per memory: that of ZB-V (p microbatches), of V-Half ((p + 2) / 2) and of V-Min
((p + 4) / 3, rounded up). The best of `zbv`, `v_half`, `v_min` and `dualpipe_v` within the same memory is the plan made by hand.
"""

import argparse
import json
import math
import pathlib
import random
import subprocess
import tempfile

SECONDS = {"forward": 1000.0, "backward": 1200.0, "weight": 800.0}
TRANSFER_S = 50.0
PAIR_BYTES = 1000
BY_HAND = ["zbv", "v_half", "v_min", "dualpipe_v"]


def chain(options, ranks, microbatches, memory):
    """A dip.graph/v1 of two chunks per rank, with memory for this many microbatches."""
    draw = random.Random(options.seed)
    stages = [draw.lognormvariate(0, options.stages) for _ in range(2 * ranks)]
    loads = [draw.lognormvariate(0, options.microbatches) for _ in range(microbatches)]
    rank = [c % ranks if options.loop or c < ranks else 2 * ranks - 1 - c for c in range(2 * ranks)]
    tasks = []

    def add(kind, chunk, microbatch, deps):
        tasks.append({
            "id": len(tasks), "rank": rank[chunk], "kind": kind, "module": "chain", "segment": chunk // ranks, "microbatch": microbatch,
            "sub_microbatch": 0, "strategy": "keep", "duration_s": SECONDS[kind] / 2 * stages[chunk] * loads[microbatch],
            "activation_bytes": PAIR_BYTES if kind == "forward" else 0,
            "deps": [{"task": t, "comm_s": 0.0 if tasks[t]["rank"] == rank[chunk] else TRANSFER_S} for t in deps],
        })
        return len(tasks) - 1

    for m in range(microbatches):
        forward = []
        for chunk in range(2 * ranks):
            forward.append(add("forward", chunk, m, forward[-1:]))
        backward = []
        for chunk in reversed(range(2 * ranks)):
            backward.append(add("backward", chunk, m, [forward[chunk]] + backward[-1:]))
            add("weight", chunk, m, backward[-1:])
    return {"schema": "dip.graph/v1", "model": "chain", "cluster": "none", "ranks": ranks, "tasks": tasks,
            "memory_limit_bytes": [round(2 * memory * PAIR_BYTES)] * ranks, "static_bytes": [0] * ranks}


def planned(dip, path, schedule, budget):
    """Makespan and bound in seconds; None if the schedule does not apply."""
    out = path.with_suffix(".plan.json")
    command = [dip, "plan", "--graph", str(path), "--schedule", schedule, "--budget", budget, "--threads", "1", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    if "does not apply" in done.stderr:
        return None
    done.check_returncode()
    plan = json.loads(out.read_text())
    return plan["predicted"]["makespan_s"], plan["lower_bound_s"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dip")
    parser.add_argument("--ranks", default="4,6,8,16")
    parser.add_argument("--times", default="1,2,8", help="microbatches, as multiples of the ranks")
    parser.add_argument("--budget", default="2s")
    parser.add_argument("--stages", type=float, default=0.0)
    parser.add_argument("--microbatches", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--loop", action="store_true", help="both chunks run from the first rank to the last")
    options = parser.parse_args()
    print("| ranks | microbatches | memory | dip, s | bound, s | by hand, s | dip / by hand |")
    print("|---|---|---|---|---|---|---|")
    longer = 0
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "graph.json"
        for ranks in map(int, options.ranks.split(",")):
            for microbatches in (ranks * int(times) for times in options.times.split(",")):
                for name, memory in [("p", ranks), ("(p+2)/2", (ranks + 2) / 2), ("(p+4)/3", math.ceil((ranks + 4) / 3))]:
                    path.write_text(json.dumps(chain(options, ranks, microbatches, memory)))
                    ours, bound = planned(options.dip, path, "dip", options.budget)
                    plans = [planned(options.dip, path, schedule, options.budget) for schedule in BY_HAND]
                    by_hand = min((p[0] for p in plans if p), default=None)
                    longer += by_hand is not None and ours > by_hand
                    hand = f"{by_hand:.0f} | {ours / by_hand:.3f}" if by_hand else "- | -"
                    print(f"| {ranks} | {microbatches} | {name} | {ours:.0f} | {bound:.0f} | {hand} |", flush=True)
    print(f"\n{longer} plans are longer than those made by hand.")


if __name__ == "__main__":
    main()
