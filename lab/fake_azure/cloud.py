"""The state of one subscription in one location, and what changes it one step at a time."""

from __future__ import annotations

import functools
import ipaddress
import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import resources
from typing import Final

from lab.fake_azure.errors import ApiError, missing, refusal
from lab.fake_azure.records import (
    IpConfiguration,
    LongOperation,
    Machine,
    Nic,
    PublicAddress,
    PublicPrefix,
    ScaleSet,
    SecurityGroup,
    SubnetRecord,
    VirtualNetwork,
)
from lab.fake_cloud.cloud import BaseCloud
from lab.fake_cloud.history import R, Table
from lab.fake_cloud.space import Space

# https://learn.microsoft.com/azure/azure-resource-manager/management/azure-subscription-service-limits
CONFIGURATIONS_A_NIC: Final = 256
CONFIGURATIONS_A_MACHINE: Final = 256
GROUP: Final = "lab"


@functools.cache
def sizes() -> Mapping[str, int]:
    """How many interfaces a virtual machine of each size takes."""
    found: dict[str, int] = json.loads(resources.files("lab.fake_azure").joinpath("sizes.json").read_text())
    return found


class Cloud(BaseCloud):
    """:param account: the subscription's id; :param region: the location."""

    def __init__(
        self, *, account: str, region: str, clock: Callable[[], float] = time.time, seed: int | None = None
    ) -> None:
        super().__init__(account=account, region=region, clock=clock, seed=seed)
        self.networks = self.table(VirtualNetwork)
        self.groups = self.table(SecurityGroup)
        self.nics = self.table(Nic)
        self.machines = self.table(Machine)
        self.scale_sets = self.table(ScaleSet)
        self.prefixes = self.table(PublicPrefix)
        self.public_addresses = self.table(PublicAddress)
        self.operations = self.table(LongOperation)
        self.spaces: dict[str, Space] = {}
        self.subnets: dict[str, SubnetRecord] = {}
        # What the next long-running operations end with, instead of success.
        self.failing: list[ApiError] = []
        self.nics_of: defaultdict[str, list[str]] = defaultdict(list)

    # names

    def resource_id(self, provider: str, *names: str, group: str = GROUP) -> str:
        """In lower case: `resource_id("Microsoft.Network", "networkInterfaces", "nic-1")`"""
        path = "/".join((provider, *names))
        return f"/subscriptions/{self.account}/resourceGroups/{group}/providers/{path}".lower()

    def new_etag(self) -> str:
        return f'W/"{self.chance.getrandbits(64):016x}"'

    # looking up

    def find(self, table: Table[R], resource_id: str) -> R:
        """At present. Raises ApiError."""
        record = table.current.get(resource_id.lower())
        if record is None:
            raise missing(resource_id)
        return record

    def seen(self, table: Table[R], resource_id: str) -> R:
        """As a reader sees it, which may lag behind. Raises ApiError."""
        record = table.seen(resource_id.lower())
        if record is None:
            raise missing(resource_id)
        return record

    def network_of(self, subnet_id: str) -> VirtualNetwork:
        return self.networks.current[subnet_id.rpartition("/subnets/")[0]]

    def nics_at(self, machine_id: str) -> list[Nic]:
        """At present, by device."""
        return [self.nics.current[each] for each in self.nics_of.get(machine_id, ())]

    # changing

    def add_network(self, network: VirtualNetwork) -> None:
        self.networks.put(network)
        for subnet in network.subnets:
            self.subnets[subnet.id] = subnet
            self.spaces[subnet.id] = Space(subnet.id, ipaddress.IPv4Network(subnet.cidr), self.chance, refusal)
        self.changed()

    def put_nic(self, nic: Nic) -> None:
        if nic.machine_id and nic.id not in self.nics_of[nic.machine_id]:
            self.nics_of[nic.machine_id].append(nic.id)
        self.nics.put(nic)
        self.changed()

    def put_machine(self, machine: Machine) -> None:
        self.machines.put(machine)
        self.changed()

    def remove_machine(self, machine_id: str) -> None:
        """Its interfaces go with it (deleteOption Delete), and their addresses are free again."""
        for nic in self.nics_at(machine_id):
            for each in nic.configurations:
                self.release(each)
            self.nics.remove(nic.id)
        self.nics_of.pop(machine_id, None)
        self.machines.remove(machine_id)
        self.changed()

    def allocate(self, subnet_id: str, address: str = "") -> str:
        """Raises ApiError."""
        space = self.spaces.get(subnet_id.lower())
        if space is None:
            raise ApiError(
                "InvalidResourceReference", f"Resource {subnet_id} referenced by the interface was not found."
            )
        return space.claim(address) if address else space.address()

    def members(self, prefix: PublicPrefix) -> list[str]:
        return [str(each) for each in ipaddress.IPv4Network(prefix.cidr)]

    def release(self, configuration: IpConfiguration) -> None:
        if configuration.address:
            self.spaces[configuration.subnet_id].release(configuration.address)

    def begin_operation(self) -> LongOperation:
        operation = LongOperation(self.new_number(), f"{self.chance.getrandbits(128):032x}", "InProgress")
        self.operations.put(operation)
        return operation

    def end_operation(self, operation_id: str, error: ApiError | None = None) -> None:
        operation = self.operations.current[operation_id]
        if error is None:
            self.operations.put(replace(operation, status="Succeeded"))
        else:
            self.operations.put(replace(operation, status="Failed", code=error.code, message=error.message))
