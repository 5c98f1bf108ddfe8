"""A pool store in memory, as strict as the real ones."""

from __future__ import annotations

from collections.abc import Mapping

from ipam.errors import AddressConflict, StaleFence
from ipam.model import (
    AddressKey,
    AddressState,
    DeadLetter,
    Instance,
    Intent,
    Limits,
    NodeSpec,
    SecurityGroup,
    Subnet,
)
from ipam.ports import Block, Changes, Clock, Stored
from ipam.testing.clock import FakeClock


class MemoryStore:
    """PoolStore whose content outlives the service that a test restarts.

    `fail` is raised by the next calls of `apply`, once each; with `fail_after_effect` the write is kept all the same,
    as when the connection is cut between commit and answer.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or FakeClock()
        self._nodes: dict[str, NodeSpec] = {}
        self._instances: dict[str, Instance] = {}
        self._states: dict[AddressKey, AddressState] = {}
        self._owners: dict[AddressKey, str] = {}
        self._intents: dict[str, Intent] = {}
        self._dead: dict[str, DeadLetter] = {}
        self._limits: dict[str, Limits] = {}
        self._subnets: dict[str, Subnet] = {}
        self._groups: dict[str, SecurityGroup] = {}
        self._blocks: dict[str, Block] = {}
        self._memos: dict[str, Mapping[str, object]] = {}
        self._leader = ""
        self._token = 0
        self._leads_until = 0.0
        self.fail: list[Exception] = []
        self.fail_after_effect = False
        self.writes = 0

    async def load(self) -> Stored:
        return Stored(
            nodes=tuple(self._nodes.values()),
            instances=tuple(self._instances.values()),
            address_states=dict(self._states),
            intents=tuple(self._intents.values()),
            dead_letters=tuple(self._dead.values()),
            limits=tuple(self._limits.values()),
            subnets=tuple(self._subnets.values()),
            security_groups=tuple(self._groups.values()),
            blocks=tuple(self._blocks.values()),
            memos=dict(self._memos),
        )

    async def apply(self, changes: Changes, *, leader: int) -> None:
        if leader != self._token:
            raise StaleFence(f"leader {leader} was followed by {self._token}")
        error = self.fail.pop(0) if self.fail else None
        if error is not None and not self.fail_after_effect:
            raise error
        self._write_instances(changes)
        self._write_rows(changes)
        self.writes += 1
        if error is not None:
            raise error

    def _write_instances(self, changes: Changes) -> None:
        owners = dict(self._owners)
        replaced = {instance.id for instance in changes.instances} | set(changes.removed_instances)
        for instance_id in replaced:
            for interface in self._instances[instance_id].interfaces if instance_id in self._instances else ():
                for address in interface.all_addresses:
                    owners.pop((interface.vpc_id, address), None)
        for instance in changes.instances:
            for interface in instance.interfaces:
                for address in interface.all_addresses:
                    key = interface.vpc_id, address
                    if key in owners:
                        raise AddressConflict(
                            f"{address} of {interface.vpc_id} is on {owners[key]} and {interface.id}", field=address
                        )
                    owners[key] = interface.id
        self._owners = owners
        for instance in changes.instances:
            self._instances[instance.id] = instance
        for instance_id in changes.removed_instances:
            self._instances.pop(instance_id, None)
        self._states.update(changes.address_states)
        self._states = {
            key: state for key, state in self._states.items() if key in owners and state is not AddressState.AVAILABLE
        }

    def _write_rows(self, changes: Changes) -> None:
        self._nodes.update({node.name: node for node in changes.nodes})
        self._intents.update({intent.id: intent for intent in changes.intents})
        self._dead.update({letter.id: letter for letter in changes.dead_letters})
        self._limits.update({limits.instance_type: limits for limits in changes.limits})
        self._subnets.update({subnet.id: subnet for subnet in changes.subnets})
        self._groups.update({group.id: group for group in changes.security_groups})
        self._blocks.update({block.subnet_id: block for block in changes.blocks})
        self._memos.update(changes.memos)
        for name in changes.removed_memos:
            self._memos.pop(name, None)
        for name in changes.removed_nodes:
            self._nodes.pop(name, None)
        for intent_id in changes.closed_intents:
            self._intents.pop(intent_id, None)
        for letter_id in changes.removed_dead_letters:
            self._dead.pop(letter_id, None)
        for subnet_id in changes.removed_blocks:
            self._blocks.pop(subnet_id, None)

    async def lead(self, holder: str, ttl_s: float) -> int | None:
        now = self._clock.monotonic()
        if holder != self._leader:
            if self._leader and now < self._leads_until:
                return None
            self._leader = holder
            self._token += 1
        self._leads_until = now + ttl_s
        return self._token

    async def resign(self, holder: str) -> None:
        if holder == self._leader:
            self._leader = ""
