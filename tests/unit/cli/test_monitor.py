"""plimsoll monitor: events as they come, for people, for programs, and as packets."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any, Protocol

import pytest

from datapath import layout
from datapath.events.pcap import read_packets
from datapath.events.testing import event_record
from tests.unit.cli.conftest import Answer, Plimsoll, Site

PACKET = bytes.fromhex("0e500a4d00010e580a0001050800") + b"\x45" + bytes(59)
DENIED: dict[str, Any] = {
    "type": layout.EVENT_DROP, "reason": layout.DROP_POLICY_EGRESS, "source": "10.0.1.5", "destination": "198.51.100.7",
    "source_port": 40000, "destination_port": 443, "protocol": "tcp", "ifindex": 7, "destination_identity": 2,
    "length": 74, "packet": PACKET, "line": 120,
}  # fmt: skip
OPENED = {**DENIED, "type": layout.EVENT_FLOW_NEW, "reason": 0, "destination": "10.0.1.6", "destination_port": 5432}


class Monitor(Protocol):
    def __call__(self, *args: str, events: list[dict[str, Any]]) -> Answer: ...


@pytest.fixture
def monitor(plimsoll: Plimsoll, site: Site) -> Monitor:
    """Runs the monitor; once it listens, the events happen."""

    def run(*args: str, events: list[dict[str, Any]]) -> Answer:
        hub, records = site.datapath.view.hub, site.datapath.view.records

        def happen() -> None:
            until = time.monotonic() + 10
            while not hub.counts().subscribers and time.monotonic() < until:
                time.sleep(0.005)
            records.put(*(event_record(**event) for event in events))

        thread = threading.Thread(target=happen)
        thread.start()
        try:
            return plimsoll("monitor", *args)
        finally:
            thread.join()

    return run


def test_a_line_for_people(monitor: Monitor) -> None:
    answer = monitor("--count", "2", events=[DENIED, OPENED])
    assert answer.code == 0
    first, second = answer.out.splitlines()
    assert "dropped   from-pod     shop/web 10.0.1.5:40000 > world 198.51.100.7:443 tcp" in first
    assert "policy-egress: policy does not let the sender talk to this destination" in first
    assert "forwarded from-pod     shop/web 10.0.1.5:40000 > shop/db 10.0.1.6:5432 tcp flow-new" in second


def test_an_object_a_line_for_programs(monitor: Monitor) -> None:
    answer = monitor("--count", "1", "--json", events=[DENIED])
    (event,) = [json.loads(line) for line in answer.out.splitlines()]
    assert (event["type"], event["verdict"], event["reason"]) == ("drop", "dropped", "policy-egress")
    assert event["source"] == {"address": "10.0.1.5", "port": 40000, "pod": "shop/web", "identity": 0}
    assert (event["device"], event["source_line"], event["count"]) == ("plmweb", "pod.bpf.c:120", 1)
    assert event["remedy"]
    assert abs(time.time() - _seconds(event["time"])) < 86400 * 365 * 100


def _seconds(moment: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(moment).timestamp()


def test_filters_work_at_the_daemon(monitor: Monitor) -> None:
    answer = monitor("--count", "1", "--verdict", "forwarded", "--port", "5432", "--json", events=[DENIED, OPENED])
    assert json.loads(answer.out)["type"] == "flow-new"


def test_a_flood_is_two_lines(monitor: Monitor) -> None:
    answer = monitor(
        "--count", "2", "--interval", "0.3", events=[{**DENIED, "source_port": port} for port in range(1, 501)]
    )
    first, second = answer.out.splitlines()
    assert " x" not in first
    assert " x499" in second


def test_each_by_itself(monitor: Monitor) -> None:
    answer = monitor("--count", "500", "--interval", "0", "--json", events=[DENIED] * 501)
    assert len(answer.out.splitlines()) == 500


def test_what_the_programs_left_out_is_told(monitor: Monitor) -> None:
    assert "(17 more not told)" in monitor("--count", "1", events=[{**DENIED, "suppressed": 17}]).out


def test_a_reader_is_told_what_it_lost(monitor: Monitor, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    view = site.datapath.view
    subscribe = view.hub.subscribe
    monkeypatch.setattr(view.hub, "subscribe", lambda test, notify: subscribe(test, notify, capacity=3))
    answer = monitor("--count", "3", "--interval", "0", "--json", events=[DENIED] * 10)
    lines = [json.loads(line) for line in answer.out.splitlines()]
    assert lines[-1] == {"type": "lost", "events": 7, "in_ring": 0}


def test_the_pod_behind_a_forged_address_is_named(monitor: Monitor) -> None:
    forged = {**DENIED, "reason": layout.DROP_SPOOFED_ADDRESS, "source": "192.0.2.1"}
    assert "by shop/web" in monitor("--count", "1", "--pod", "shop/web", events=[forged]).out


def test_packets_in_a_file(monitor: Monitor, tmp_path: Path) -> None:
    path = tmp_path / "drops.pcapng"
    answer = monitor("--count", "2", "--pcap", str(path), "--json", events=[DENIED, {**DENIED, "ifindex": 8}])
    assert answer.json == {"file": str(path), "packets": 2, "lost": 0}
    packets = list(read_packets(path.read_bytes()))
    assert [(one.device, one.packet, one.length) for one in packets] == [("plmweb", PACKET, 74), ("plmdb", PACKET, 74)]
    assert packets[0].comment == "dropped from-pod policy-egress"


def test_a_file_that_cannot_be_written(plimsoll: Plimsoll, site: Site, tmp_path: Path) -> None:
    answer = plimsoll("monitor", "--pcap", str(tmp_path / "no" / "file"), "--json")
    assert answer.code == 5
    assert answer.error["field"] == "pcap"


def test_nobody_listens_after_the_end(monitor: Monitor, site: Site) -> None:
    monitor("--count", "1", events=[DENIED])
    until = time.monotonic() + 5
    while site.datapath.view.hub.counts().subscribers and time.monotonic() < until:
        time.sleep(0.01)
    assert site.datapath.view.hub.counts().subscribers == 0
