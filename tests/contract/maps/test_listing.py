"""Connections and translations as people see them, from maps of memory and of the kernel."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from datapath import layout
from datapath.conntrack import flows as connections
from datapath.errors import InvalidFilter
from datapath.events.testing import FakeNames
from datapath.layout import Flow, FlowKey, Nat, NatKey, Path, address_bytes
from datapath.maps import InnerMap
from datapath.masquerade import nat as translations
from datapath.view.model import End, FlowFacts, Selection, TranslationFacts, Way
from tests.contract.maps.conftest import MakeMap

NAMES = FakeNames({"10.0.0.5": "shop/web", "fd00::5": "shop/web"}, {7: ("ens5", ""), 9: ("plmabc", "shop/web")})
TCP, UDP, ICMP = 6, 17, 1
ALL = Selection()
DENIED = layout.DROP_POLICY_INGRESS


class Clock:
    """100 jiffies a second; they wrap five seconds from now."""

    def now_j(self) -> int:
        return (1 << 32) - 500

    def to_seconds(self, duration_j: int) -> float:
        duration_j &= 0xFFFFFFFF
        return (duration_j - (1 << 32) if duration_j >> 31 else duration_j) / 100


CLOCK = Clock()


@dataclass
class Tables:
    flows: InnerMap
    nat: InnerMap

    def add(self, key: FlowKey, flow: Flow) -> None:
        self.flows.update(key.pack(), flow.pack())

    def list(self, wanted: Selection = ALL, states: tuple[str, ...] = ()) -> list[FlowFacts]:
        found = connections.listed(self.flows, CLOCK, NAMES, wanted, states)
        return sorted(found, key=lambda one: (one.protocol, one.source.address))


@pytest.fixture
def tables(make_map: MakeMap) -> Tables:
    """A masqueraded connection to the web, one that the high end began, a denied one, a ping."""
    made = Tables(make_map("flows"), make_map("nat"))
    now = CLOCK.now_j()
    node = address_bytes("198.51.100.1")
    out = Path(action=layout.ACTION_DEVICE, out_ifindex=7, packets=3, byte_count=300)
    masqueraded = replace(out, flags=layout.PATH_NAT, nat_address=node, nat_port=40001)
    back = Path(action=layout.ACTION_POD, out_ifindex=9, packets=2, byte_count=5000)
    web = address_bytes("192.0.2.80")
    pod = address_bytes("10.0.0.5")
    made.add(
        FlowKey(pod, web, 50000, 443, TCP),
        Flow((now + 1000) & 0xFFFFFFFF, now - 200, 2, layout.FLOW_NAT, 300, 2, masqueraded, back),
    )
    expires = (now + 12000) & 0xFFFFFFFF
    made.nat.update(NatKey(pod, web, 50000, 443, TCP, 0).pack(), Nat(node, 40001, expires, now - 200).pack())
    made.nat.update(NatKey(web, node, 443, 40001, TCP, 1).pack(), Nat(pod, 50000, expires, now - 200).pack())
    made.add(
        FlowKey(address_bytes("fd00::5"), address_bytes("fd00:1::9"), 53, 5353, UDP),
        Flow(now - 100, now - 300, 1, layout.FLOW_ORIGIN_HIGH, 300, 301, Path(), replace(back, byte_count=77)),
    )
    made.add(
        FlowKey(address_bytes("10.0.0.6"), address_bytes("10.0.0.7"), 1, 22, TCP),
        Flow(now + 50, now, 1, 0, 302, 303, Path(flags=layout.PATH_DENIED, reason=DENIED, packets=1, byte_count=60)),
    )
    made.add(
        FlowKey(address_bytes("10.0.0.5"), address_bytes("10.0.0.6"), 77, 0, ICMP),
        Flow(now + 50, now, 2, 0, 300, 302, back, back),
    )
    return made


def test_a_connection_from_the_end_that_began_it(tables: Tables) -> None:
    ping, web, denied, dns = tables.list()
    assert web == FlowFacts(
        "tcp",
        End("10.0.0.5", 50000, "shop/web", 300),
        End("192.0.2.80", 443, "", 2),
        "open",
        2.0,
        10.0,
        Way(3, 300, "device", "ens5"),
        Way(2, 5000, "pod", "plmabc"),
        End("198.51.100.1", 40001),
    )
    assert (dns.source, dns.destination) == (End("fd00:1::9", 5353, "", 301), End("fd00::5", 53, "shop/web", 300))
    assert (dns.forth.bytes, dns.state, dns.expires_s) == (77, "opening", -1.0)
    assert denied.forth.denied
    assert ping.protocol == "icmp"


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Selection(), 4),
        (Selection(addresses=("10.0.0.6",)), 2),
        (Selection(addresses=("10.0.0.0/30",)), 0),
        (Selection(addresses=("10.0.0.0/29",)), 3),
        (Selection(addresses=("fd00:1::/32", "192.0.2.80")), 2),
        (Selection(addresses=("198.51.100.1",)), 1),
        (Selection(addresses=("0.0.0.0/0",)), 3),
        (Selection(ports=(443, 53)), 2),
        (Selection(ports=(40001,)), 1),
        (Selection(protocols=("tcp",)), 2),
        (Selection(protocols=("17",)), 1),
        (Selection(pods=("shop/web",)), 3),
        (Selection(pods=("shop/web",), protocols=("tcp",)), 1),
        (Selection(pods=("shop/other",)), 0),
    ],
)
def test_filters(tables: Tables, wanted: Selection, found: int) -> None:
    assert len(tables.list(wanted)) == found


def test_states(tables: Tables) -> None:
    assert {one.state for one in tables.list(states=("opening",))} == {"opening"}
    assert len(tables.list(states=("open", "closing"))) == 2


@pytest.mark.parametrize(
    ("wanted", "states", "field"),
    [
        (Selection(addresses=("ten",)), (), "address"),
        (Selection(ports=(0,)), (), "port"),
        (Selection(protocols=("tcpp",)), (), "protocol"),
        (Selection(pods=("web",)), (), "pod"),
        (Selection(), ("half-open",), "state"),
    ],
)
def test_a_wrong_filter_is_refused_before_anything_is_read(
    tables: Tables, wanted: Selection, states: tuple[str, ...], field: str
) -> None:
    with pytest.raises(InvalidFilter) as refused:
        connections.listed(tables.flows, CLOCK, NAMES, wanted, states)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("by", "first"), [("bytes", 0), ("packets", 443), ("oldest", 53), ("newest", 0), ("expires", 53)]
)
def test_orders(tables: Tables, by: str, first: int) -> None:
    every = list(connections.ordered(tables.list(), by))
    assert len(every) == 4
    assert every[0].destination.port in (first, 22)
    assert list(connections.ordered(tables.list(), by, 2)) == every[:2]


def test_no_order_and_a_limit(tables: Tables) -> None:
    assert len(list(connections.ordered(tables.list(), "none", 3))) == 3
    assert len(list(connections.ordered(tables.list(), "none"))) == 4
    with pytest.raises(InvalidFilter, match="no order"):
        connections.ordered([], "size")


def test_flushing_takes_translations_along(tables: Tables) -> None:
    flushed = connections.flush(tables.flows, tables.nat, CLOCK, NAMES, Selection(addresses=("192.0.2.0/24",)))
    assert flushed == 1
    assert len(tables.list()) == 3
    assert list(tables.nat.keys_batches()) == [] or next(iter(tables.nat.keys_batches()))[2] == 0
    assert connections.flush(tables.flows, tables.nat, CLOCK, NAMES, Selection(), ("opening",)) == 2
    assert connections.flush(tables.flows, tables.nat, CLOCK, NAMES, Selection()) == 1
    assert connections.flush(tables.flows, tables.nat, CLOCK, NAMES, Selection()) == 0


def test_both_entries_of_a_translation_are_one_line(tables: Tables) -> None:
    def listed(wanted: Selection = ALL) -> list[TranslationFacts]:
        return list(translations.listed(tables.nat, CLOCK, NAMES, wanted))

    whole = TranslationFacts(
        "tcp",
        End("10.0.0.5", 50000, "shop/web"),
        End("192.0.2.80", 443),
        End("198.51.100.1", 40001),
        2.0,
        120.0,
    )
    assert listed() == [whole]
    assert listed(Selection(ports=(40001,))) == [whole]
    assert listed(Selection(pods=("shop/other",))) == []
    tables.nat.delete(NatKey(address_bytes("10.0.0.5"), address_bytes("192.0.2.80"), 50000, 443, TCP, 0).pack())
    assert listed() == [whole], "told by the way in alone"
