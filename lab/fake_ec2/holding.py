"""Addresses that a call has taken: they are given back if the call fails after all."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any

from lab.fake_ec2.cloud import Cloud
from lab.fake_ec2.errors import ApiError


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an interface is to get. Explicit ones come on top of counts."""

    primary: str = ""
    addresses: tuple[str, ...] = ()
    count: int = 0
    prefixes: tuple[str, ...] = ()
    prefix_count: int = 0
    ipv6_addresses: tuple[str, ...] = ()
    ipv6_count: int = 0
    ipv6_prefixes: tuple[str, ...] = ()
    ipv6_prefix_count: int = 0

    @property
    def has_prefixes(self) -> bool:
        return bool(self.prefixes or self.prefix_count or self.ipv6_prefixes or self.ipv6_prefix_count)

    @property
    def slots(self) -> int:
        """How many of the interface's IPv4 slots this fills, without the primary address."""
        return len(self.addresses) + self.count + len(self.prefixes) + self.prefix_count

    @property
    def ipv6_slots(self) -> int:
        return len(self.ipv6_addresses) + self.ipv6_count + len(self.ipv6_prefixes) + self.ipv6_prefix_count


def wanted(parameters: Any) -> Wanted:
    """Reads what CreateNetworkInterface, RunInstances and the Assign calls share. Raises ApiError."""
    rows = parameters.get("PrivateIpAddresses", ())
    # Assign calls list plain addresses, the others structures.
    named = [(row, False) if isinstance(row, str) else (row["PrivateIpAddress"], row.get("Primary")) for row in rows]
    primaries = [address for address, primary in named if primary]
    primaries += [parameters["PrivateIpAddress"]] if "PrivateIpAddress" in parameters else []
    if len(set(primaries)) > 1:
        raise ApiError("InvalidParameterCombination", "Only one primary private IP address can be specified.")
    addresses = tuple(address for address, primary in named if not primary)
    ipv6 = tuple(
        row if isinstance(row, str) else row.get("Ipv6Address", "") for row in parameters.get("Ipv6Addresses", ())
    )
    prefixes = tuple(
        row if isinstance(row, str) else row.get("Ipv4Prefix", "") for row in parameters.get("Ipv4Prefixes", ())
    )
    prefixes6 = tuple(
        row if isinstance(row, str) else row.get("Ipv6Prefix", "") for row in parameters.get("Ipv6Prefixes", ())
    )
    if len({*addresses, *primaries}) < len(addresses) + len(set(primaries)) or len(set(prefixes)) < len(prefixes):
        raise ApiError("InvalidParameterValue", "An address is specified more than once.")
    found = Wanted(
        primary=primaries[0] if primaries else "",
        addresses=addresses,
        count=_count(parameters, "SecondaryPrivateIpAddressCount"),
        prefixes=prefixes,
        prefix_count=_count(parameters, "Ipv4PrefixCount"),
        ipv6_addresses=ipv6,
        ipv6_count=_count(parameters, "Ipv6AddressCount"),
        ipv6_prefixes=prefixes6,
        ipv6_prefix_count=_count(parameters, "Ipv6PrefixCount"),
    )
    if addresses and found.count:
        raise _either("privateIpAddresses", "secondaryPrivateIpAddressCount")
    if prefixes and found.prefix_count:
        raise _either("ipv4Prefixes", "ipv4PrefixCount")
    if prefixes6 and found.ipv6_prefix_count:
        raise _either("ipv6Prefixes", "ipv6PrefixCount")
    if (ipv6 or found.ipv6_count) and (prefixes6 or found.ipv6_prefix_count):
        raise ApiError("InvalidParameterCombination", "IPv6 addresses and IPv6 prefixes cannot be assigned by one call")
    if ipv6 and found.ipv6_count:
        raise _either("ipv6Addresses", "ipv6AddressCount")
    return found


def _either(one: str, other: str) -> ApiError:
    return ApiError("InvalidParameterCombination", f"The parameters {one} and {other} cannot be used together")


def _count(parameters: Any, name: str) -> int:
    count = int(parameters.get(name, 0))
    if count < 0:
        raise ApiError(
            "InvalidParameterValue", f"Value ({count}) for parameter {name} is invalid. It must be positive."
        )
    return count


class Holding:
    """Takes addresses of a subnet; leaving with an error gives them back."""

    def __init__(self, cloud: Cloud, subnet_id: str) -> None:
        self._space = cloud.spaces[subnet_id]
        self._space6 = cloud.spaces6.get(subnet_id)
        self.addresses: list[str] = []
        self.prefixes: list[str] = []
        self.ipv6_addresses: list[str] = []
        self.ipv6_prefixes: list[str] = []

    def __enter__(self) -> Holding:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            return
        for address in self.addresses:
            self._space.release(address)
        for prefix in self.prefixes:
            self._space.release_prefix(prefix)
        for address in self.ipv6_addresses:
            assert self._space6 is not None
            self._space6.release(address)
        for prefix in self.ipv6_prefixes:
            assert self._space6 is not None
            self._space6.release_prefix(prefix)

    def take(self, wanted: Wanted, *, primary: bool) -> None:
        """What is named goes first, so that the cloud's own choice does not take it; then prefixes, which are scarcer.

        :param primary: also takes a primary address, which becomes the first.
        """
        explicit = [wanted.primary] if wanted.primary else []
        for address in (*explicit, *wanted.addresses):
            self.addresses.append(self._space.claim(address))
        for prefix in wanted.prefixes:
            self.prefixes.append(self._space.claim_prefix(prefix))
        self.prefixes += self._space.prefixes(wanted.prefix_count)
        if primary and not wanted.primary:
            self.addresses.insert(0, self._space.address())
        self.addresses += self._space.addresses(wanted.count)
        if wanted.ipv6_slots and self._space6 is None:
            raise ApiError("InvalidParameterValue", "The subnet has no IPv6 CIDR block.")
        if self._space6 is None:
            return
        for address in wanted.ipv6_addresses:
            self.ipv6_addresses.append(self._space6.claim(address))
        for prefix in wanted.ipv6_prefixes:
            self.ipv6_prefixes.append(self._space6.claim_prefix(prefix))
        for _ in range(wanted.ipv6_prefix_count):
            self.ipv6_prefixes.append(self._space6.prefix())
        for _ in range(wanted.ipv6_count):
            self.ipv6_addresses.append(self._space6.address())
