"""The programs loaded, and their maps filled for world.py's node as its daemon would fill them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final

from datapath import layout
from datapath.config import DatapathConfig, Timeouts
from datapath.layout import address_bytes, mac_bytes
from datapath.loader import legacy, links, maps, objects
from datapath.loader.clock import tick_rate
from datapath.loader.maps import Map
from datapath.loader.pins import remove as remove_pins
from datapath.model import HOST_MAC
from datapath.policy.model import Direction, EndpointPolicy, Rule, Verdict
from datapath.policy.writer import PolicyWriter
from tests.bench.packet.world import (
    NODE,
    NODE6,
    NODE_MAC,
    REMOTE_POD,
    REMOTE_POD6,
    A,
    B,
    World,
)  # fmt: skip

FLOWS: Final = 512 * 1024
REMOTE_IDENTITY: Final = 1003
ALLOWED_PORTS: Final = (8064, 8191)
_TCP, _UDP = 6, 17
_KEY: Final = struct.pack("=I", 0)


class Node:
    """Maps of its own, shared by all objects through a folder on bpffs; all is gone when the block is left.

    :ivar programs: of all objects, by name."""

    def __init__(
        self, world: World, names: Sequence[str] = ("pod", "device"), folder: Path | None = None, *, flows: int = FLOWS
    ) -> None:
        self.flows = flows
        self._world = world
        self._names, self._folder = names, folder
        self._pins = Path("/sys/fs/bpf") / world.tag
        self._stack = ExitStack()

    def __enter__(self) -> Node:
        with self._stack as undo:
            hz, usual = tick_rate(), DatapathConfig()
            times = {f"{name[:-2]}_j": round(getattr(usual.timeouts, name) * hz) for name in Timeouts.__slots__}
            config = layout.Config(
                hz=hz, tunnel_ifindex=0,
                flags=layout.CONFIG_IPV4 | layout.CONFIG_IPV6 | layout.CONFIG_MASQUERADE4 | layout.CONFIG_MASQUERADE6,
                recheck_j=round(usual.recheck_s * hz), nat_port_low=usual.nat_ports[0],
                nat_port_high=usual.nat_ports[1],
                host_mac=mac_bytes(HOST_MAC), tunnel_mac=mac_bytes(HOST_MAC), gateway4=address_bytes(NODE),
                gateway6=address_bytes(NODE6), **times,
            )  # fmt: skip
            sizes = {"flows": self.flows, "nat": self.flows}
            undo.callback(remove_pins, self._pins)
            loaded = [
                undo.enter_context(
                    objects.load(
                        objects.find(name, self._folder), pins=self._pins, rodata={"config": config.pack()}, sizes=sizes
                    )
                )
                for name in self._names
            ]
            self.maps = {name: one for each in loaded for name, one in each.maps.items()}
            self.programs = {name: one for each in loaded for name, one in each.programs.items()}
            self._policies = PolicyWriter(self.maps["policies"], _new_inner)
            self._fill()
            self._stack = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def attach(self) -> None:
        """As the daemon does: filters at the pods' devices, links at the one that leads out."""
        with self._world.inside("node"):
            for pod in (A, B):
                index = self._world.ifindex("node", pod.device)
                for name, ingress in (("from_pod", True), ("to_pod", False)):
                    self._stack.callback(self._take_off, legacy.attach(self.programs[name], index, ingress))
            out = self._world.ifindex("node", "ens0")
            for name, ingress in (("from_device", True), ("to_device", False)):
                self._stack.callback(links.attach_tcx(self.programs[name], out, ingress).detach)

    def _take_off(self, attachment: links.Attachment) -> None:
        with self._world.inside("node"):
            attachment.detach()

    def _fill(self) -> None:
        usual = DatapathConfig()
        runtime = layout.Runtime(
            generation=1, trace_every=usual.trace_every, flow_events=usual.flow_events,
            drop_events_per_tick=usual.drop_events_per_tick, verdict_events=usual.verdict_events,
            icmp_errors_per_tick=usual.icmp_errors_per_tick,
        )  # fmt: skip
        self.maps["runtime"].update(_KEY, runtime.pack())
        for pod in (A, B):
            ifindex = self._world.ifindex("node", pod.device)
            target = layout.Target(
                kind=layout.TARGET_POD, flags=layout.TARGET_INGRESS_POLICY | layout.TARGET_EGRESS_POLICY, mtu=1500,
                identity=pod.identity, ifindex=ifindex, endpoint=pod.number, node=0, mac=mac_bytes(pod.mac),
                host_mac=mac_bytes(HOST_MAC),
            )  # fmt: skip
            endpoint = layout.Endpoint(address_bytes(pod.address), address_bytes(pod.address6), target)
            self.maps["endpoints"].update(struct.pack("=I", ifindex), endpoint.pack())
            for address in (pod.address, pod.address6):
                self.maps["addresses"].update(address_bytes(address), target.pack())
        for address, kind, identity in (
            (NODE, layout.TARGET_HOST, layout.IDENTITY_HOST),
            (NODE6, layout.TARGET_HOST, layout.IDENTITY_HOST),
            (REMOTE_POD, layout.TARGET_REMOTE_POD, REMOTE_IDENTITY),
            (REMOTE_POD6, layout.TARGET_REMOTE_POD, REMOTE_IDENTITY),
        ):
            self.maps["addresses"].update(address_bytes(address), _target(kind, identity).pack())
        device = layout.Device(
            address_bytes(NODE), address_bytes(NODE6), layout.DEVICE_MASQUERADE4 | layout.DEVICE_MASQUERADE6, 1500,
            mac_bytes(NODE_MAC),
        )  # fmt: skip
        self.maps["devices"].update(struct.pack("=I", self._world.ifindex("node", "ens0")), device.pack())
        self.set_policies()

    def set_policies(self, more: int = 0) -> None:
        """Both pods may speak with each other and the world, on some ports; `more` rules are for others."""
        self._policies.apply({pod.number: EndpointPolicy(frozenset(_rules(more))) for pod in (A, B)})
        self._new_generation()

    def know_addresses(self, count: int) -> None:
        """So many more pods of other nodes."""
        keys = [struct.pack("!10x2sI", b"\xff\xff", 0x0A0A0000 + number) for number in range(count)]
        values = [_target(layout.TARGET_REMOTE_POD, 2000 + number % 1000).pack() for number in range(count)]
        self.maps["addresses"].update_batch(b"".join(keys), b"".join(values), count)

    def _new_generation(self) -> None:
        runtime = layout.Runtime.unpack(self.maps["runtime"].lookup(_KEY) or b"")
        self.maps["runtime"].update(_KEY, replace(runtime, generation=runtime.generation + 1).pack())


def _target(kind: int, identity: int) -> layout.Target:
    return layout.Target(
        kind=kind, flags=0, mtu=0, identity=identity, ifindex=0, endpoint=0, node=0, mac=bytes(6), host_mac=bytes(6)
    )


def _rules(more: int) -> Iterator[Rule]:
    number = 1
    for direction in Direction:
        for identity in (A.identity, B.identity, REMOTE_IDENTITY, layout.IDENTITY_WORLD):
            for protocol in (_TCP, _UDP):
                yield Rule(number, direction, Verdict.ALLOW, identity, protocol, *ALLOWED_PORTS)
                number += 1
        for other in range(more // 2):
            yield Rule(number, direction, Verdict.ALLOW, 2000 + other, _TCP, 443, 443)
            number += 1


def _new_inner() -> Map:
    return Map.create(maps.LPM_TRIE, layout.POLICY_KEY_SIZE, layout.POLICY_SIZE, 16384, flags=maps.NO_PREALLOC)
