"""A pod added, from the daemon's first call to the kernel until its first packet has been answered from outside: pair,
addresses, routes, programs, maps. The plugin's process and its request are measured by cni.py.

    python -m tests.bench endpoint -- --pods 10          quick
"""

from __future__ import annotations

import argparse
import errno
import os
import socket
import statistics
import time

from datapath.endpoints.wiring import KernelEndpoints
from datapath.model import Endpoint, host_device, pod_mac
from tests.bench.report import Row
from tests.vm.core import WORLD, Core


def main(argv: list[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="tests.bench endpoint")
    parser.add_argument("--pods", type=int, default=60)
    pods = parser.parse_args(argv).pods
    if os.geteuid() != 0:
        return []
    with Core() as core:
        endpoints = KernelEndpoints(core.datapath.pods)
        took = sorted(_added(core, endpoints, number) for number in range(10, 10 + pods))
    return [
        Row("endpoint: added until its traffic flows, p50", statistics.median(took), "ms", target="<= 15"),
        Row("endpoint: added until its traffic flows, p99", took[int(len(took) * 0.99)], "ms"),
    ]


def _added(core: Core, endpoints: KernelEndpoints, number: int) -> float:
    space = core.spaces.add(f"pod{number}")
    address = f"10.1.0.{number}"
    endpoint = Endpoint(
        host_device=host_device(f"c{number}", "eth0"), netns=core.spaces.path(space), device="eth0", address=address,
        mac=pod_mac(address), label=f"c{number}/eth0", address6=f"fd00:1::{number:x}",
    )  # fmt: skip
    with core.spaces.inside(space):
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    client.settimeout(5)
    began = time.perf_counter()
    with core.spaces.inside(core.node):
        endpoints.wire(endpoint)
    with client:
        refused = client.connect_ex((WORLD[0], 9))  # nobody listens there: the refusal is the answer
    took_ms = (time.perf_counter() - began) * 1e3
    if refused != errno.ECONNREFUSED:
        raise RuntimeError(f"{address} got no answer: {os.strerror(refused)}")
    return took_ms
