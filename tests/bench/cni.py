"""A pod's start and end as a container runtime sees them: plugin process started, answer read.

Beside ours run the reference plugins of Debian's containernetworking-plugins (bridge with host-local), in turns, in
namespaces of their own. Our daemon is a real process with a journal that holds its pool.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from datapath.namespaces import opened, visiting
from tests.bench.report import Row
from tests.datapath.bed import PLUGIN, Bed, Eni

REFERENCE = Path("/usr/lib/cni")
BURST = 50

Timed = Callable[[str, str, str], float]  # command, container, namespace -> milliseconds


def main(argv: list[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="tests.bench cni")
    parser.add_argument("--rounds", type=int, default=60, help="pods started one after the other, each way")
    rounds = parser.parse_args(argv).rounds
    if os.geteuid() != 0 or not (REFERENCE / "bridge").exists():
        return []
    with Bed() as bed:
        addresses = [[f"10.0.{n}.{host}" for host in range(10, 110)] for n in range(2)]
        node = bed.node("node", Eni(0, "10.0.0.5", addresses[0]), Eni(1, "10.0.0.6", addresses[1]), cooldown_s=0)
        node.fill_journal()
        node.start()
        reference_namespace = bed.namespace("reference")
        ours = _plugin(PLUGIN, node.config(), node.namespace)
        theirs = _plugin(REFERENCE / "bridge", _reference_config(bed.folder), reference_namespace)
        rows = _one_by_one(bed, ours, theirs, rounds)
        return rows + _burst(bed, ours, theirs)


def _plugin(path: Path, config: bytes, namespace: str) -> Timed:
    environment = {"CNI_IFNAME": "eth0", "CNI_PATH": str(path.parent), "PATH": os.environ["PATH"]}

    def run(command: str, container: str, netns: str) -> float:
        told = {**environment, "CNI_COMMAND": command, "CNI_CONTAINERID": container, "CNI_NETNS": f"/run/netns/{netns}"}
        with opened(f"/run/netns/{namespace}") as descriptor, visiting(descriptor):
            began = time.perf_counter()
            done = subprocess.run([str(path)], input=config, env=told, capture_output=True, check=False)
            took_ms = (time.perf_counter() - began) * 1e3
        if done.returncode:
            raise RuntimeError(f"{path.name} {command}: {done.stdout.decode()} {done.stderr.decode()}")
        return took_ms

    return run


def _reference_config(folder: Path) -> bytes:
    ipam = {"type": "host-local", "subnet": "10.99.0.0/16", "dataDir": str(folder / "host-local"),
            "routes": [{"dst": "0.0.0.0/0"}]}  # fmt: skip
    config = {"cniVersion": "1.0.0", "name": "reference", "type": "bridge", "bridge": "ref0", "isGateway": True,
              "ipam": ipam}  # fmt: skip
    return json.dumps(config).encode()


def _one_by_one(bed: Bed, ours: Timed, theirs: Timed, rounds: int) -> list[Row]:
    pods = [bed.namespace(name) for name in ("pod-ours", "pod-theirs")]
    times: dict[str, list[float]] = {key: [] for key in ("ours ADD", "ours DEL", "theirs ADD", "theirs DEL")}
    for number in range(rounds + 3):
        for who, run, pod in (("ours", ours, pods[0]), ("theirs", theirs, pods[1])):
            for command in ("ADD", "DEL"):
                took_ms = run(command, f"{who}-{number}", pod)
                if number >= 3:  # the first ones create the bridge and warm the caches
                    times[f"{who} {command}"].append(took_ms)
    rows = []
    for command, target in (("ADD", "ratio <= 1.5"), ("DEL", "ratio <= 1")):
        mine, other = times[f"ours {command}"], times[f"theirs {command}"]
        rows.append(Row(f"CNI {command} p50", _part(mine, 0.5), "ms", baseline=_part(other, 0.5), target=target))
        rows.append(Row(f"CNI {command} p99", _part(mine, 0.99), "ms", baseline=_part(other, 0.99)))
    return rows


def _burst(bed: Bed, ours: Timed, theirs: Timed) -> list[Row]:
    measured: dict[str, tuple[list[float], float]] = {}
    for who, run in (("ours", ours), ("theirs", theirs)):
        pods = [(f"{who}-burst-{n}", bed.namespace(f"{who[0]}b{n}")) for n in range(BURST)]
        with ThreadPoolExecutor(BURST) as threads:
            for command in ("ADD", "DEL"):
                began = time.perf_counter()
                times = list(threads.map(lambda pod, run=run, command=command: run(command, *pod), pods))
                measured[f"{who} {command}"] = times, (time.perf_counter() - began) * 1e3
    rows = []
    for command in ("ADD", "DEL"):
        (mine, wall_ms), (other, other_wall_ms) = measured[f"ours {command}"], measured[f"theirs {command}"]
        name = f"CNI {command}, {BURST} at once"
        rows.append(Row(f"{name}, p50", _part(mine, 0.5), "ms", baseline=_part(other, 0.5)))
        rows.append(Row(f"{name}, p99", _part(mine, 0.99), "ms", baseline=_part(other, 0.99)))
        rows.append(Row(f"{name}, all done", wall_ms, "ms", baseline=other_wall_ms))
    return rows


def _part(times: list[float], part: float) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * part))]
