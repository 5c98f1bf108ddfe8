"""What the programs are told of each pod of the node: before its first packet, through restarts, until it is gone."""

from __future__ import annotations

import socket
import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import pytest

from datapath import layout
from datapath.errors import BpfRefused, NotWired
from datapath.fake_maps import FakeMap
from datapath.layout import address_bytes
from datapath.local_pods import LocalPods
from datapath.model import Endpoint, pod_mac

A = Endpoint("plma", "/run/netns/a", "eth0", "10.1.0.1", pod_mac("10.1.0.1"), 1400, "a/eth0", "fd00::1")
B = Endpoint("plmb", "/run/netns/b", "eth0", "10.1.0.2", pod_mac("10.1.0.2"))


@dataclass(slots=True)
class Told:
    """All that LocalPods speaks to, and what it said, in order."""

    endpoints: FakeMap = field(default_factory=lambda: FakeMap(4, layout.ENDPOINT_SIZE, 16))
    identities: dict[str, int] = field(default_factory=dict)
    said: list[tuple[Any, ...]] = field(default_factory=list)
    held: dict[str, layout.Target] = field(default_factory=dict)
    refuse_attach: bool = False

    def pods(self) -> LocalPods:
        return LocalPods(
            lambda: self.endpoints,
            self,  # type: ignore[arg-type]
            self,
            identity_of=lambda address: self.identities.get(address, 0),
            changed=lambda: self.said.append(("changed",)),
            gone=lambda address: self.said.append(("gone", address)),
        )

    def attach_pod(self, index: int, device: str) -> None:
        self.said.append(("attach", index, device))
        if self.refuse_attach:
            raise BpfRefused("attach", 19)

    def forget_pod(self, *arguments: Any) -> Any:
        if isinstance(arguments[0], int):
            self.said.append(("detach", arguments[0]))
            return None
        addresses, index = arguments
        ours = [one for one in addresses if one in self.held and self.held[one].ifindex == index]
        for one in ours:
            del self.held[one]
        return bool(ours)

    def set_pod(self, addresses: Collection[str], target: layout.Target) -> bool:
        self.said.append(("know", *addresses))
        changed = any(self.held.get(one) != target for one in addresses)
        self.held.update(dict.fromkeys(addresses, target))
        return changed

    def entry(self, index: int) -> layout.Endpoint:
        value = self.endpoints.lookup(index.to_bytes(4, sys.byteorder))
        assert value is not None
        return layout.Endpoint.unpack(value)


@pytest.fixture
def told() -> Told:
    return Told()


def test_a_pod_is_known_before_its_first_packet(told: Told) -> None:
    pods = told.pods()
    pods.attach(A, 7)
    assert told.said == [("know", "10.1.0.1", "fd00::1"), ("changed",), ("attach", 7, "plma")]
    entry = told.entry(7)
    assert (entry.address4, entry.address6) == (address_bytes("10.1.0.1"), address_bytes("fd00::1"))
    assert (entry.target.identity, entry.target.mtu) == (layout.IDENTITY_UNMANAGED, 1400)
    told.said.clear()
    pods.attach(A, 7)
    assert told.said == [("attach", 7, "plma")], "asked again, no flow is decided anew"
    pods.check(A, 7)


def test_a_device_that_was_made_anew_takes_the_old_one_along(told: Told) -> None:
    pods = told.pods()
    pods.attach(A, 7)
    pods.attach(A, 9)
    assert [pod.index for pod in pods.pods()] == [9]
    assert len(told.endpoints.entries) == 1
    assert told.held["10.1.0.1"].ifindex == 9
    assert ("detach", 7) in told.said
    assert pods.at(7) is None


def test_a_pod_that_goes_is_forgotten_with_its_connections(told: Told) -> None:
    pods = told.pods()
    pods.attach(A, 7)
    told.said.clear()
    pods.detach("plma")
    pods.detach("plma")
    assert told.said == [("detach", 7), ("changed",), ("gone", "10.1.0.1"), ("gone", "fd00::1")]
    assert not told.endpoints.entries
    assert not told.held
    with pytest.raises(NotWired, match="do not know plma"):
        pods.check(A, 7)


def test_what_somebody_did_to_the_map_is_seen(told: Told) -> None:
    pods = told.pods()
    pods.attach(A, 7)
    told.endpoints.delete((7).to_bytes(4, sys.byteorder))
    with pytest.raises(NotWired) as refused:
        pods.check(A, 7)
    assert "restart the node daemon" in refused.value.remedy


def test_the_registry_tells_an_identity_late_and_takes_none_away(told: Told) -> None:
    pods = told.pods()
    pods.attach(A, 7)
    told.said.clear()
    told.identities["fd00::1"] = 300
    pods.identify(["10.9.9.9"])
    assert told.said == []
    pods.identify(["10.1.0.1", "fd00::1"])
    assert told.entry(7).target.identity == told.held["10.1.0.1"].identity == 300
    assert told.said[-1] == ("changed",)
    told.identities.clear()
    pods.identify(["10.1.0.1"])
    assert told.entry(7).target.identity == 300, "a registry that forgot gives it again"


def test_policy_flags_are_of_those_that_are_named(told: Told) -> None:
    pods = told.pods()
    pods.attach(A, 7)
    pods.attach(B, 8)
    pods.enforce({7: layout.TARGET_INGRESS_POLICY})
    assert told.entry(7).target.flags == layout.TARGET_INGRESS_POLICY
    assert told.entry(8).target.flags == 0
    told.said.clear()
    pods.enforce({7: layout.TARGET_INGRESS_POLICY})
    assert told.said == []
    pods.enforce({})
    assert told.entry(7).target.flags == 0


def test_a_restart_takes_back_what_still_has_its_device(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    before = told.pods()
    told.identities["10.1.0.1"] = 300
    before.attach(A, 7)
    before.attach(B, 8)
    before.enforce({7: layout.TARGET_EGRESS_POLICY})
    told.identities.clear()
    told.said.clear()
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(7, "plma"), (8, "eth9")])
    pods = told.pods()
    pods.restore()
    [pod] = pods.pods()
    assert (pod.device, pod.addresses, pod.target.identity) == ("plma", ("10.1.0.1", "fd00::1"), 300)
    assert ("attach", 7, "plma") in told.said
    assert ("gone", "10.1.0.2") in told.said
    assert len(told.endpoints.entries) == 1
    pods.attach(A, 7)
    assert told.entry(7).target.identity == 300, "while the registry is away"
    assert told.entry(7).target.flags == layout.TARGET_EGRESS_POLICY


def test_a_device_that_goes_meanwhile_keeps_no_daemon_from_starting(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    told.pods().attach(A, 7)
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(7, "plma")])
    told.refuse_attach = True
    pods = told.pods()
    pods.restore()
    with pytest.raises(BpfRefused):
        pods.attach(A, 7)


def test_a_pod_without_a_lease_is_dropped(told: Told) -> None:
    pods = told.pods()
    pods.attach(A, 7)
    pods.attach(B, 8)
    assert pods.keep({"plmb"}) == ["plma"]
    assert [pod.device for pod in pods.pods()] == ["plmb"]


def test_a_refusal_to_attach_is_told(told: Told) -> None:
    pods = told.pods()
    told.refuse_attach = True
    with pytest.raises(BpfRefused):
        pods.attach(A, 7)
    pods.detach("plma")
    assert not told.endpoints.entries
