"""Sizes of the connection maps from the machine's memory."""

from __future__ import annotations

import pytest

from datapath.conntrack.sizing import SHARES, Sizing, sizes
from datapath.errors import InvalidSetting

GIB = 1 << 30


@pytest.mark.parametrize(
    ("memory", "flows", "nat", "fragments"),
    [
        (1 * GIB, 32_768, 16_384, 4_096),
        (8 * GIB, 53_248, 30_720, 4_096),
        (64 * GIB, 425_984, 245_760, 29_696),
        (1024 * GIB, 4_194_304, 3_932_160, 65_536),
    ],
)
def test_from_small_machines_to_large_ones(memory: int, flows: int, nat: int, fragments: int) -> None:
    assert sizes(memory) == {"flows": flows, "nat": nat, "fragments": fragments}


@pytest.mark.parametrize("memory", [1 * GIB, 8 * GIB, 64 * GIB])
def test_the_memory_is_what_was_promised(memory: int) -> None:
    taken = sum(entries * SHARES[name].entry_bytes for name, entries in sizes(memory).items())
    least = sum(share.low * share.entry_bytes for share in SHARES.values())
    assert taken <= max(memory * 0.0025, least) * 1.01


def test_a_little_memory_more_or_less_keeps_the_pinned_maps() -> None:
    assert sizes(32 * GIB - 5_000_000) == sizes(32 * GIB - 9_000_000)


def test_overrides_and_ratio() -> None:
    found = sizes(64 * GIB, Sizing(0.005, {"flows": 100_000}))
    assert found["flows"] == 100_000, "as it was said"
    assert found["nat"] > 1.9 * sizes(64 * GIB)["nat"]


@pytest.mark.parametrize(
    ("ratio", "entries", "field"),
    [
        (0.0, {}, "map_ratio"),
        (0.5, {}, "map_ratio"),
        (0.01, {"flow": 5000}, "map_entries"),
        (0.01, {"flows": 5}, "map_entries.flows"),
    ],
)
def test_what_cannot_be_is_refused(ratio: float, entries: dict[str, int], field: str) -> None:
    with pytest.raises(InvalidSetting) as refused:
        Sizing(ratio, entries)
    assert refused.value.field == field
