"""The state of the cloud, and what changes it one step at a time."""

from __future__ import annotations

import ipaddress
import string
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from lab.fake_alibaba.errors import ApiError, mismatch, refusal
from lab.fake_alibaba.records import AVAILABLE, DETACHING, Eip, Instance, Interface, SecurityGroup, Vpc, VSwitch
from lab.fake_cloud.cloud import BaseCloud
from lab.fake_cloud.history import R, Table
from lab.fake_cloud.space import Space
from lab.fake_cloud.tokens import Tokens

_NOT_FOUND: Final = {
    "i": "InvalidInstanceId.NotFound",
    "eni": "InvalidEniId.NotFound",
    "vsw": "InvalidVSwitchId.NotFound",
    "vpc": "InvalidVpcId.NotFound",
    "sg": "InvalidSecurityGroupId.NotFound",
    "eip": "InvalidAllocationId.NotFound",
}
_LETTERS: Final = string.digits + string.ascii_lowercase
# The first address of a vSwitch and its last three belong to the cloud; the third-last is the gateway.
_RESERVED_FIRST, _RESERVED_LAST = 1, 3


class Cloud(BaseCloud):
    """One region of one account.

    :param clock: seconds since the epoch; tests own it.
    :param seed: makes ids and addresses repeat.
    """

    def __init__(
        self, *, account: str, region: str, clock: Callable[[], float] = time.time, seed: int | None = None
    ) -> None:
        super().__init__(account=account, region=region, clock=clock, seed=seed)
        self.tokens = Tokens(mismatch)
        self.vpcs = self.table(Vpc)
        self.vswitches = self.table(VSwitch)
        self.groups = self.table(SecurityGroup)
        self.interfaces = self.table(Interface)
        self.instances = self.table(Instance)
        self.eips = self.table(Eip)
        self.spaces: dict[str, Space] = {}
        self.attached: defaultdict[str, set[str]] = defaultdict(set)

    def new_id(self, kind: str) -> str:
        return f"{kind}-bp1" + "".join(self.chance.choices(_LETTERS, k=17))

    def find(self, table: Table[R], record_id: str) -> R:
        """The record, for a call that changes something. Raises ApiError for an id that nothing has."""
        record = table.current.get(record_id)
        if record is None or (self.faults.eventual_consistency_on_writes and table.seen(record_id) is None):
            raise not_found(record_id)
        return record

    # changing

    def add_vswitch(self, vswitch: VSwitch) -> None:
        network = ipaddress.IPv4Network(vswitch.cidr)
        self.spaces[vswitch.id] = Space(
            vswitch.id, network, self.chance, refusal, first=_RESERVED_FIRST, last=_RESERVED_LAST
        )
        self.vswitches.put(vswitch)
        self.changed()

    def put_interface(self, interface: Interface) -> None:
        """Stores the interface and keeps the index in step."""
        self._unlink(interface.id)
        if interface.instance_id:
            self.attached[interface.instance_id].add(interface.id)
        self.interfaces.put(interface)
        self.changed()

    def drop_interface(self, interface: Interface) -> None:
        """Deletes the interface; its addresses are free again, and its elastic IP is."""
        self._unlink(interface.id)
        for address in interface.addresses:
            self.spaces[interface.vswitch_id].release(address)
        for prefix in interface.prefixes:
            self.spaces[interface.vswitch_id].release_prefix(prefix)
        if interface.eip_id:
            self.eips.put(replace(self.eips.current[interface.eip_id], target_kind="", target_id="", interface_id=""))
        self.interfaces.remove(interface.id)
        self.changed()

    def _unlink(self, interface_id: str) -> None:
        before = self.interfaces.current.get(interface_id)
        if before is not None and before.instance_id:
            self.attached[before.instance_id].discard(interface_id)

    def interfaces_of(self, instance_id: str) -> list[Interface]:
        """At present, by place."""
        found = [self.interfaces.current[each] for each in self.attached.get(instance_id, ())]
        return sorted(found, key=lambda each: (each.place, each.number))

    def interfaces_seen_of(self, instance_id: str) -> list[Interface]:
        """As a reader sees them, by creation."""
        candidates = {*self.attached.get(instance_id, ()), *self.interfaces.changing()}
        seen = (self.interfaces.seen(each) for each in candidates)
        return sorted((each for each in seen if each and each.instance_id == instance_id), key=lambda each: each.number)

    def part(self, interface: Interface) -> None:
        """The interface is attached to nothing from now on."""
        self.put_interface(replace(interface, status=AVAILABLE, instance_id="", place=0, network_card=0))

    def arrive(self, interface_id: str, before: str, status: str) -> None:
        """Moves an interface on from status `before`, if it still is there."""
        interface = self.interfaces.current.get(interface_id)
        if interface is None or interface.status != before:
            return
        if before == DETACHING:
            self.part(interface)
        else:
            self.put_interface(replace(interface, status=status))


def not_found(record_id: str) -> ApiError:
    code = _NOT_FOUND.get(record_id.partition("-")[0], "InvalidResourceId.NotFound")
    return ApiError(code, f"The specified resource {record_id} does not exist.")
