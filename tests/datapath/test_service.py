"""The datapath of a node in a namespace, without its daemon: what it finds, attaches, keeps and gives up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from datapath import layout
from datapath.config import DatapathConfig, RoutingMode
from datapath.errors import OwnRange
from datapath.identities.model import Change, ClusterEndpoint, ClusterNode, ClusterState
from datapath.layout import address_bytes
from datapath.loader import pins
from datapath.model import OVERLAY_DEVICE
from datapath.programs import NodePrograms
from datapath.retire import retire
from datapath.service import Datapath
from tests.datapath.compiled import bpf_folder, build_programs
from tests.datapath.spaces import Spaces

pytestmark = [pytest.mark.root, pytest.mark.tool("ip", "make", "clang-19")]


@pytest.fixture
def spaces() -> Iterator[Spaces]:
    build_programs()
    with Spaces() as one:
        yield one


@pytest.fixture
def folder() -> Iterator[Path]:
    with bpf_folder() as one:
        yield one


@pytest.fixture
def node(spaces: Spaces) -> str:
    """
    node ── ens5 (MTU 1400) ── world (10.0.0.1)
    """
    node, world = spaces.add("node"), spaces.add("world")
    spaces.cable(node, "ens5", world, "lan0", 1400)
    spaces.ip(node, "addr add 10.0.0.5/24 dev ens5", "route add default via 10.0.0.1")
    return node


@contextmanager
def started(spaces: Spaces, node: str, config: DatapathConfig) -> Iterator[Datapath]:
    one = Datapath(config, "node")
    with spaces.inside(node):
        one.start()
        try:
            yield one
        finally:
            one.close()


def test_what_cannot_be_is_a_problem_and_no_failed_start(spaces: Spaces, node: str, folder: Path) -> None:
    config = DatapathConfig(bpf_dir=folder, prefilter=True, sockmap_cgroup=Path("/nonexistent"))
    with started(spaces, node, config) as datapath:
        assert "/nonexistent" in datapath.underlay.problems["sockmap"]
        assert datapath.pod_mtu(0) == 1400
        assert datapath.pod_mtu(9001) == 9001, "an interface of its own"
        assert datapath.prefilter is not None
        with pytest.raises(OwnRange):
            datapath.prefilter.add(["10.0.0.1/32"])
        with pytest.raises(OwnRange):
            datapath.prefilter.add(["10.0.0.5/32"])
        datapath.refresh()
        datapath.look_at_ranges()
        assert "sockmap" in datapath.underlay.problems, "until it is put right"
        hooks = {(one.program, one.device, one.by) for one in datapath.programs.attached()}
        assert {program for program, device, _ in hooks if device == "ens5"} == {"from_device", "to_device"}


def test_a_stream_of_small_states_lets_flows_stay_decided(spaces: Spaces, node: str, folder: Path) -> None:
    with started(spaces, node, DatapathConfig(bpf_dir=folder, routing=RoutingMode.TUNNEL)) as datapath:
        assert datapath.underlay.overlay_index
        assert datapath.pod_mtu(0) == 1400 - 50
        assert datapath.pod_mtu(9001) == 1400 - 50
        other = ClusterNode("b", ("10.0.0.6",), ("10.2.0.0/16",), "tunnel")
        nodes = {"b": other}
        datapath.take(ClusterState(nodes, {}, {"b": Change(None, other)}, {}, whole=True))
        before = datapath.runtime.generation
        endpoints = {}
        for number in range(500):
            one = ClusterEndpoint("b", f"c{number}/eth0", (f"10.2.{number // 250}.{number % 250}",), 300)
            endpoints[one.key] = one
            datapath.take(ClusterState(nodes, endpoints, {}, {one.key: Change(None, one)}))
            if number == 100:
                value = datapath.programs.maps["addresses"].lookup(address_bytes(one.addresses[0]))
                assert value is not None, "new flows find it at once"
                assert layout.Target.unpack(value).kind == layout.TARGET_REMOTE_POD
        datapath.decide_anew()
        assert datapath.runtime.generation - before < 100
        with spaces.inside(node):
            assert spaces.show(node, "route", "show", "dev", OVERLAY_DEVICE)

    with spaces.inside(node):
        assert retire(folder)
        assert not retire(folder)
    assert [one["ifname"] for one in spaces.show(node, "link")] == ["lo", "ens5"]
    assert not [one for one in spaces.show(node, "route") if one["dst"].startswith("10.2.")]


def test_programs_stay_attached_and_are_taken_up_again(spaces: Spaces, node: str, folder: Path) -> None:
    config = layout.Config(hz=250, flags=layout.CONFIG_IPV4)
    spaces.ip(node, "link add plmpod type veth peer name far0", "link add ens6 type veth peer name far6")
    device, pod, other = (spaces.index(node, name) for name in ("ens5", "plmpod", "ens6"))
    with spaces.inside(node):
        first = NodePrograms(folder, {})
        first.load(config)
        first.attach_pod(pod, "plmpod")
        first.attach_pod(pod, "plmpod")
        assert not first.attach_devices({"ens5": device, "ens6": other}, {})
        assert "gone" in first.attach_devices({"ens5": device, "ens6": other, "gone": 4_000}, {})
        attached = {(one.program, one.device) for one in first.attached()}
        assert {("from_pod", "plmpod"), ("to_pod", "plmpod"), ("from_device", "ens6")} <= attached
        before = pins.inventory(folder)
        assert len(before.links) == 4 or len(before.filters) == 6, "TCX where the kernel has it"
        first.close()
        assert pins.inventory(folder) == before, "the kernel goes on by itself"

        second = NodePrograms(folder, {})
        second.load(config)
        second.attach_devices({"ens5": device}, {})
        left = pins.inventory(folder)
        assert not [name for name in left.links if name.endswith("ens6")], "what is none of ours now is let go"
        second.attach_pod(pod, "plmpod")
        spaces.ip(node, "link del plmpod")
        second.load(layout.Config(hz=250, flags=layout.CONFIG_IPV4 | layout.CONFIG_IPV6))
        assert {one.device for one in second.attached()} == {"ens5"}
        second.close()
