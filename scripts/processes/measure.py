#!/usr/bin/env python3
"""Measures runs of several processes: the figures of docs/processes.md.

    cargo build --release --features mpi
    cargo build --release -p dip-burn --features mpi --example processes
    python3 scripts/processes/measure.py target/release OUT SECTION..

Sections: equal, share, idle, cost, pingpong, many, memory, network. All need Open MPI; `pingpong` needs mpicc; `network` needs root, cc
and TUN devices, and joins two network namespaces by a cable with a rate and a delay (wire.c). Each section prints a table in
Markdown. OUT keeps the runs.
"""

import hashlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
MPIRUN = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]
SPACES = {"10.77.0.1": "dip-a", "10.77.0.2": "dip-b"}
RUN = """name = "measured"
model = "{model}"
iterations = {iterations}
output = "out"
[pipeline]
ranks = {ranks}
replicas = {replicas}
{more}
[checkpoint]
every = 0
[evaluation]
every = 0
pictures = 0
captions = 0
"""
# About 100 million weights, most of them in the layers.
LARGE = """name = "large"
sequence_tokens = 128
max_images = 2
microbatches = 4
parallel = { data = 1, tensor = 1, pipeline = 4 }
[[module]]
name = "vision"
layers = 4
hidden = 512
ffn = 2048
heads = 8
kind = { vit = { image_px = 32, patch_px = 4, merge = 2 } }
[[module]]
name = "language"
layers = 8
hidden = 1024
ffn = 2816
heads = 8
inputs = ["vision"]
kind = { decoder = { vocab = 260 } }
"""

bin, out = pathlib.Path(), pathlib.Path()


def settings(name, model="vlm-tiny", iterations=40, ranks=2, replicas=1, more="network_costs = false"):
    path = out / f"{name}.toml"
    path.write_text(RUN.format(model=model, iterations=iterations, ranks=ranks, replicas=replicas, more=more))
    return path


def train(run, output, processes=1, launcher=None, profile=None, watch=None):
    """Trains a run anew, and returns its reports of iterations."""
    folder = out / output
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if profile:
        shutil.copy(out / profile / "profile.json", folder)
    start = launcher or (MPIRUN + ["-np", str(processes)] if processes > 1 else [])
    command = [*start, str(bin / "dip"), "train", str(run), "--output", str(folder)]
    child = subprocess.Popen(command, stdout=open(folder / "text", "w"), stderr=subprocess.STDOUT)
    if watch:
        watch(child, folder)
    if child.wait() != 0:
        sys.exit(f"{' '.join(command)}\n{(folder / 'text').read_text()}")
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["train"] for line in lines if "train" in line]


def weights(output):
    """A hash of all files of the last checkpoint."""
    newest = max((out / output).glob("checkpoint-*"))
    files = sorted(newest.iterdir())
    return hashlib.sha256(b"".join(f.name.encode() + f.read_bytes() for f in files)).hexdigest()[:12]


def losses(reports):
    return [report["loss"] for report in reports]


def seconds(reports):
    """The median time of an iteration; the first ones warm up."""
    return statistics.median(report["elapsed_s"] for report in reports[5:])


def processes_of(folder):
    """The ids of the processes that write or wait for a run, in the order of MPI."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            arguments = (path / "cmdline").read_bytes().split(b"\0")
            if arguments[0] == str(bin / "dip").encode() and str(folder).encode() in arguments:
                variables = dict(v.split(b"=", 1) for v in (path / "environ").read_bytes().split(b"\0") if b"=" in v)
                found.append((int(variables.get(b"OMPI_COMM_WORLD_RANK", 0)), int(path.name)))
        except (OSError, IndexError):
            pass
    return [process for _, process in sorted(found)]


def cpu_seconds(stat):
    fields = pathlib.Path(stat).read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def equal():
    """Distributions of the same ranks over processes have the same losses and weights."""
    print("| ranks | replicas | processes | placement | last loss | weights |\n|---|---|---|---|---|---|")
    for ranks, replicas, counts in [(4, 1, [1, 2, 4]), (2, 2, [1, 2, 4])]:
        for placement in ["ranks-first", "replicas-first"][:replicas]:
            more = f'network_costs = false\nplacement = "{placement}"'
            run = settings("equal", iterations=12, ranks=ranks, replicas=replicas, more=more)
            for count in counts:
                name = f"equal-{ranks}-{replicas}-{count}"
                first = f"equal-{ranks}-{replicas}-1"
                same = out / first / "profile.json"
                reports = train(run, name, count, profile=first if count > 1 and same.exists() else None)
                print(f"| {ranks} | {replicas} | {count} | {placement} | {losses(reports)[-1]!r} | {weights(name)} |")


def share():
    """One process of two ranks and two processes of one, in turn."""
    run = settings("share", iterations=25)
    train(run, "share-profile")
    times = {1: [], 2: []}
    print("| turn | 1 process x 2 ranks, ms | 2 processes x 1 rank, ms | ratio |\n|---|---|---|---|", flush=True)
    for turn in range(4):
        for count in times if turn % 2 == 0 else reversed(times):
            reports = train(run, f"share-{count}", count, profile="share-profile")
            times[count].append(seconds(reports))
        one, two = (t[-1] for t in times.values())
        print(f"| {turn + 1} | {1e3 * one:.1f} | {1e3 * two:.1f} | {two / one:.3f} |", flush=True)
    one, two = (statistics.median(t) for t in times.values())
    print(f"| median | {1e3 * one:.1f} | {1e3 * two:.1f} | {two / one:.3f} |")


def idle():
    """Processor time of a process that waits while the first measures stages, and of MPI threads while ranks compute."""
    found = {}

    def watch(child, folder):
        while len(processes_of(folder)) < 2 or "measuring" not in (folder / "text").read_text():
            time.sleep(0.05)
        time.sleep(1)
        own = processes_of(folder)
        stat = f"/proc/{own[1]}/stat"
        begin, used = time.time(), cpu_seconds(stat)
        while not (folder / "profile.json").exists():
            found["waits"] = ((cpu_seconds(stat) - used) / (time.time() - begin), time.time() - begin)
            time.sleep(0.02)
        metrics = folder / "metrics.jsonl"
        while not metrics.exists() or metrics.read_text().count('"train"') < 10:
            time.sleep(0.02)
        threads = [t for p in own for t in pathlib.Path(f"/proc/{p}/task").iterdir()]
        threads = [t / "stat" for t in threads if (t / "comm").read_text().strip() == "dip-mpi"]
        begin, used = time.time(), [cpu_seconds(t) for t in threads]
        while child.poll() is None:
            try:
                now = [cpu_seconds(t) for t in threads]
            except OSError:
                break
            found["trains"] = [(b - a) / (time.time() - begin) for a, b in zip(used, now)]
            time.sleep(0.05)

    train(settings("idle", iterations=150), "idle", 2, watch=watch)
    share, span = found["waits"]
    print("| what | processor time, share of a core |\n|---|---|")
    print(f"| a process that waits for the first ({span:.1f} s) | {share:.1%} |")
    for process, share in enumerate(found["trains"]):
        print(f"| the MPI thread of process {process} while two processes train | {share:.1%} |")


def example(count):
    command = [*MPIRUN, "-np", str(count), str(bin / "examples/processes")]
    begin = time.time()
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(text) | {"whole_s": time.time() - begin}


def cost():
    """Start-up, decisions, a plan and sums, from 1 to 16 processes."""
    print("| processes | start, s | a decision, ms | a plan of 1 MiB to all, ms | sums of 16 MiB, ms |\n|---|---|---|---|---|")
    for count in [1, 2, 4, 8, 16]:
        found = example(count)
        row = [f"{1e3 * found[key]:.2f}" for key in ("agree_s", "plan_s", "sums_s")]
        print(f"| {count} | {found['start_s']:.2f} |", " | ".join(row), "|")


def pingpong():
    """The MPI thread against plain MPI calls of two processes."""
    plain = out / "pingpong"
    subprocess.run(["mpicc", "-O2", "-o", plain, HERE / "pingpong.c"], check=True)
    best = {}
    for _ in range(3):
        text = subprocess.run([*MPIRUN, "-np", "2", plain], check=True, capture_output=True, text=True).stdout
        rows = [(int(b), float(s)) for b, s in map(str.split, text.splitlines())]
        for way, rows in [("plain", rows), ("dip", [(r["bytes"], r["seconds"]) for r in example(2)["ping_pong"]])]:
            for size, time_s in rows:
                best[size, way] = min(best.get((size, way), 1e9), time_s)
    print("| bytes | plain MPI, us | MPI thread, us | plain, GB/s | thread, GB/s |\n|---|---|---|---|---|")
    for size in sorted({size for size, _ in best}):
        plain, own = best[size, "plain"], best[size, "dip"]
        print(f"| {size} | {1e6 * plain:.1f} | {1e6 * own:.1f} | {size / plain / 1e9:.2f} | {size / own / 1e9:.2f} |")


def many():
    """Sixteen processes on the cores of this machine."""
    run = settings("many", iterations=10, ranks=4, replicas=4)
    print("| processes | s, start to end | median iteration, ms | losses and weights |\n|---|---|---|---|")
    expected = None
    for count in [1, 4, 16]:
        begin = time.time()
        name = f"many-{count}"
        reports = train(run, name, count, profile="many-1" if count > 1 else None)
        found = (losses(reports), weights(name))
        expected = expected or found
        verdict = "equal" if found == expected else "DIFFERENT"
        print(f"| {count} | {time.time() - begin:.1f} | {1e3 * seconds(reports):.0f} | {verdict} |")


def memory():
    """Peak resident memory of each process against what its ranks hold."""
    (out / "large.toml").write_text(LARGE)
    run = settings("memory", model="large.toml", iterations=4, ranks=4)
    print("| processes | process | ranks | peak of its ranks, MB | peak resident, MB |\n|---|---|---|---|---|")
    for count in [1, 2, 4]:
        peaks = {}

        def watch(child, folder):
            while child.poll() is None:
                for place, process in enumerate(processes_of(folder)):
                    try:
                        status = pathlib.Path(f"/proc/{process}/status").read_text()
                        peaks[process] = (place, int(status.split("VmHWM:")[1].split()[0]) * 1024)
                    except (OSError, IndexError):
                        pass
                time.sleep(0.05)

        name = f"memory-{count}"
        reports = train(run, name, count, profile="memory-1" if count > 1 else None, watch=watch)
        planned = [max(r["peak_bytes"][rank] for r in reports) for rank in range(4)]
        each = 4 // count
        for place, resident in sorted(peaks.values()):
            ranks = range(place * each, (place + 1) * each)
            held = sum(planned[rank] for rank in ranks)
            print(f"| {count} | {place} | {min(ranks)}..{max(ranks)} | {held / 1e6:.0f} | {resident / 1e6:.0f} |")


class Cable:
    """Two network namespaces with hosts of their own, joined by a cable."""

    def __init__(self, megabits, delay_ms):
        wire, self.agent = out / "wire", out / "agent.sh"
        subprocess.run(["cc", "-O2", "-o", wire, HERE / "wire.c"], check=True)
        cases = "".join(f"{address}) name={name};; " for address, name in SPACES.items())
        self.agent.write_text(
            f'#!/bin/sh\n# In place of ssh: HOST COMMAND..\ncase $1 in {cases}esac\nshift\n'
            'exec ip netns exec $name unshare -u sh -c "hostname $name; $*"\n'
        )
        self.agent.chmod(0o755)
        self.end_spaces()
        for name in SPACES.values():
            subprocess.run(["ip", "netns", "add", name], check=True)
        self.wire = subprocess.Popen([wire, *SPACES.values(), str(megabits), str(delay_ms)], stdout=subprocess.PIPE)
        self.wire.stdout.readline()
        for address, name in SPACES.items():
            ip = ["ip", "-n", name]
            subprocess.run([*ip, "addr", "add", f"{address}/24", "dev", "wire"], check=True)
            subprocess.run([*ip, "link", "set", "wire", "up", "mtu", "9000", "txqueuelen", "64"], check=True)
            subprocess.run([*ip, "link", "set", "lo", "up"], check=True)

    def launcher(self):
        first = list(SPACES.values())[0]
        tcp = ["btl", "tcp,self", "btl_tcp_if_include", "wire", "oob_tcp_if_include", "wire", "plm_rsh_agent", str(self.agent)]
        options = [word for k in range(0, len(tcp), 2) for word in ("--mca", tcp[k], tcp[k + 1])]
        hosts = ["-np", "2", "--host", ",".join(f"{address}:1" for address in SPACES)]
        enter = ["ip", "netns", "exec", first, "unshare", "-u", "sh", "-c", f'hostname {first}; exec "$@"', "sh"]
        return [*enter, "mpirun", "--allow-run-as-root", "--bind-to", "none", *options, *hosts]

    def end_spaces(self):
        for name in SPACES.values():
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    def end(self):
        self.wire.kill()
        self.end_spaces()


def network():
    """Two machines joined by a fast and by a slow cable: plans with and without the costs of the network, in turn."""
    print("| cable | measured | plans | layers | predicted, ms | iteration, ms |\n|---|---|---|---|---|---|")
    for megabits in [1000, 25]:
        cable = Cable(megabits, 0.5)
        try:
            times, last = {"true": [], "false": []}, {}
            for turn in range(3):
                for costs in times:
                    run = settings("network", iterations=25, more=f"network_costs = {costs}")
                    name = f"network-{megabits}-{costs}"
                    profile = "network-profile" if (out / "network-profile").exists() else None
                    reports = train(run, name, launcher=cable.launcher(), profile=profile)
                    if not profile:
                        shutil.copytree(out / name, out / "network-profile")
                    times[costs].append(seconds(reports))
                    last[costs] = reports
        finally:
            cable.end()
        link = json.loads((out / f"network-{megabits}-true/network.json").read_text())["links"][0][2]
        measured = f"{1e3 * link['latency']:.2f} ms, {8e-6 * link['bytes_per_s']:.0f} Mbit/s"
        for costs, plans in [("true", "with costs"), ("false", "without")]:
            name = f"network-{megabits}-{costs}"
            layers = [l for l in (out / name / "text").read_text().splitlines() if l.startswith("layers: ")]
            predicted = statistics.median(r["predicted_s"] for r in last[costs][5:])
            row = [f"{megabits} Mbit/s, 0.5 ms", measured, plans, layers[0][8:], f"{1e3 * predicted:.0f}"]
            print("|", " | ".join(row), "|", ", ".join(f"{1e3 * t:.0f}" for t in times[costs]), "|")


def main():
    global bin, out
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    bin, out = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
    out.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[3:]:
        section = globals()[name]
        print(f"\n## {name}: {section.__doc__}\n", flush=True)
        section()


if __name__ == "__main__":
    main()
