"""One attempt at setting the live interfaces of an instance right: what drift.py finds, each call written down first.

What a refusal concerns is told, and the rest is repaired all the same. Calls that give something (IPv6, a public
address) are found unnecessary by the next attempt when they took effect unheard; the others may be repeated.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from ipam.calls import Calls, subnet_of
from ipam.drift import Drift
from ipam.errors import CloudError, Conflict, Denied, InProgress, Throttled, Unavailable
from ipam.model import CloudInterface, Instance, Operation, PublicAddress, Step
from ipam.ports import CloudProvider


class Repair:
    """:ivar refused: what the cloud said no to, a sentence each."""

    def __init__(self, provider: CloudProvider, calls: Calls) -> None:
        self._provider = provider
        self._calls = calls
        self.refused: list[str] = []

    def run(self, instance: Instance, found: Sequence[Drift]) -> Instance:
        """The instance as it is afterwards. Raises InProgress, Throttled, Unavailable, Denied: it is tried again."""
        number = self._calls.next_number
        steps = [
            Step(number + place, each.operation, each.interface_id, each.arguments) for place, each in enumerate(found)
        ]
        if steps:
            self._calls.write_down(steps)
        for step in steps:
            try:
                instance = self._perform(step, instance)
            except (InProgress, Throttled, Unavailable, Denied):
                raise
            except CloudError as error:
                self.refused.append(f"{step.operation} of {step.target}: {error.message}")
                self._calls.settle(replace(step, result={"error": error.code or error.message}))
        return instance

    def _perform(self, step: Step, instance: Instance) -> Instance:
        if step.operation is Operation.ASSOCIATE_PUBLIC_ADDRESS:
            return self._associate(step, instance)
        provider, target = self._provider, step.target
        call: Callable[[], Sequence[str] | None]
        match step.operation:
            case Operation.ASSIGN_IPV6:
                call = partial(provider.assign_ipv6, interface_id=target, count=_count(step))
            case Operation.ASSIGN_IPV6_PREFIXES:
                call = partial(provider.assign_ipv6_prefixes, interface_id=target, count=_count(step))
            case Operation.SET_SECURITY_GROUPS:
                groups = _texts(step, "security_group_ids")
                call = partial(provider.set_security_groups, interface_id=target, security_group_ids=groups)
            case _:
                call = partial(provider.set_tags, interface_id=target, tags=_table(step, "tags"))
        got = self._calls.mutate(step.operation, call, subnet_id=subnet_of(instance, target)) or ()
        self._calls.settle(replace(step, result={"got": list(got)}))
        interfaces = [_repaired(each, step, got) if each.id == target else each for each in instance.interfaces]
        return replace(instance, interfaces=tuple(interfaces))

    def _associate(self, step: Step, instance: Instance) -> Instance:
        """Takes a public address that is free; one that others take meanwhile is theirs."""
        asked = _table(step, "tags")
        listed = self._calls.read("read-public-addresses", lambda: self._provider.public_addresses(tags=asked))
        ours = [each for each in listed if each.interface_id == step.target]
        free = sorted((each for each in listed if not each.interface_id), key=lambda each: each.id)
        if free:  # nodes that ask at the same time begin at different places
            start = zlib.crc32(step.target.encode()) % len(free)
            free = [*free[start:], *free[:start]]
        for candidate in [*ours, *free]:
            try:
                self._calls.mutate(
                    step.operation,
                    lambda chosen=candidate: self._provider.associate_public_address(  # type: ignore[misc]
                        public_address_id=chosen.id, interface_id=step.target
                    ),
                    subnet_id=subnet_of(instance, step.target),
                )
            except Conflict:
                continue
            return self._associated(step, instance, candidate)
        wanted = ", ".join(f"{key}={value}" for key, value in sorted(asked.items()))
        self.refused.append(f"no public address with tags {wanted} is free")
        self._calls.settle(replace(step, result={"error": "none is free"}))
        return instance

    def _associated(self, step: Step, instance: Instance, chosen: PublicAddress) -> Instance:
        self._calls.settle(replace(step, result={"public_address_id": chosen.id, "address": chosen.address}))
        interfaces = [
            replace(each, public_address_id=chosen.id) if each.id == step.target else each
            for each in instance.interfaces
        ]
        return replace(instance, interfaces=tuple(interfaces))


def _repaired(interface: CloudInterface, step: Step, got: Sequence[str]) -> CloudInterface:
    match step.operation:
        case Operation.ASSIGN_IPV6:
            return replace(interface, ipv6_addresses=(*interface.ipv6_addresses, *got))
        case Operation.ASSIGN_IPV6_PREFIXES:
            return replace(interface, ipv6_prefixes=(*interface.ipv6_prefixes, *got))
        case Operation.SET_SECURITY_GROUPS:
            return replace(interface, security_group_ids=_texts(step, "security_group_ids"))
        case _:
            return replace(interface, tags={**interface.tags, **_table(step, "tags")})


def _count(step: Step) -> int:
    count = step.arguments.get("count")
    return int(count) if isinstance(count, (int, float)) else 0


def _texts(step: Step, name: str) -> tuple[str, ...]:
    texts = step.arguments.get(name)
    return tuple(map(str, texts)) if isinstance(texts, list) else ()


def _table(step: Step, name: str) -> dict[str, str]:
    table = step.arguments.get(name)
    return {str(key): str(value) for key, value in table.items()} if isinstance(table, Mapping) else {}
