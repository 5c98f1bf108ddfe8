"""A cloud in memory that enforces a cloud's rules: limits, subnets, uniqueness, idempotency, attachment.

Unlike lab.fake_ec2 it speaks no protocol: it is the CloudProvider itself, fast enough for thousands of nodes and
deterministic enough for a state machine.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from ipam.errors import CloudError, Conflict, Gone, LimitReached, Rejected
from ipam.model import (
    NO_TAGS,
    CloudInterface,
    Instance,
    Limits,
    Operation,
    PublicAddress,
    SecurityGroup,
    Subnet,
)
from ipam.ports import Capabilities, Clock
from ipam.providers.incapable import refuse
from ipam.testing.clock import FakeClock
from ipam.testing.faults import Call, Fault
from ipam.testing.rules import AWS_LIKE, LIMITS, READS
from ipam.testing.space import space_of


class FakeCloud:
    """CloudProvider. `latency_s` is slept for each mutating call, outside of its lock.

    `watch(operation, phase)` is called with phase "before" and "after" the effect of each call; what it raises reaches
    the caller, so that a test can kill a worker in the middle of any call.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        subnets: Sequence[Subnet] = (Subnet("subnet-a", "10.0.0.0/16", "zone-a", "vpc-1", 0),),
        security_groups: Sequence[SecurityGroup] = (SecurityGroup("sg-1", "vpc-1"),),
        limits: Sequence[Limits] = LIMITS,
        capabilities: Capabilities = AWS_LIKE,
        latency_s: float = 0.0,
        page_size: int = 100,
    ) -> None:
        self.capabilities = capabilities
        self.clock: Clock = clock or FakeClock()
        self.latency_s = latency_s
        self.page_size = page_size
        self.calls: Counter[str] = Counter()
        self.faults: list[Fault] = []
        self.throttled_until = 0.0
        self.watch: Callable[[str, str], None] | None = None
        self._lock = threading.RLock()
        self._spaces = {subnet.id: space_of(subnet) for subnet in subnets}
        self._groups = {group.id: group for group in security_groups}
        self._limits = {limits.instance_type: limits for limits in limits}
        self._instances: dict[str, Instance] = {}
        self._interfaces: dict[str, CloudInterface] = {}
        self._attached: dict[str, list[str]] = {}
        self._tokens: dict[str, str] = {}
        self._given: dict[tuple[str, str], list[str]] = {}  # token, kind -> what a call with it has assigned
        self._public: dict[str, PublicAddress] = {}
        self._serial = 0
        self._hidden: set[str] = set()

    # what a test does as the cloud's owner

    def launch(self, type_: str = "m5.large", *, subnet_id: str = "", instance_id: str = "") -> Instance:
        with self._lock:
            subnet = self._spaces[subnet_id or next(iter(self._spaces))].subnet
            groups = tuple(each.id for each in self._groups.values() if each.vpc_id == subnet.vpc_id)
            instance = Instance(
                id=instance_id or self._next("i"), type=type_, zone=subnet.zone, vpc_id=subnet.vpc_id,
                subnet_id=subnet.id, security_group_ids=groups[:1],
            )  # fmt: skip
            self._instances[instance.id] = instance
            self._attached[instance.id] = []
            primary = self._new_interface(subnet.id, instance.security_group_ids, 0, NO_TAGS)
            self._attach(primary.id, instance.id, 0, delete_on_termination=True)
            return self._instance(instance.id)

    def hide(self, instance_id: str) -> None:
        """Reads say that there is no such instance, until `show`."""
        self._hidden.add(instance_id)

    def show(self, instance_id: str) -> None:
        self._hidden.discard(instance_id)

    def delete_subnet(self, subnet_id: str) -> None:
        with self._lock:
            del self._spaces[subnet_id]

    def delete_security_group(self, group_id: str) -> None:
        with self._lock:
            del self._groups[group_id]

    def terminate(self, instance_id: str) -> None:
        with self._lock:
            for interface_id in list(self._attached.pop(instance_id)):
                if self._interfaces[interface_id].delete_on_termination:
                    self._drop(interface_id)
                else:
                    self._detach(interface_id)
            del self._instances[instance_id]

    def fail(self, operation: str, error: CloudError, *, count: int = 1, after_effect: bool = False) -> None:
        self.faults.append(Fault(operation, error, count, after_effect))

    def add_subnet(self, subnet: Subnet) -> None:
        self._spaces[subnet.id] = space_of(subnet)

    def drain(self, subnet_id: str, *, leave: int = 0) -> list[str]:
        """Somebody else takes the subnet's free addresses; give them back with `refill`."""
        with self._lock:
            return self._spaces[subnet_id].take(max(0, self._spaces[subnet_id].free - leave))

    def refill(self, subnet_id: str, addresses: Sequence[str]) -> None:
        with self._lock:
            for address in addresses:
                self._spaces[subnet_id].give_back(address)

    def change(self, interface_id: str, **fields: object) -> None:
        """Somebody else changes the interface: its tags, its groups, its kind of status."""
        with self._lock:
            self._interfaces[interface_id] = replace(self._interfaces[interface_id], **fields)  # type: ignore[arg-type]

    def add_public_address(self, address: PublicAddress) -> None:
        self._public[address.id] = address

    def mutating_calls(self) -> int:
        return sum(count for operation, count in self.calls.items() if operation not in READS)

    def interfaces(self) -> Mapping[str, CloudInterface]:
        with self._lock:
            return dict(self._interfaces)

    # the provider

    def instance(self, instance_id: str) -> Instance:
        with self._call("read-instance"):
            return self._instance(instance_id)

    def inventory(self) -> Iterator[tuple[Sequence[Instance], Sequence[CloudInterface]]]:
        with self._lock:
            ids = [each for each in self._instances if each not in self._hidden]
        for start in range(0, max(1, len(ids)), self.page_size):
            with self._call("read-inventory"):
                page = [self._instance(i) for i in ids[start : start + self.page_size] if i in self._instances]
                last = start + self.page_size >= len(ids)
                detached = [each for each in self._interfaces.values() if not each.instance_id] if last else []
            yield page, detached

    def subnets(self) -> Sequence[Subnet]:
        with self._call("read-subnets"):
            return [replace(space.subnet, free=space.free) for space in self._spaces.values()]

    def security_groups(self) -> Sequence[SecurityGroup]:
        with self._call("read-security-groups"):
            return list(self._groups.values())

    def limits(self, instance_type: str) -> Limits:
        with self._call("read-limits"):
            if instance_type not in self._limits:
                raise Rejected(f"no such instance type: {instance_type}", code="InvalidInstanceType")
            return self._limits[instance_type]

    def create_interface(
        self,
        *,
        subnet_id: str,
        security_group_ids: Sequence[str],
        secondary_count: int,
        tags: Mapping[str, str],
        description: str,
        client_token: str,
        prefix_count: int = 0,
        ipv6_count: int = 0,
        ipv6_prefix_count: int = 0,
        delete_on_termination: bool = False,
    ) -> CloudInterface:
        with self._call(Operation.CREATE_INTERFACE):
            if client_token in self._tokens:
                return self._interface(self._tokens[client_token])
            if subnet_id not in self._spaces:
                raise Gone(f"no such subnet: {subnet_id}", code="InvalidSubnetID.NotFound")
            self._require_groups(security_group_ids)
            if secondary_count > self.capabilities.max_addresses_on_create:
                raise Rejected("too many addresses in one call", code="InvalidParameterValue")
            self._require(prefix_count, ipv6_count, ipv6_prefix_count)
            if delete_on_termination and not self.capabilities.protects_on_create:
                refuse("interfaces that are created to go with their instance")
            space = self._spaces[subnet_id]
            if (ipv6_count or ipv6_prefix_count) and not space.subnet.ipv6_cidr:
                raise Rejected(f"subnet {subnet_id} has no IPv6 range", code="InvalidParameterValue")
            prefixes = space.take_prefixes(prefix_count, self.capabilities.prefix_size)
            try:
                interface = self._new_interface(subnet_id, security_group_ids, secondary_count, tags)
            except CloudError:
                for prefix in prefixes:
                    space.give_back_prefix(prefix)
                raise
            interface = self._interfaces[interface.id] = replace(
                interface, prefixes=tuple(prefixes), ipv6_addresses=tuple(space.take6(128) for _ in range(ipv6_count)),
                ipv6_prefixes=tuple(space.take6(80) for _ in range(ipv6_prefix_count)),
                delete_on_termination=delete_on_termination,
            )  # fmt: skip
            if client_token:
                self._tokens[client_token] = interface.id
            return interface

    def attach_interface(
        self, *, interface_id: str, instance_id: str, device_index: int, network_card: int
    ) -> CloudInterface:
        with self._call(Operation.ATTACH_INTERFACE):
            interface = self._interface(interface_id)
            if instance_id not in self._instances:
                raise Gone(f"no such instance: {instance_id}", code="InvalidInstanceID.NotFound")
            if interface.instance_id:
                raise Conflict(f"{interface_id} is attached already", code="InvalidNetworkInterface.InUse")
            places = [
                (each.network_card, each.device_index)
                for each in (self._interfaces[i] for i in self._attached[instance_id])
            ]
            if (network_card, device_index) in places:
                raise Conflict(f"device index {device_index} is taken", code="InvalidParameterValue")
            limits = self._limits[self._instances[instance_id].type]
            cards = limits.card_interfaces or (limits.interfaces,)
            if not 0 <= network_card < len(cards):
                raise Rejected(f"no network card {network_card}", code="InvalidParameterValue")
            on_card = sum(card == network_card for card, _ in places)
            if len(places) >= limits.interfaces or on_card >= cards[network_card]:
                raise LimitReached("no interface slot left", code="AttachmentLimitExceeded")
            self._require_room(interface, limits)
            self._attach(
                interface_id, instance_id, device_index, network_card=network_card,
                delete_on_termination=interface.delete_on_termination,
            )  # fmt: skip
            return self._interfaces[interface_id]

    def protect_interface(self, *, interface_id: str, attachment_id: str) -> None:
        with self._call(Operation.PROTECT_INTERFACE):
            interface = self._interface(interface_id)
            if interface.attachment_id != attachment_id:
                raise Gone(f"no such attachment: {attachment_id}", code="InvalidAttachmentID.NotFound")
            self._interfaces[interface_id] = replace(interface, delete_on_termination=True)

    def assign_addresses(self, *, interface_id: str, count: int, client_token: str = "") -> Sequence[str]:
        with self._call(Operation.ASSIGN_ADDRESSES):
            interface = self._interface(interface_id)
            if count > self.capabilities.max_addresses_per_call:
                raise Rejected("too many addresses in one call", code="InvalidParameterValue")
            if (client_token, "addresses") in self._given:
                return self._given[client_token, "addresses"]
            self._require_room(interface, slots=count)
            taken = self._spaces[interface.subnet_id].take(count)
            self._interfaces[interface_id] = replace(interface, addresses=(*interface.addresses, *taken))
            if client_token and self.capabilities.assign_tokens:
                self._given[client_token, "addresses"] = taken
            return taken

    def unassign_addresses(self, *, interface_id: str, addresses: Sequence[str]) -> None:
        with self._call(Operation.UNASSIGN_ADDRESSES):
            interface = self._interface(interface_id)
            if any(address not in interface.addresses for address in addresses):
                raise Rejected("some addresses are not assigned to it", code="InvalidParameterValue")
            for address in addresses:
                self._spaces[interface.subnet_id].give_back(address)
            gone = frozenset(addresses)
            kept = tuple(address for address in interface.addresses if address not in gone)
            self._interfaces[interface_id] = replace(interface, addresses=kept)

    def assign_prefixes(self, *, interface_id: str, count: int, client_token: str = "") -> Sequence[str]:
        with self._call(Operation.ASSIGN_PREFIXES):
            self._require(count)
            interface = self._interface(interface_id)
            if (client_token, "prefixes") in self._given:
                return self._given[client_token, "prefixes"]
            self._require_room(interface, slots=count, prefixes=True)
            taken = self._spaces[interface.subnet_id].take_prefixes(count, self.capabilities.prefix_size)
            self._interfaces[interface_id] = replace(interface, prefixes=(*interface.prefixes, *taken))
            if client_token and self.capabilities.assign_tokens:
                self._given[client_token, "prefixes"] = taken
            return taken

    def unassign_prefixes(self, *, interface_id: str, prefixes: Sequence[str]) -> None:
        with self._call(Operation.UNASSIGN_PREFIXES):
            self._require(1)
            interface = self._interface(interface_id)
            kept = self._without(interface.prefixes, prefixes)
            for prefix in prefixes:
                self._spaces[interface.subnet_id].give_back_prefix(prefix)
            self._interfaces[interface_id] = replace(interface, prefixes=kept)

    def assign_ipv6(self, *, interface_id: str, count: int) -> Sequence[str]:
        with self._call(Operation.ASSIGN_IPV6):
            self._require(0, count)
            interface = self._interface(interface_id)
            self._require_room(interface, slots6=count)
            taken = [self._spaces[interface.subnet_id].take6(128) for _ in range(count)]
            self._interfaces[interface_id] = replace(interface, ipv6_addresses=(*interface.ipv6_addresses, *taken))
            return taken

    def unassign_ipv6(self, *, interface_id: str, addresses: Sequence[str]) -> None:
        with self._call(Operation.UNASSIGN_IPV6):
            interface = self._interface(interface_id)
            kept = self._without(interface.ipv6_addresses, addresses)
            self._interfaces[interface_id] = replace(interface, ipv6_addresses=kept)

    def assign_ipv6_prefixes(self, *, interface_id: str, count: int) -> Sequence[str]:
        with self._call(Operation.ASSIGN_IPV6_PREFIXES):
            self._require(0, 0, count)
            interface = self._interface(interface_id)
            self._require_room(interface, slots6=count, prefixes=True)
            taken = [self._spaces[interface.subnet_id].take6(80) for _ in range(count)]
            self._interfaces[interface_id] = replace(interface, ipv6_prefixes=(*interface.ipv6_prefixes, *taken))
            return taken

    def unassign_ipv6_prefixes(self, *, interface_id: str, prefixes: Sequence[str]) -> None:
        with self._call(Operation.UNASSIGN_IPV6_PREFIXES):
            interface = self._interface(interface_id)
            kept = self._without(interface.ipv6_prefixes, prefixes)
            self._interfaces[interface_id] = replace(interface, ipv6_prefixes=kept)

    def set_security_groups(self, *, interface_id: str, security_group_ids: Sequence[str]) -> None:
        with self._call(Operation.SET_SECURITY_GROUPS):
            if not self.capabilities.changes_interfaces:
                refuse("changes of a live interface's security groups")
            interface = self._interface(interface_id)
            self._require_groups(security_group_ids)
            self._interfaces[interface_id] = replace(interface, security_group_ids=tuple(security_group_ids))

    def set_tags(self, *, interface_id: str, tags: Mapping[str, str]) -> None:
        with self._call(Operation.SET_TAGS):
            if not self.capabilities.changes_interfaces:
                refuse("changes of a live interface's tags")
            interface = self._interface(interface_id)
            self._interfaces[interface_id] = replace(interface, tags={**interface.tags, **tags})

    def public_addresses(self, *, tags: Mapping[str, str]) -> Sequence[PublicAddress]:
        with self._call("read-public-addresses"):
            if not self.capabilities.public_addresses:
                refuse("static public addresses")
            known = self._public.values()
            return [each for each in known if all(each.tags.get(key) == value for key, value in tags.items())]

    def associate_public_address(self, *, public_address_id: str, interface_id: str) -> None:
        with self._call(Operation.ASSOCIATE_PUBLIC_ADDRESS):
            if not self.capabilities.public_addresses:
                refuse("static public addresses")
            interface = self._interface(interface_id)
            public = self._public.get(public_address_id)
            if public is None:
                raise Gone(f"no such public address: {public_address_id}", code="InvalidAllocationID.NotFound")
            if public.interface_id not in ("", interface_id):
                raise Conflict(f"{public_address_id} leads elsewhere", code="Resource.AlreadyAssociated")
            self._public[public_address_id] = replace(public, interface_id=interface_id)
            self._interfaces[interface_id] = replace(interface, public_address_id=public_address_id)

    def detach_interface(self, *, attachment_id: str, interface_id: str) -> None:
        with self._call(Operation.DETACH_INTERFACE):
            interface = self._interface(interface_id)
            if interface.attachment_id != attachment_id:
                raise Gone(f"no such attachment: {attachment_id}", code="InvalidAttachmentID.NotFound")
            self._attached[interface.instance_id].remove(interface_id)
            self._detach(interface_id)

    def delete_interface(self, *, interface_id: str) -> None:
        with self._call(Operation.DELETE_INTERFACE):
            if self._interface(interface_id).instance_id:
                raise Conflict(f"{interface_id} is attached", code="InvalidNetworkInterface.InUse")
            self._drop(interface_id)

    # inside

    def _call(self, operation: str) -> Call:
        if self.latency_s and operation not in READS:
            time.sleep(self.latency_s)
        return Call(self, operation)

    def _require(self, prefixes: int, ipv6: int = 0, ipv6_prefixes: int = 0) -> None:
        can = self.capabilities
        asked = (
            (prefixes, can.prefixes, "prefixes"),
            (ipv6, can.ipv6, "IPv6 addresses"),
            (ipv6_prefixes, can.ipv6_prefixes, "IPv6 prefixes"),
        )
        for count, able, what in asked:
            if count and not able:
                refuse(what)

    def _require_groups(self, group_ids: Sequence[str]) -> None:
        for group in group_ids:
            if group not in self._groups:
                raise Gone(f"no such security group: {group}", code="InvalidGroup.NotFound")

    def _require_room(
        self,
        interface: CloudInterface,
        limits: Limits | None = None,
        *,
        slots: int = 0,
        slots6: int = 0,
        prefixes: bool = False,
    ) -> None:
        """The interface, with so many slots more, fits the type of its instance."""
        if limits is None and not interface.instance_id:
            return
        limits = limits or self._limits[self._instances[interface.instance_id].type]
        if (prefixes or interface.prefixes or interface.ipv6_prefixes) and not limits.prefixes:
            raise Rejected(f"{limits.instance_type} takes no prefixes", code="UnsupportedOperation")
        if 1 + len(interface.addresses) + len(interface.prefixes) + slots > limits.ipv4_per_interface:
            raise LimitReached("too many addresses on the interface", code="PrivateIpAddressLimitExceeded")
        if slots6 and len(interface.ipv6_addresses) + len(interface.ipv6_prefixes) + slots6 > limits.ipv6_per_interface:
            raise LimitReached("too many IPv6 addresses on the interface", code="PrivateIpAddressLimitExceeded")

    @staticmethod
    def _without(held: Sequence[str], leaving: Sequence[str]) -> tuple[str, ...]:
        if any(each not in held for each in leaving):
            raise Rejected("some are not assigned to it", code="InvalidParameterValue")
        gone = frozenset(leaving)
        return tuple(each for each in held if each not in gone)

    def _next(self, kind: str) -> str:
        self._serial += 1
        return f"{kind}-{self._serial:08x}"

    def _instance(self, instance_id: str) -> Instance:
        if instance_id not in self._instances or instance_id in self._hidden:
            raise Gone(f"no such instance: {instance_id}", code="InvalidInstanceID.NotFound")
        interfaces = sorted(
            (self._interfaces[i] for i in self._attached[instance_id]), key=lambda each: each.device_index
        )
        return replace(self._instances[instance_id], interfaces=tuple(interfaces))

    def _interface(self, interface_id: str) -> CloudInterface:
        if interface_id not in self._interfaces:
            raise Gone(f"no such interface: {interface_id}", code="InvalidNetworkInterfaceID.NotFound")
        return self._interfaces[interface_id]

    def _new_interface(
        self, subnet_id: str, groups: Sequence[str], secondary_count: int, tags: Mapping[str, str]
    ) -> CloudInterface:
        space = self._spaces[subnet_id]
        primary, *secondary = space.take(1 + secondary_count)
        number = self._serial + 1
        interface = CloudInterface(
            id=self._next("eni"),
            mac="02:" + ":".join(f"{number >> shift & 0xFF:02x}" for shift in (32, 24, 16, 8, 0)),
            subnet_id=subnet_id, vpc_id=space.subnet.vpc_id, zone=space.subnet.zone, primary_address=primary,
            addresses=tuple(secondary), security_group_ids=tuple(groups), tags=dict(tags), status="available",
            created_at=self.clock.now(),
        )  # fmt: skip
        self._interfaces[interface.id] = interface
        return interface

    def _attach(
        self, interface_id: str, instance_id: str, index: int, *, delete_on_termination: bool, network_card: int = 0
    ) -> None:
        self._attached[instance_id].append(interface_id)
        self._interfaces[interface_id] = replace(
            self._interfaces[interface_id], instance_id=instance_id, attachment_id=f"attach-{interface_id}",
            device_index=index, network_card=network_card, status="in-use",
            delete_on_termination=delete_on_termination,
        )  # fmt: skip

    def _detach(self, interface_id: str) -> None:
        interface = self._interfaces[interface_id]
        # Of the interface itself where it is said at its creation, else of the attachment that ends.
        goes = interface.delete_on_termination and self.capabilities.protects_on_create
        self._interfaces[interface_id] = replace(
            interface, instance_id="", attachment_id="", device_index=0, network_card=0, status="available",
            delete_on_termination=goes,
        )  # fmt: skip

    def _drop(self, interface_id: str) -> None:
        interface = self._interfaces.pop(interface_id)
        space = self._spaces[interface.subnet_id]
        for address in (interface.primary_address, *interface.addresses):
            space.give_back(address)
        for prefix in interface.prefixes:
            space.give_back_prefix(prefix)
        for public in self._public.values():
            if public.interface_id == interface_id:
                self._public[public.id] = replace(public, interface_id="")
