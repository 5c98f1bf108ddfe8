"""Which events somebody wants. Checked once with a message for each mistake, then a plain function runs on each event.

Within a field any value will do; all fields that are given must agree. "Address", "port" and "pod" are either end's.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Final, Protocol

from datapath import layout
from datapath.errors import InvalidFilter
from datapath.events import words
from datapath.events.model import AUDITED, DROPPED, FORWARDED, Event

Test = Callable[[Event], bool]

VERDICTS: Final = (FORWARDED, DROPPED, AUDITED)
# Steps belong to dry runs, each with a reader of its own.
TYPES: Final[Mapping[str, int]] = {word: number for number, word in words.TYPES.items() if number != layout.EVENT_STEP}
_HOOKS: Final[Mapping[str, int]] = {word: number for number, word in words.HOOKS.items()}


class Names(Protocol):
    """Whose an address or a device is. Called for each event: answers from memory, and at once."""

    def pod_at(self, address: bytes) -> str:
        """ "namespace/name" of the pod that has this address (16 bytes) now, or empty."""

    def pod_behind(self, ifindex: int) -> str:
        """The pod behind a device of the node, or empty."""

    def device(self, ifindex: int) -> str:
        """Name of a device, or empty."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Fields as people write them: `EventFilter` in the proto, options of `plimsoll monitor`. Empty: everything.

    :ivar pods: "namespace/name".
    :ivar addresses: addresses or ranges (10.0.0.0/8).
    :ivar protocols: names or numbers.
    """

    pods: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    protocols: tuple[str, ...] = ()
    verdicts: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()


def compile_filter(wanted: Filter, names: Names) -> Test:
    """The test of one event. Pods are looked up at each event: one that is started anew with another address is still
    seen. What is cheap to ask is asked first. Raises InvalidFilter."""
    tests: list[Test] = []
    if wanted.types:
        types = frozenset(_of("type", word, TYPES) for word in wanted.types)
        tests.append(lambda event: event.type in types)
    if wanted.hooks:
        hooks = frozenset(_of("hook", word, _HOOKS) for word in wanted.hooks)
        tests.append(lambda event: event.hook in hooks)
    if wanted.protocols:
        protocols = frozenset(protocol_number(word) for word in wanted.protocols)
        tests.append(lambda event: event.protocol in protocols)
    if wanted.ports:
        ports = frozenset(socket.htons(port_number(port)) for port in wanted.ports)
        tests.append(lambda event: event.source_port_be in ports or event.destination_port_be in ports)
    if wanted.verdicts:
        verdicts = frozenset(_word("verdict", word, VERDICTS) for word in wanted.verdicts)
        tests.append(lambda event: event.outcome in verdicts)
    if wanted.addresses:
        tests.append(_ends([range_of(text) for text in wanted.addresses]))
    if wanted.pods:
        tests.append(_pods(frozenset(pod_name(pod) for pod in wanted.pods), names))
    return _all(tests)


def range_of(text: str, field: str = "address") -> tuple[int, int]:
    """(value, bits to shift away) of an address or range, as 16-byte addresses are compared. Raises InvalidFilter."""
    try:
        network = ip_network(text, strict=False)
    except ValueError as error:
        raise InvalidFilter(
            f"{text!r} is neither an address nor a range",
            field=field,
            remedy="write 10.0.1.5, 10.0.0.0/8, fd00::5 or fd00::/8",
        ) from error
    shift = network.max_prefixlen - network.prefixlen
    value = int(network.network_address)
    return (value if network.version == 6 else value | 0xFFFF << 32) >> shift, shift


def protocol_number(text: str, field: str = "protocol") -> int:
    """Raises InvalidFilter."""
    word = text.lower()
    if word in words.PROTOCOLS:
        return words.PROTOCOLS[word]
    if word.isascii() and word.isdigit() and int(word) < 256:
        return int(word)
    raise InvalidFilter(
        f"{text!r} is no protocol",
        field=field,
        remedy=f"choose one of {', '.join(words.PROTOCOLS)}, or a number to 255",
    )


def port_number(port: int) -> int:
    """Raises InvalidFilter."""
    if not 0 < port < 65536:
        raise InvalidFilter(f"{port} is no port", field="port", remedy="write a number from 1 to 65535")
    return port


def pod_name(pod: str) -> str:
    """Raises InvalidFilter."""
    namespace, slash, name = pod.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise InvalidFilter(
            f"{pod!r} is no pod", field="pod", remedy="write namespace/name; `plimsoll pods list` has them"
        )
    return pod


def _all(tests: list[Test]) -> Test:
    """Pairs of calls are twice as fast as a loop over them."""
    if not tests:
        return lambda _: True
    first, *others = tests
    if not others:
        return first
    rest = _all(others)
    return lambda event: first(event) and rest(event)


def _ends(ranges: list[tuple[int, int]]) -> Test:
    # Nearly all ranges end at a byte, and comparing bytes is five times as fast as comparing numbers.
    heads = tuple(value.to_bytes(16 - shift // 8, "big") for value, shift in ranges if shift % 8 == 0)
    others = [(value, shift) for value, shift in ranges if shift % 8]
    if not others:
        return lambda event: event.source.startswith(heads) or event.destination.startswith(heads)

    def matches(event: Event) -> bool:
        if event.source.startswith(heads) or event.destination.startswith(heads):
            return True
        source, destination = int.from_bytes(event.source, "big"), int.from_bytes(event.destination, "big")
        return any(source >> shift == value or destination >> shift == value for value, shift in others)

    return matches


def _pods(pods: frozenset[str], names: Names) -> Test:
    def matches(event: Event) -> bool:
        return (
            names.pod_at(event.source) in pods
            or names.pod_at(event.destination) in pods
            # What a pod sends with another's address is its own doing all the same.
            or names.pod_behind(event.ifindex) in pods
        )

    return matches


def _of(field: str, word: str, known: Mapping[str, int]) -> int:
    return known[_word(field, word, known)]


def _word(field: str, word: str, known: Collection[str]) -> str:
    if word not in known:
        raise InvalidFilter(f"there is no {field} {word!r}", field=field, remedy=f"choose one of: {', '.join(known)}")
    return word
