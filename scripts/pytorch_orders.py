#!/usr/bin/env python3
"""Checks the CSV form of orders against PyTorch, in both directions.

    pip install torch numpy
    cargo build --release --no-default-features --features cli
    python3 scripts/pytorch_orders.py target/release/dip

Reading: every multi-stage schedule of torch.distributed.pipelining is dumped, with and without its communication, and `dip plan`
reads and judges it on a chain of equal stages. Writing: PyTorch runs the orders of the classical schedules and of the search on
gloo, with 2 and 4 processes, and its losses and gradients are compared with those of one process. Prints one line per order; ends
with an error if one fails.
"""

import argparse
import json
import os
import pathlib
import queue
import subprocess
import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.pipelining import PipelineStage, schedules

WIDTH, ROWS = 8, 2
# Seconds of forward, backward and weight gradients; a full backward takes both.
FORWARD, BACKWARD, WEIGHT, COMM = 1.0, 1.0, 1.0, 0.05
DUMPED = ["LoopedBFS", "Interleaved1F1B", "InterleavedZeroBubble", "ZBVZeroBubble", "DualPipeV"]
SEARCHED = ["gpipe", "1f1b", "interleaved", "zero_bubble", "dip"]
TOLERANCE = 1e-5


def rank_of(stage, ranks, wave):
    lap, place = divmod(stage, ranks)
    return ranks - 1 - place if wave and lap % 2 else place


def chain_graph(ranks, laps, microbatches, wave, split):
    """A dip.graph/v1 of equal stages: `laps` chunks on every rank."""
    tasks, stages = [], ranks * laps

    def add(stage, kind, microbatch, seconds, deps):
        rank = rank_of(stage, ranks, wave)
        comm = lambda task: 0.0 if tasks[task]["rank"] == rank else COMM
        tasks.append({
            "id": len(tasks), "rank": rank, "kind": kind, "module": "lm", "segment": stage // ranks, "microbatch": microbatch,
            "sub_microbatch": 0, "strategy": "keep", "duration_s": seconds, "activation_bytes": int(kind == "forward"),
            "deps": [{"task": task, "comm_s": comm(task)} for task in deps],
        })
        return len(tasks) - 1

    for microbatch in range(microbatches):
        forwards = []
        for stage in range(stages):
            forwards.append(add(stage, "forward", microbatch, FORWARD, forwards[-1:]))
        after = None
        for stage in reversed(range(stages)):
            deps = [forwards[stage]] + ([] if after is None else [after])
            after = add(stage, "backward", microbatch, BACKWARD if split else BACKWARD + WEIGHT, deps)
            if split:
                add(stage, "weight", microbatch, WEIGHT, [after])
    return {
        "schema": "dip.graph/v1", "model": "chain", "cluster": "equal stages", "ranks": ranks,
        "memory_limit_bytes": [2 * laps * microbatches] * ranks, "static_bytes": [0] * ranks, "tasks": tasks,
    }


class Workers:
    """Runs a function in one process per rank of a gloo group."""

    port = 29_700 + os.getpid() % 1_000

    @classmethod
    def run(cls, ranks, function, *arguments):
        cls.port += 1
        results = mp.get_context("spawn").Queue()
        spawn = lambda rank: mp.get_context("spawn").Process(
            target=worker, args=(rank, ranks, cls.port, results, function, arguments))
        processes = [spawn(rank) for rank in range(ranks)]
        for process in processes:
            process.start()
        try:
            found = [results.get(timeout=120) for _ in processes]
        except queue.Empty:
            found = [(-1, "no answer in 120 s")]
        for process in processes:
            process.join(5)
            if process.is_alive():
                process.kill()
        errors = [error for _, error in found if isinstance(error, str)]
        if errors:
            raise RuntimeError(errors[0])
        return [result for _, result in sorted(found, key=lambda item: item[0])]


def worker(rank, ranks, port, results, function, arguments):
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    try:
        dist.init_process_group("gloo", rank=rank, world_size=ranks)
        results.put((rank, function(rank, ranks, *arguments)))
        dist.barrier()
    except Exception as error:  # The parent reports it.
        results.put((rank, f"{type(error).__name__}: {error}"[:300]))


def layer(stage):
    torch.manual_seed(100 + stage)
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())


def squared_error(output, target):
    return ((output - target) ** 2).sum()


def local_stages(rank, ranks, laps, wave):
    total = ranks * laps
    own = [stage for stage in range(total) if rank_of(stage, ranks, wave) == rank]
    return [PipelineStage(layer(stage), stage, total, torch.device("cpu")) for stage in own]


def dump(rank, ranks, name, laps, microbatches, wave, folder):
    """Writes a schedule of PyTorch as CSV, with and without communication."""
    stages = local_stages(rank, ranks, laps, wave)
    schedule = getattr(schedules, f"Schedule{name}")(stages, microbatches, loss_fn=squared_error)
    if rank == 0:
        for form in ["compute_only", "compute_comms"]:
            schedule._dump_csv(f"{folder}/{form}.csv", format=form)


def train(rank, ranks, laps, wave, path, numbers):
    """Runs an order. Returns the largest relative differences of losses and of gradients from one process."""
    stages = local_stages(rank, ranks, laps, wave)
    runtime = schedules._PipelineScheduleRuntime(stages, len(numbers), loss_fn=squared_error, scale_grads=False)
    runtime._load_csv(path, format="compute_only")
    torch.manual_seed(7)
    x, y = torch.randn(len(numbers), ROWS, WIDTH), torch.randn(len(numbers), ROWS, WIDTH)
    inputs, targets = x[numbers].flatten(0, 1), y[numbers].flatten(0, 1)
    last = any(stage.is_last for stage in stages)
    losses = []
    runtime.step(
        *([inputs] if any(stage.is_first for stage in stages) else []),
        **({"target": targets, "losses": losses} if last else {}),
    )
    whole = nn.Sequential(*[layer(stage) for stage in range(ranks * laps)])
    expected = [squared_error(whole(x[number]), y[number]) for number in numbers]
    sum(expected).backward()
    gradients = [
        (mine.grad - its.grad).abs().max() / its.grad.abs().max().clamp_min(1e-9)
        for stage in stages
        for mine, its in zip(stage.submod.parameters(), whole[stage.stage_index].parameters())
    ]
    compared = [abs(mine - its).detach() / its.detach() for mine, its in zip(losses, expected)]
    assert not last or len(losses) == len(numbers)
    return float(max(compared, default=torch.tensor(0.0))), float(max(gradients))


def dip(command, *arguments):
    """Runs `dip plan`; returns its output, or its error."""
    done = subprocess.run([command, "plan", *map(str, arguments)], capture_output=True, text=True)
    return (done.stdout, None) if done.returncode == 0 else (None, done.stderr.strip())


def check_reading(command, ranks, folder):
    failed = 0
    for name in DUMPED:
        wave = name in ("ZBVZeroBubble", "DualPipeV")
        laps, microbatches = 2, 2 * ranks
        Workers.run(ranks, dump, name, laps, microbatches, wave, str(folder))
        graph = folder / "graph.json"
        graph.write_text(json.dumps(chain_graph(ranks, laps, microbatches, wave, split=True)))
        spans = []
        for form in ["compute_only", "compute_comms"]:
            out = folder / "plan.json"
            _, error = dip(command, "--graph", graph, "--order", folder / f"{form}.csv", "--out", out)
            spans.append(error or json.loads(out.read_text())["predicted"]["makespan_s"])
        ok = spans[0] == spans[1] and not isinstance(spans[0], str)
        failed += not ok
        print(f"read   {name:22} {ranks} ranks, {microbatches} microbatches: "
              f"{f'makespan {spans[0]:.2f} s' if ok else spans}", flush=True)
    return failed


def check_writing(command, ranks, folder):
    failed = 0
    for wave in [False, True]:
        for schedule in SEARCHED:
            laps = 1 if schedule in ("gpipe", "1f1b", "zero_bubble") else 2
            if wave and laps == 1:
                continue
            microbatches = 2 * ranks
            split = schedule in ("zero_bubble", "dip")
            graph, order = folder / "graph.json", folder / f"order-{schedule}-{wave}-{ranks}.csv"
            graph.write_text(json.dumps(chain_graph(ranks, laps, microbatches, wave, split)))
            _, error = dip(command, "--graph", graph, "--schedule", schedule, "--iterations-budget", 50, "--csv", order)
            title = f"write  {schedule:12} {'wave' if wave else 'loop'}, {ranks} ranks, {microbatches} microbatches"
            if error:
                # A classical order need not fit a wave; the search must.
                refused = wave and schedule != "dip"
                failed += not refused
                print(f"{title}: {'not for waves' if refused else error}", flush=True)
                continue
            failed += run_order(title, ranks, laps, wave, order, microbatches)
    return failed


def run_order(title, ranks, laps, wave, order, microbatches):
    """Runs a written order in PyTorch; returns 1 if it fails."""
    mapping = pathlib.Path(f"{order}.microbatches.json")
    numbers = json.loads(mapping.read_text()) if mapping.exists() else list(range(microbatches))
    try:
        found = Workers.run(ranks, train, laps, wave, str(order), numbers)
    except RuntimeError as error:
        print(f"{title}: {error}", flush=True)
        return 1
    losses, gradients = (max(column) for column in zip(*found))
    print(f"{title}: losses within {losses:.1e}, gradients within {gradients:.1e}", flush=True)
    return int(max(losses, gradients) > TOLERANCE)


def check_renumbering(command, folder):
    """An order whose microbatches are permuted: the list of numbers keeps its losses apart."""
    graph, order, text = folder / "graph.json", folder / "permuted.csv", "0F0,0F2,0F1,0B0,0B2,0B1\n1F0,1F2,1F1,1B0,1B2,1B1\n"
    graph.write_text(json.dumps(chain_graph(2, 1, 3, wave=False, split=False)))
    (folder / "foreign.csv").write_text(text)
    _, error = dip(command, "--graph", graph, "--order", folder / "foreign.csv", "--csv", order)
    if error:
        print(f"write  permuted: {error}")
        return 1
    return run_order("write  permuted     loop, 2 ranks, 3 microbatches", 2, 1, False, order, 3)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dip", help="the dip command")
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        failed = check_renumbering(arguments.dip, folder)
        for ranks in arguments.ranks:
            failed += check_reading(arguments.dip, ranks, folder)
            failed += check_writing(arguments.dip, ranks, folder)
    raise SystemExit(f"{failed} orders failed" if failed else 0)


if __name__ == "__main__":
    main()
