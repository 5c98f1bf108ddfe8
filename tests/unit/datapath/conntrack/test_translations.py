"""Translations of a flow, put together as they lie in memory, are what the records would make of it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from datapath import layout
from datapath.conntrack.translations import translations_of
from datapath.layout import Flow, FlowKey, NatKey, Path

addresses = st.binary(min_size=16, max_size=16)
ports = st.integers(0, 65535)
keys = st.builds(FlowKey, addresses, addresses, ports, ports, st.integers(0, 255))
paths = st.builds(Path, nat_address=addresses, nat_port=ports, flags=st.sampled_from([0, 1, 2, 3]))


@settings(deadline=None)
@given(
    keys, paths, paths, st.sampled_from([0, layout.FLOW_NAT, layout.FLOW_NAT | layout.FLOW_RST, layout.FLOW_BY_STACK])
)
def test_both_ways(key: FlowKey, low: Path, high: Path, flags: int) -> None:
    expected = []
    for path, source, destination, source_port, destination_port in (
        (low, key.low, key.high, key.low_port, key.high_port),
        (high, key.high, key.low, key.high_port, key.low_port),
    ):
        if flags & layout.FLOW_NAT and path.flags & layout.PATH_NAT:
            out = NatKey(source, destination, source_port, destination_port, key.protocol, layout.NAT_OUT)
            back = NatKey(destination, path.nat_address, destination_port, path.nat_port, key.protocol, layout.NAT_IN)
            expected += [out.pack(), back.pack()]
    assert translations_of(key.pack(), Flow(flags=flags, from_low=low, from_high=high).pack()) == expected
