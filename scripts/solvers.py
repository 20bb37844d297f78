#!/usr/bin/env python3
"""Compares the search with general solvers: CP-SAT and Z3, on chains of uneven stages with split weight gradients.

    pip install ortools z3-solver
    cargo build --release --no-default-features --features cli
    python3 scripts/solvers.py target/release/dip --ranks 4,8,16 --microbatches 4,8,16,32,64,128 --timeout 300

Prints a Markdown table. Times are whole milliseconds, so that all solve exactly the same problem. Each rank can hold as many
microbatches as there are ranks, and frees memory after the weight gradient. A solver that times out does not get more
microbatches for the same number of ranks.
"""

import argparse
import json
import pathlib
import random
import re
import subprocess
import tempfile
import time

KINDS = ["forward", "backward", "weight"]


def chain(ranks, microbatches, seed=0):
    """A dip.graph/v1 of uneven stages and uneven microbatches."""
    draw = random.Random(seed)
    stage = [draw.randint(8, 16) for _ in range(ranks)]
    load = [draw.lognormvariate(0, 0.4) for _ in range(microbatches)]
    tasks = []
    for m in range(microbatches):
        base = 3 * (m * ranks)
        for r in range(ranks):
            for k, kind in enumerate(KINDS):
                deps = []
                if k == 0 and r > 0:
                    deps = [(base + 3 * (r - 1), 1)]
                elif k == 1:
                    deps = [(base + 3 * r, 0)] + ([(base + 3 * (r + 1) + 1, 1)] if r + 1 < ranks else [])
                elif k == 2:
                    deps = [(base + 3 * r + 1, 0)]
                tasks.append({
                    "id": base + 3 * r + k, "rank": r, "kind": kind, "module": "chain", "segment": 0,
                    "microbatch": m, "sub_microbatch": 0, "strategy": "keep",
                    "duration_s": max(1, round(stage[r] * load[m])) * 1e-3,
                    "activation_bytes": 1 if k == 0 else 0,
                    "deps": [{"task": t, "comm_s": c * 1e-3} for t, c in deps],
                })
    return {"schema": "dip.graph/v1", "model": "chain", "cluster": "none", "ranks": ranks, "tasks": tasks,
            "memory_limit_bytes": [ranks] * ranks, "static_bytes": [0] * ranks}


def ms(seconds):
    return round(seconds * 1e3)


def searched(dip, graph, folder):
    """Returns makespan and bound in ms after 2 s of search, and the seconds that the command took."""
    path, out = folder / "graph.json", folder / "plan.json"
    path.write_text(json.dumps(graph))
    command = [dip, "plan", "--graph", str(path), "--budget", "2s", "--threads", "2", "--out", str(out)]
    start = time.time()
    subprocess.run(command, check=True, capture_output=True)
    plan = json.loads(out.read_text())
    return ms(plan["predicted"]["makespan_s"]), plan["lower_bound_s"] * 1e3, time.time() - start


def cp_sat(graph, timeout):
    from ortools.sat.python import cp_model
    model = cp_model.CpModel()
    tasks = graph["tasks"]
    horizon = sum(ms(t["duration_s"]) for t in tasks)
    start = [model.new_int_var(0, horizon, "") for _ in tasks]
    task = [model.new_fixed_size_interval_var(s, ms(t["duration_s"]), "") for s, t in zip(start, tasks)]
    end = model.new_int_var(0, horizon, "")
    for t in tasks:
        model.add(end >= start[t["id"]] + ms(t["duration_s"]))
        for d in t["deps"]:
            before = tasks[d["task"]]
            model.add(start[t["id"]] >= start[before["id"]] + ms(before["duration_s"]) + ms(d["comm_s"]))
    for r in range(graph["ranks"]):
        model.add_no_overlap([task[t["id"]] for t in tasks if t["rank"] == r])
        held = []
        for t in (t for t in tasks if t["rank"] == r and t["kind"] == "forward"):
            last = tasks[t["id"] + 2]
            size = model.new_int_var(0, horizon, "")
            stop = model.new_int_var(0, horizon, "")
            model.add(stop == start[last["id"]] + ms(last["duration_s"]))
            held.append(model.new_interval_var(start[t["id"]], size, stop, ""))
        model.add_cumulative(held, [1] * len(held), graph["memory_limit_bytes"][r])
    model.minimize(end)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = timeout
    solver.parameters.num_workers = 2
    begun = time.time()
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return "none", time.time() - begun
    proof = "" if status == cp_model.OPTIMAL else " (not proven)"
    return f"{round(solver.objective_value)}{proof}", time.time() - begun


def z3_opt(graph, timeout):
    import z3
    solver = z3.Optimize()
    solver.set("timeout", int(timeout * 1000))
    tasks = graph["tasks"]
    start = [z3.Int(f"s{t['id']}") for t in tasks]
    end = z3.Int("end")
    duration = [ms(t["duration_s"]) for t in tasks]
    for t in tasks:
        i = t["id"]
        solver.add(start[i] >= 0, end >= start[i] + duration[i])
        for d in t["deps"]:
            solver.add(start[i] >= start[d["task"]] + duration[d["task"]] + ms(d["comm_s"]))
    for r in range(graph["ranks"]):
        own = [t["id"] for t in tasks if t["rank"] == r]
        for at, i in enumerate(own):
            for j in own[:at]:
                solver.add(z3.Or(start[i] >= start[j] + duration[j], start[j] >= start[i] + duration[i]))
        forwards = [i for i in own if tasks[i]["kind"] == "forward"]
        # When a forward starts, the other live pairs leave room for it.
        for i in forwards:
            live = [z3.And(start[j] <= start[i], start[i] < start[j + 2] + duration[j + 2]) for j in forwards if j != i]
            if len(live) >= graph["memory_limit_bytes"][r]:
                solver.add(z3.AtMost(*live, graph["memory_limit_bytes"][r] - 1))
    goal = solver.minimize(end)
    begun = time.time()
    answer = solver.check()
    value = str(solver.lower(goal)) if answer == z3.sat else "none"
    return value, time.time() - begun


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("dip")
    options.add_argument("--ranks", default="4,8,16")
    options.add_argument("--microbatches", default="4,8,16,32,64,128")
    options.add_argument("--timeout", type=float, default=300, help="time limit of each solver, in seconds")
    options.add_argument("--skip", default="", help="solvers to skip, comma-separated: cp-sat,z3")
    chosen = options.parse_args()
    print("| ranks | microbatches | tasks | dip, ms | bound, ms | dip, s | CP-SAT, ms | s | Z3, ms | s |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for ranks in map(int, chosen.ranks.split(",")):
            timed_out = set(chosen.skip.split(","))
            for microbatches in map(int, chosen.microbatches.split(",")):
                graph = chain(ranks, microbatches)
                ours, bound, took = searched(chosen.dip, graph, pathlib.Path(folder))
                row = [ranks, microbatches, len(graph["tasks"]), ours, f"{bound:.0f}", f"{took:.1f}"]
                for name, solve in [("cp-sat", cp_sat), ("z3", z3_opt)]:
                    if name in timed_out:
                        row += ["-", "-"]
                        continue
                    value, seconds = solve(graph, chosen.timeout)
                    if seconds >= 0.99 * chosen.timeout:
                        timed_out.add(name)
                    row += [value, f"{seconds:.0f}"]
                print("| " + " | ".join(map(str, row)) + " |", flush=True)


if __name__ == "__main__":
    main()
