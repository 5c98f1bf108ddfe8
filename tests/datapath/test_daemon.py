"""What a running daemon tells of its programs, by the command line and to Prometheus, with real pods talking."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from datapath.namespaces import opened, visiting
from tests.datapath.asking import ask, command, scraped, until
from tests.datapath.bed import Bed, Eni, Node

pytestmark = [pytest.mark.root, pytest.mark.tool("ip", "ping", "cc", "make", "clang-19")]
OUTSIDE = "198.51.100.1"


@dataclass(frozen=True, slots=True)
class Site:
    """
    web (10.0.0.10) ─┐
    db (10.0.0.11) ──┴─ node ── ens0 ── router: 10.0.0.1, and 198.51.100.1 of the outside
    """

    bed: Bed
    node: Node
    web: str
    db: str


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Bed() as bed:
        bed.ip(bed.router, f"addr add {OUTSIDE}/32 dev lo")
        node = bed.node(
            "a", Eni(0, "10.0.0.5", ["10.0.0.10", "10.0.0.11"]), metrics_listen=f"unix:{bed.folder}/metrics",
            **{"datapath.masquerade": True, "datapath.cluster_cidrs": ["10.0.0.0/16"]},
        )  # fmt: skip
        node.fill_journal()
        node.start()
        (web, at_web), (db, at_db) = node.add("web"), node.add("db")
        assert (at_web, at_db) == ("10.0.0.10", "10.0.0.11")
        yield Site(bed, node, web, db)


@contextmanager
def talking(client: str, server: str, address: str) -> Iterator[int]:
    """A TCP connection over which both ends have spoken. Gives the server's port."""
    with (
        opened(f"/run/netns/{server}") as there,
        visiting(there),
    ):
        listener = socket.create_server((address, 0))
    with listener, opened(f"/run/netns/{client}") as here:
        with visiting(here):
            connection = socket.create_connection(listener.getsockname(), 5)
        accepted, _ = listener.accept()
        with connection, accepted:
            connection.sendall(b"hello")
            assert accepted.recv(5) == b"hello"
            accepted.sendall(b"there")
            assert connection.recv(5) == b"there"
            yield listener.getsockname()[1]


def spoof(site: Site) -> None:
    """A packet of an address that the pod does not have."""
    site.bed.ip(site.web, "addr replace 10.66.0.1/32 dev eth0")
    assert not site.bed.ping(site.web, "10.0.0.11", options=("-I", "10.66.0.1", "-W", "0.2"))


def test_status_devices_and_maps(site: Site) -> None:
    status = ask(site.node, "datapath", "status")
    assert (status["mode"], status["routing"], status["endpoints"]) == ("ebpf", "native", 2)
    assert status["devices"] == ["ens0"]
    assert not status["problems"], status["problems"]
    attached = {one["name"]: [at["device"] for at in one["attachments"]] for one in status["programs"]}
    assert len(attached["from_pod"]) == len(attached["to_pod"]) == 2
    assert attached["from_device"] == attached["to_device"] == ["ens0"]
    assert all(one["verified_instructions"] > 0 for one in status["programs"])
    [device] = ask(site.node, "datapath", "devices")
    assert (device["name"], device["mtu"], device["masquerade4"]) == ("ens0", 9001, "10.0.0.5")
    maps = {one["name"]: one for one in ask(site.node, "datapath", "maps")}
    assert maps["endpoints"]["entries"] == 2
    assert maps["flows"]["max_entries"] >= 32768
    assert maps["flows"]["memory_bytes"] > 0


def test_pods_and_their_connections(site: Site) -> None:
    with talking(site.web, site.db, "10.0.0.11") as port:
        [flow] = ask(site.node, "datapath", "ct", "list", "--port", str(port))
        pods = {one["pod"]: one for one in ask(site.node, "datapath", "endpoints")}
    assert (flow["protocol"], flow["state"]) == ("tcp", "open")
    assert (flow["source"]["pod"], flow["destination"]["pod"]) == ("default/web", "default/db")
    assert set(pods) == {"default/web", "default/db"}
    assert pods["default/web"]["addresses"] == ["10.0.0.10"]
    assert pods["default/web"]["packets_out"] >= 3
    assert pods["default/db"]["flows"] >= 1


def test_who_has_an_address(site: Site) -> None:
    found = {one["address"]: one for one in ask(site.node, "datapath", "addresses")}
    assert found["10.0.0.10"]["kind"] == "pod"
    assert found["10.0.0.10"]["pod"] == "default/web"
    assert found["10.0.0.5"]["kind"] == "host"
    [first, *_] = ask(site.node, "datapath", "addresses", "10.0.0.11")
    assert first["pod"] == "default/db"


def test_masqueraded_connections(site: Site) -> None:
    with talking(site.web, site.bed.router, OUTSIDE) as port:
        listed = ask(site.node, "datapath", "nat", "list")
    assert str(port) in json.dumps(listed)
    assert "10.0.0.5" in json.dumps(listed)


def test_a_trace_says_what_would_be_done(site: Site) -> None:
    there = ask(site.node, "datapath", "trace", "default/web", "default/db:80")
    assert there["verdict"] == "forwarded", there
    out = ask(site.node, "datapath", "trace", "default/web", f"{OUTSIDE}:443")
    assert out["verdict"] == "forwarded", out


def test_a_spoofed_packet_is_seen_counted_and_scraped(site: Site) -> None:
    assert site.bed.ping(site.web, "10.0.0.11")
    monitor = command(
        site.node, "monitor", "--type", "drop", "--pod", "default/web", "--count", "1", "--interval", "0", "--json"
    )
    try:

        def heard() -> bool:
            spoof(site)
            return monitor.poll() is not None

        until(heard, 20)
        out, err = monitor.communicate(timeout=10)
    finally:
        monitor.kill()
        monitor.wait()
    event = json.loads(out)
    assert event["reason"] == "spoofed-address", err
    assert "10.66.0.1" in out
    drops = ask(site.node, "datapath", "drops")["drops"]
    counted = [one for one in drops if one["reason"] == "spoofed-address" and one["hook"] == "from-pod"]
    assert counted[0]["packets"] >= 1
    told = scraped(site.bed.folder / "metrics")
    assert told['plimsoll_datapath_dropped_packets_total{hook="from-pod",reason="spoofed-address"}'] >= 1
    assert told['plimsoll_datapath_forwarded_packets_total{hook="from-pod"}'] > 0
    assert told["plimsoll_datapath_endpoints"] == 2
    assert told["plimsoll_datapath_problems"] == 0
    assert told["plimsoll_datapath_generation"] > 0
    assert told['plimsoll_datapath_events_total{outcome="read"}'] >= 1
    assert told['plimsoll_datapath_program_verified_instructions{program="from_pod"}'] > 1000
    assert told['plimsoll_datapath_map_max_entries{map="flows"}'] >= 32768
