"""Which connections somebody asked for: checked once, then a plain function runs on each."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

from datapath.errors import InvalidFilter
from datapath.events import words
from datapath.events.filters import pod_name, port_number, protocol_number, range_of
from datapath.layout import address_bytes
from datapath.view.model import FlowFacts, Selection, TranslationFacts

Entry = FlowFacts | TranslationFacts


def select(wanted: Selection) -> Callable[[Entry], bool]:
    """The test of one connection or translation. Raises InvalidFilter."""
    pods = frozenset(pod_name(pod) for pod in wanted.pods)
    ports = frozenset(port_number(port) for port in wanted.ports)
    protocols = frozenset(words.protocol_word(protocol_number(word)) for word in wanted.protocols)
    ranges = [range_of(text) for text in wanted.addresses]

    def matches(entry: Entry) -> bool:
        ends = [entry.source, entry.destination, *([entry.translated] if entry.translated else [])]
        if pods and not any(end.pod in pods for end in ends):
            return False
        if protocols and entry.protocol not in protocols:
            return False
        if ports and not any(end.port in ports for end in ends):
            return False
        return not ranges or any(_within(end.address, ranges) for end in ends)

    return matches


def is_all(wanted: Selection) -> bool:
    return wanted == Selection()


def need_selection(wanted: Selection, everything: bool) -> None:
    """Raises InvalidFilter unless something is selected or everything is asked for by name, and not both."""
    if is_all(wanted) == everything:
        return
    if everything:
        raise InvalidFilter("all connections and a filter at once", field="all", remedy="leave one of them out")
    raise InvalidFilter(
        "nothing says which connections to flush",
        field="filter",
        remedy="name a pod, address, port or protocol, or all",
    )


def canonical(text: str, field: str) -> str:
    """An address as this project writes it. Raises InvalidFilter."""
    try:
        return str(ip_address(text))
    except ValueError as error:
        raise InvalidFilter(f"{text!r} is no address", field=field, remedy="write 10.0.1.5 or fd00::5") from error


def _within(address: str, ranges: list[tuple[int, int]]) -> bool:
    if not address:
        return False
    number = int.from_bytes(address_bytes(address), "big")
    return any(number >> shift == value for value, shift in ranges)
