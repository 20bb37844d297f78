#!/usr/bin/env python3
"""Compares short searches with proven optima of CP-SAT, on small random graphs of uneven modules.

    pip install ortools
    cargo build --release --no-default-features --features cli
    python3 scripts/optimality.py target/release/dip --graphs 60 --budget 900ms

Graphs have 2 to 4 ranks, 2 to 6 microbatches, up to two encoders, and a backbone of one or two segments. Some have split weight
gradients, some have several memory strategies, and memory ranges from unlimited to the need of one microbatch. The script prints
one line per graph, then the mean and the worst distance from the proven optima.
"""

import argparse
import json
import pathlib
import random
import subprocess
import tempfile


def random_graph(seed):
    """A random dip.graph/v1 in whole milliseconds."""
    draw = random.Random(seed)
    ranks, microbatches = draw.randint(2, 4), draw.randint(2, 6)
    encoders, segments = draw.randint(0, 2), draw.randint(1, 2)
    split, choices, comm = draw.random() < 0.5, draw.random() < 0.3, draw.randint(0, 2)
    modules = [(f"encoder{i}", 1) for i in range(encoders)] + [("backbone", segments)]
    cost = {(n, s, r): draw.randint(2, 20) for n, k in modules for s in range(k) for r in range(ranks)}
    tasks = []

    def add(rank, kind, module, segment, microbatch, seconds, held, deps):
        tasks.append({
            "id": len(tasks), "rank": rank, "kind": kind, "module": module, "segment": segment, "microbatch": microbatch,
            "sub_microbatch": 0, "strategy": "keep", "duration_s": seconds * 1e-3, "activation_bytes": held,
            "deps": [{"task": t, "comm_s": c * 1e-3} for t, c in deps],
        })
        return len(tasks) - 1

    for m in range(microbatches):
        path = {n: [(s, r) for s in range(k) for r in range(ranks)] for n, k in modules}
        load = {n: draw.lognormvariate(0, 0.6) for n, _ in modules}
        forward, outputs = {}, []
        for n, _ in modules:
            before = outputs if n == "backbone" else []
            for s, r in path[n]:
                seconds = max(1, round(cost[n, s, r] * load[n]))
                held = draw.randint(1, 9)
                at = add(r, "forward", n, s, m, seconds, held, [(t, comm) for t in before])
                if choices:
                    tasks[at]["candidates"] = [
                        {"strategy": "keep", "forward_s": seconds * 1e-3, "backward_s": 2 * seconds * 1e-3, "activation_bytes": held},
                        {"strategy": "full", "forward_s": seconds * 1e-3, "backward_s": 3 * seconds * 1e-3,
                         "activation_bytes": max(1, held // 4)},
                    ]
                forward[n, s, r], before = (at, seconds), [at]
            if n != "backbone":
                outputs.append(before[0])
        for n, _ in reversed(modules):
            previous = last if n != "backbone" else None
            for s, r in reversed(path[n]):
                at, seconds = forward[n, s, r]
                took = seconds if split else 2 * seconds
                if choices:
                    took = 2 * seconds
                deps = [(at, 0)] + ([(previous, comm)] if previous is not None else [])
                previous = add(r, "backward", n, s, m, took, 0, deps)
                if split:
                    add(r, "weight", n, s, m, seconds, 0, [(previous, 0)])
            if n == "backbone":
                last = previous
    held = [[sum(t["activation_bytes"] for t in tasks if (t["rank"], t["microbatch"]) == (r, m)) for m in range(microbatches)]
            for r in range(ranks)]
    share = draw.choice([None, 2.0, 1.5, 1.0])
    limit = [sum(of) if share is None else round(share * max(of)) for of in held]
    return {"schema": "dip.graph/v1", "model": "random", "cluster": "none", "ranks": ranks, "tasks": tasks,
            "memory_limit_bytes": limit, "static_bytes": [0] * ranks}


def ms(seconds):
    return round(seconds * 1e3)


def interval(model, start, stop, horizon):
    return model.new_interval_var(start, model.new_int_var(0, horizon, ""), stop, "")


def optimum(graph, timeout):
    """Returns the best makespan in ms, or None, and True if it is proven optimal."""
    from ortools.sat.python import cp_model
    model, tasks = cp_model.CpModel(), graph["tasks"]
    horizon = sum(3 * ms(t["duration_s"]) for t in tasks)
    start = [model.new_int_var(0, horizon, "") for _ in tasks]
    stop = [model.new_int_var(0, horizon, "") for _ in tasks]
    end = model.new_int_var(0, horizon, "")
    parts = {}
    for t in tasks:
        parts.setdefault((t["rank"], t["module"], t["segment"], t["microbatch"]), {})[t["kind"]] = t["id"]
    spans, demands = {}, {}
    for (rank, *_), pair in parts.items():
        f = tasks[pair["forward"]]
        options = f.get("candidates") or [None]
        chosen = [model.new_bool_var("") for _ in options]
        model.add_exactly_one(chosen)
        for kind, i in pair.items():
            if options[0] and kind != "weight":
                seconds = sum(ms(o[f"{kind}_s"]) * c for o, c in zip(options, chosen))
            else:
                seconds = ms(tasks[i]["duration_s"])
            model.add(stop[i] == start[i] + seconds)
            spans.setdefault(rank, []).append(interval(model, start[i], stop[i], horizon))
        release = stop[pair.get("weight", pair["backward"])]
        held = interval(model, start[f["id"]], release, horizon)
        size = model.new_int_var(0, 9, "")
        bytes_of = [o["activation_bytes"] for o in options] if options[0] else [f["activation_bytes"]]
        model.add(size == sum(b * c for b, c in zip(bytes_of, chosen)))
        demands.setdefault(rank, []).append((held, size))
    for t in tasks:
        model.add(end >= stop[t["id"]])
        for d in t["deps"]:
            model.add(start[t["id"]] >= stop[d["task"]] + ms(d["comm_s"]))
    for r in range(graph["ranks"]):
        model.add_no_overlap(spans[r])
        model.add_cumulative(*zip(*demands[r]), graph["memory_limit_bytes"][r])
    model.minimize(end)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds, solver.parameters.num_workers = timeout, 2
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None, False
    return round(solver.objective_value), status == cp_model.OPTIMAL


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("dip")
    options.add_argument("--graphs", type=int, default=60)
    options.add_argument("--first", type=int, default=0, help="seed of the first graph")
    options.add_argument("--budget", default="900ms")
    options.add_argument("--timeout", type=float, default=60, help="time limit of CP-SAT per graph, in seconds")
    chosen = options.parse_args()
    distances = []
    with tempfile.TemporaryDirectory() as folder:
        path, out = pathlib.Path(folder) / "graph.json", pathlib.Path(folder) / "plan.json"
        for seed in range(chosen.first, chosen.first + chosen.graphs):
            graph = random_graph(seed)
            path.write_text(json.dumps(graph))
            command = [chosen.dip, "plan", "--graph", str(path), "--budget", chosen.budget, "--threads", "2", "--out", str(out)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                print(f"graph {seed}: {done.stderr.strip()}", flush=True)
                continue
            plan = json.loads(out.read_text())
            ours, bound = plan["predicted"]["makespan_s"] * 1e3, plan["lower_bound_s"] * 1e3
            best, proven = optimum(graph, chosen.timeout)
            if best is None:
                print(f"graph {seed}: CP-SAT finds no plan", flush=True)
                continue
            assert bound <= best + 1e-6, f"graph {seed}: the bound of {bound} ms is above {best} ms"
            distance = ours / best - 1
            if proven:
                distances.append(distance)
            note = "" if proven else " (not proven)"
            print(f"graph {seed}: {len(graph['tasks'])} tasks, {ours:.0f} ms, CP-SAT {best}{note}, {100 * distance:+.2f} %", flush=True)
    if distances:
        mean, worst = sum(distances) / len(distances), max(distances)
        print(f"{len(distances)} proven: mean {100 * mean:.2f} %, worst {100 * worst:.2f} %")


if __name__ == "__main__":
    main()
