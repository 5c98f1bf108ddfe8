"""The state of the cloud, and what changes it one step at a time."""

from __future__ import annotations

import ipaddress
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from lab.fake_cloud.cloud import BaseCloud
from lab.fake_cloud.history import R, Table
from lab.fake_cloud.space import Space, Space6
from lab.fake_cloud.tokens import Tokens
from lab.fake_ec2.errors import ApiError, mismatch, refusal
from lab.fake_ec2.protocol.rendering import Rendered
from lab.fake_ec2.records import ElasticIp, Instance, Interface, RouteTable, SecurityGroup, Subnet, Vpc

_NOT_FOUND: Final = {
    "i": ("InvalidInstanceID.NotFound", "The instance ID '{}' does not exist"),
    "eni": ("InvalidNetworkInterfaceID.NotFound", "The networkInterface ID '{}' does not exist"),
    "subnet": ("InvalidSubnetID.NotFound", "The subnet ID '{}' does not exist"),
    "vpc": ("InvalidVpcID.NotFound", "The vpc ID '{}' does not exist"),
    "sg": ("InvalidGroup.NotFound", "The security group '{}' does not exist"),
    "rtb": ("InvalidRouteTableID.NotFound", "The routeTable ID '{}' does not exist"),
    "eipalloc": ("InvalidAllocationID.NotFound", "The allocation ID '{}' does not exist"),
}
_MALFORMED: Final = {
    "i": "InvalidInstanceID.Malformed",
    "eni": "InvalidNetworkInterfaceId.Malformed",
    "subnet": "InvalidSubnetID.Malformed",
    "vpc": "InvalidVpcId.Malformed",
    "sg": "InvalidGroupId.Malformed",
    "rtb": "InvalidRouteTableId.Malformed",
}


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
        self.subnets = self.table(Subnet)
        self.groups = self.table(SecurityGroup)
        self.route_tables = self.table(RouteTable)
        self.interfaces = self.table(Interface)
        self.instances = self.table(Instance)
        self.elastic_ips = self.table(ElasticIp)
        self.spaces: dict[str, Space] = {}
        self.spaces6: dict[str, Space6] = {}
        # Interfaces of an instance and of an attachment, at present.
        self.attached: defaultdict[str, set[str]] = defaultdict(set)
        self.attachments: dict[str, str] = {}
        # Interfaces as DescribeNetworkInterfaces tells them, with the record that was rendered.
        self.rendered: dict[str, tuple[Interface, Rendered]] = {}

    # names and numbers

    def new_id(self, kind: str) -> str:
        return f"{kind}-0{self.chance.getrandbits(64):016x}"

    # looking up, for calls that change something

    def find(self, table: Table[R], record_id: str) -> R:
        """The record. Raises ApiError as EC2 does for an id that is malformed or that nothing has."""
        check_id(record_id)
        record = table.current.get(record_id)
        if record is None or (self.faults.eventual_consistency_on_writes and table.seen(record_id) is None):
            raise not_found(record_id)
        return record

    def read(self, table: Table[R], ids: Iterable[str] | None) -> Iterable[R]:
        """Records as a reader sees them; all of them, or those of `ids`, which must exist."""
        if not ids:
            return table.readable()
        found = []
        for record_id in dict.fromkeys(ids):
            check_id(record_id)
            record = table.seen(record_id)
            if record is None:
                raise not_found(record_id)
            found.append(record)
        return sorted(found, key=lambda record: record.number)

    # changing

    def add_subnet(self, subnet: Subnet) -> None:
        self.spaces[subnet.id] = Space(subnet.id, ipaddress.IPv4Network(subnet.cidr), self.chance, refusal)
        if subnet.ipv6_cidr:
            self.spaces6[subnet.id] = Space6(ipaddress.IPv6Network(subnet.ipv6_cidr), self.chance, refusal)
        self.subnets.put(subnet)

    def mark_default(self, vpc: Vpc) -> None:
        self.vpcs.put(replace(vpc, is_default=True))

    def put_interface(self, interface: Interface) -> None:
        """Stores the interface and keeps the indices in step."""
        before = self.interfaces.current.get(interface.id)
        if before is not None and before.attachment is not None:
            self.attached[before.attachment.instance_id].discard(interface.id)
            self.attachments.pop(before.attachment.id, None)
        if interface.attachment is not None:
            self.attached[interface.attachment.instance_id].add(interface.id)
            self.attachments[interface.attachment.id] = interface.id
        self.interfaces.put(interface)
        self.changed()

    def drop_interface(self, interface: Interface) -> None:
        """Deletes the interface; its addresses are free again."""
        if interface.attachment is not None:
            self.attached[interface.attachment.instance_id].discard(interface.id)
            self.attachments.pop(interface.attachment.id, None)
        for address in interface.addresses:
            self.spaces[interface.subnet_id].release(address)
        for prefix in interface.prefixes:
            self.spaces[interface.subnet_id].release_prefix(prefix)
        for address in interface.ipv6_addresses:
            self.spaces6[interface.subnet_id].release(address)
        for prefix in interface.ipv6_prefixes:
            self.spaces6[interface.subnet_id].release_prefix(prefix)
        if interface.association is not None:
            public = self.elastic_ips.current[interface.association.allocation_id]
            self.elastic_ips.put(replace(public, interface_id="", association_id=""))
        self.rendered.pop(interface.id, None)
        self.interfaces.remove(interface.id)
        self.changed()

    def interfaces_of(self, instance_id: str) -> list[Interface]:
        """At present, by device."""
        found = [self.interfaces.current[each] for each in self.attached.get(instance_id, ())]
        return sorted(found, key=_device)

    def interfaces_seen_of(self, instance_id: str) -> list[Interface]:
        """As a reader sees them, by device."""
        candidates = {*self.attached.get(instance_id, ()), *self.interfaces.changing()}
        seen = (self.interfaces.seen(each) for each in candidates)
        return sorted((each for each in seen if each and _attached_to(each, instance_id)), key=_device)

    def set_attachment_status(self, interface_id: str, attachment_id: str, status: str) -> None:
        """Moves an attachment on, if it still is there."""
        interface = self.interfaces.current.get(interface_id)
        if interface is None or interface.attachment is None or interface.attachment.id != attachment_id:
            return
        if status == "detached":
            self.put_interface(replace(interface, attachment=None))
        elif interface.attachment.status != "detaching":
            self.put_interface(replace(interface, attachment=replace(interface.attachment, status=status)))


def _device(interface: Interface) -> tuple[int, int]:
    assert interface.attachment is not None
    return interface.attachment.network_card, interface.attachment.device_index


def _attached_to(interface: Interface, instance_id: str) -> bool:
    return interface.attachment is not None and interface.attachment.instance_id == instance_id


def check_id(record_id: str) -> None:
    kind, _, number = record_id.partition("-")
    if not re.fullmatch(r"[0-9a-f]{8,17}", number):
        code = _MALFORMED.get(kind, "InvalidID")
        raise ApiError(code, f'Invalid id: "{record_id}"')


def not_found(record_id: str) -> ApiError:
    code, message = _NOT_FOUND.get(record_id.partition("-")[0], ("InvalidID", "The ID '{}' is not valid"))
    return ApiError(code, message.format(record_id))
