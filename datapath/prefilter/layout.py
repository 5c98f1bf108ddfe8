"""What bpf/xdp.bpf.c and the daemon share: bpf/include/prefilter.h in Python; a test compares both."""

from __future__ import annotations

from typing import Final

from datapath.record import Record, address16, raw, record, u32

PREFILTER_RULES_MAX: Final = 131072


@record
class PrefilterCidr4(Record):
    prefix_bits: int = u32()
    address: bytes = raw(4)


@record
class PrefilterCidr6(Record):
    prefix_bits: int = u32()
    address: bytes = address16()


@record
class PrefilterRule(Record):
    number: int = u32()


@record
class PrefilterSettings(Record):
    hosts4: int = u32()
    cidrs4: int = u32()
    hosts6: int = u32()
    cidrs6: int = u32()
