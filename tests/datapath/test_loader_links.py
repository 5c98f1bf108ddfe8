"""Programs on devices: attached, replaced under traffic, found again after a restart, and all taken away.

┌──────── sender ────────┐        ┌──────── receiver ───────┐
│ near 10.9.0.1 (tested) ├────────┤ far 10.9.0.2            │
└────────────────────────┘        └─────────────────────────┘
"""

from __future__ import annotations

import secrets
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from datapath.errors import BpfRefused, NotLoaded
from datapath.loader import legacy, links, pins
from datapath.loader.objects import Loaded, load
from datapath.loader.programs import Program
from datapath.namespaces import opened, visiting
from tests.datapath.compiled import bpf_folder, compiled

pytestmark = [pytest.mark.root, pytest.mark.tool("ip", "tc", "clang-19", "bpftool", "make")]

OK, SHOT = 0, 2


@dataclass(slots=True)
class Pair:
    sender: str
    receiver: str
    namespace: int
    near: int
    folder: Path

    def ip(self, namespace: str, *commands: str) -> None:
        subprocess.run(["ip", "-n", namespace, "-batch", "-"], input="\n".join(commands), text=True, check=True)

    def seen(self, loaded: Loaded, number: int) -> int:
        """Packets that the build with this number saw."""
        packets: int = struct.unpack("=II", loaded.maps["table"].lookup(struct.pack("=I", number)) or bytes(8))[0]
        return packets

    def said(self, *command: str) -> str:
        done = subprocess.run(
            ["ip", "netns", "exec", self.sender, *command], capture_output=True, text=True, check=True
        )
        return done.stdout


@pytest.fixture
def pair() -> Iterator[Pair]:
    tag = f"pll{secrets.token_hex(3)}"
    sender, receiver = names = [f"{tag}-{name}" for name in ("sender", "receiver")]
    with ExitStack() as stack:
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
            stack.callback(subprocess.run, ["ip", "netns", "del", name], check=False)
        folder = stack.enter_context(bpf_folder())
        namespace = stack.enter_context(opened(f"/run/netns/{sender}"))
        one = Pair(sender, receiver, namespace, near=0, folder=folder)
        one.ip(
            one.sender,
            f"link add near address 02:00:00:00:00:01 type veth peer name far address 02:00:00:00:00:02 "
            f"netns {one.receiver}",
            "addr add 10.9.0.1/24 dev near",
            "link set near up",
            "neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev near nud permanent",
        )
        one.ip(one.receiver, "addr add 10.9.0.2/24 dev far", "link set far up")
        with visiting(one.namespace):
            one.near = socket.if_nametoindex("near")
        yield one
        with visiting(one.namespace):
            pins.remove(folder)


def build(pair: Pair, number: int, verdict: int = OK) -> Loaded:
    return load(compiled("loader"), pins=pair.folder, rodata={"settings": struct.pack("=II", number, verdict)})


class Flood:
    """UDP from the sender to the receiver, as fast as one thread can, until told to stop."""

    def __init__(self, pair: Pair) -> None:
        with visiting(pair.namespace):
            self.source = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with opened(f"/run/netns/{pair.receiver}") as descriptor, visiting(descriptor):
            self.sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sink.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        self.sink.bind(("10.9.0.2", 5000))
        self.sink.settimeout(1)
        self.sent = 0
        self.enough = threading.Event()
        self.thread = threading.Thread(target=self._send)

    def _send(self) -> None:
        while not self.enough.is_set() and self.sent < 60_000:
            self.source.sendto(b"packet", ("10.9.0.2", 5000))
            self.sent += 1

    def __enter__(self) -> Flood:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.enough.set()
        self.thread.join()
        self.source.close()
        self.sink.close()

    def wait(self, packets: int) -> None:
        """Until so many more have been sent."""
        goal, deadline = self.sent + packets, time.monotonic() + 10
        while self.sent < goal and time.monotonic() < deadline:
            time.sleep(0.0002)

    def received(self) -> int:
        self.enough.set()
        self.thread.join()
        count = 0
        self.sink.setblocking(False)
        try:
            while True:
                self.sink.recv(100)
                count += 1
        except BlockingIOError:
            return count


Attach = Callable[[Pair, Program], links.Attachment]


def _tcx(pair: Pair, program: Program) -> links.Attachment:
    return links.attach_tcx(program, pair.near, False, pin=pair.folder / "links" / links.pin_name("to", "near"))


def _clsact(pair: Pair, program: Program) -> links.Attachment:
    return links.attach_tcx(program, pair.near, False, force_legacy=True)


@pytest.mark.parametrize("attach", [_tcx, _clsact])
def test_a_program_is_replaced_under_traffic_and_no_packet_is_lost(pair: Pair, attach: Attach) -> None:
    """Each build stands for a daemon that starts anew; every packet is seen by one of them, and arrives."""
    builds = [build(pair, number) for number in range(1, 6)]
    with visiting(pair.namespace):
        attach(pair, builds[0].programs["classify"]).close()
    with Flood(pair) as flood:
        for turn in range(200):
            with visiting(pair.namespace):
                attach(pair, builds[turn % 5].programs["classify"]).close()
            flood.wait(20)
        received = flood.received()
        assert flood.sent > 1000
        assert received == flood.sent
        frames = sum(pair.seen(one, number) for number, one in enumerate(builds, start=1))
        # Those that the test did not send: ARP and the kernel's own chatter.
        assert flood.sent <= frames <= flood.sent + 50
    assert all(pair.seen(one, number) for number, one in enumerate(builds, start=1))
    for one in builds:
        one.close()


@pytest.mark.parametrize("attach", [_tcx, _clsact])
def test_what_is_attached_stays_when_the_process_lets_go(pair: Pair, attach: Attach) -> None:
    one = build(pair, 1, SHOT)
    with visiting(pair.namespace):
        attach(pair, one.programs["classify"]).close()
    one.close()
    with Flood(pair) as flood:
        flood.enough.wait(0.2)
        assert flood.received() == 0
    with visiting(pair.namespace):
        pins.remove(pair.folder)
    with Flood(pair) as flood:
        flood.enough.wait(0.2)
        assert flood.received() == flood.sent > 0


def test_both_directions_by_clsact_and_back(pair: Pair) -> None:
    with visiting(pair.namespace), build(pair, 1) as one:
        filters = [
            links.attach_tcx(one.programs["classify"], pair.near, ingress, force_legacy=True)
            for ingress in (True, False)
        ]
        assert pins.inventory(pair.folder).filters == ("near ingress", "near egress")
        assert "plimsoll:classify direct-action" in pair.said("tc", "filter", "show", "dev", "near", "ingress")
        filters[0].detach()
        assert [found.ingress for found in legacy.ours(pair.near)] == [False]
        assert "clsact" in pair.said("tc", "qdisc", "show", "dev", "near")
        filters[1].detach()
        filters[1].detach()
        assert "clsact" not in pair.said("tc", "qdisc", "show", "dev", "near")


def test_filters_of_others_are_left_alone(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    with visiting(pair.namespace), build(pair, 1) as one, monkeypatch.context() as as_others:
        as_others.setattr(legacy, "_NAME_PREFIX", "others:")
        as_others.setattr(legacy, "PRIORITY", 7)
        legacy.attach(one.programs["tell"], pair.near, False)
        as_others.undo()
        links.attach_tcx(one.programs["classify"], pair.near, False, force_legacy=True)
        assert "plimsoll:classify" in pair.said("tc", "filter", "show", "dev", "near", "egress")
        pins.remove(pair.folder)
        assert "others:tell" in pair.said("tc", "filter", "show", "dev", "near", "egress")
        assert "plimsoll" not in pair.said("tc", "filter", "show", "dev", "near", "egress")


def test_xdp_in_the_driver_and_behind_it(pair: Pair) -> None:
    pin = pair.folder / "links" / links.pin_name("xdp", "near")
    with visiting(pair.namespace), build(pair, 1) as one, build(pair, 2) as two:
        link = links.attach_xdp(one.programs["early"], pair.near, pin=pin)
        assert (link.mode, links.xdp_mode(pair.near)) == ("native", "native")
        again = links.attach_xdp(two.programs["early"], pair.near, pin=pin)
        assert again.mode == "native"
        assert again.info().id == link.info().id
        assert again.info().program_id == two.programs["early"].id
        link.close()
        again.detach()
        assert links.xdp_mode(pair.near) == ""
        assert not pin.exists()
        generic = links.attach_xdp(one.programs["early"], pair.near, pin=pin, generic=True)
        assert (generic.mode, links.xdp_mode(pair.near)) == ("generic", "generic")
        generic.detach()


def test_xdp_falls_back_where_the_driver_has_none(pair: Pair) -> None:
    """The loopback device's driver knows no XDP."""
    with visiting(pair.namespace), build(pair, 1) as one:
        link = links.attach_xdp(one.programs["early"], socket.if_nametoindex("lo"))
        assert link.mode == "generic"
        link.detach()
        with pytest.raises(BpfRefused):
            links.attach_xdp(one.programs["classify"], pair.near)


def test_a_device_of_the_same_name_is_attached_anew(pair: Pair) -> None:
    pin = pair.folder / "links" / links.pin_name("xdp", "near.7")
    with visiting(pair.namespace), build(pair, 1) as one:
        links.attach_xdp(one.programs["early"], pair.near, pin=pin).close()
        pair.ip(pair.sender, "link del near")
        assert not links.pinned(pin).attached()
        pair.ip(pair.sender, "link add near type veth peer name other", "link set near up")
        near = socket.if_nametoindex("near")
        second = links.attach_xdp(one.programs["early"], near, pin=pin)
        assert second.info().words[0] == near
        second.close()
        pair.ip(pair.sender, "link del near")
        assert pins.detach_gone(pair.folder) == (pin.name,)
        assert pins.detach_gone(pair.folder) == ()


def test_cgroups(pair: Pair) -> None:
    cgroup = next(
        (
            path
            for path in map(Path, ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"))
            if (path / "cgroup.controllers").exists()
        ),
        None,
    )
    if cgroup is None:
        pytest.skip("needs cgroup2")
    pin = pair.folder / "links" / "sockops"
    with build(pair, 1) as one, build(pair, 2) as two:
        first = links.attach_cgroup(one.programs["sockets"], cgroup, links.SOCK_OPS, pin=pin)
        second = links.attach_cgroup(two.programs["sockets"], cgroup, links.SOCK_OPS, pin=pin)
        assert first.info().id == second.info().id
        assert second.info().program_id == two.programs["sockets"].id
        first.close()
        second.detach()
        assert not pin.exists()
        with pytest.raises(NotLoaded):
            links.attach_cgroup(one.programs["sockets"], Path("/nonexistent"), links.SOCK_OPS)


def exists(number: int) -> bool:
    try:
        Program.by_id(number).close()
    except NotLoaded:
        return False
    return True


def test_cleaning_up_leaves_nothing(pair: Pair) -> None:
    with visiting(pair.namespace), build(pair, 1) as one:
        pins.pin_programs(pair.folder, dict(one.programs))
        links.attach_tcx(one.programs["classify"], pair.near, True, pin=pair.folder / "links" / "from-near").close()
        links.attach_xdp(one.programs["early"], pair.near, pin=pair.folder / "links" / "xdp-near").close()
        links.attach_tcx(one.programs["classify"], pair.near, False, force_legacy=True)
        found = pins.remove(pair.folder)
        if links.has_tcx(one.programs["classify"]):
            assert found.links == ("from-near", "xdp-near")
            assert found.filters == ("near egress",)
        else:
            assert found.links == ("xdp-near",)
            assert found.filters == ("near ingress", "near egress")
        assert "classify" in found.programs
        assert {"table", "layout"} <= set(found.maps)
        assert not pins.inventory(pair.folder)
        assert not pair.folder.exists()
        assert "clsact" not in pair.said("tc", "qdisc", "show")
        assert "prog" not in pair.said("ip", "-d", "link", "show", "dev", "near")
        ids = [program.id for program in one.programs.values()]
    deadline = time.monotonic() + 10  # the kernel frees programs when nobody can be running them
    while any(exists(number) for number in ids):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not pins.remove(pair.folder)
