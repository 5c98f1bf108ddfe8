"""What a FakeCloud can, holds and counts as reading, unless a test says otherwise."""

from __future__ import annotations

from typing import Final

from ipam.model import Limits
from ipam.ports import Capabilities

AWS_LIKE: Final = Capabilities(
    creates_interfaces=True, max_addresses_per_call=64, max_addresses_on_create=64, delete_on_termination=True,
    prefixes=True, ipv6=True, ipv6_prefixes=True, assign_tokens=True, changes_interfaces=True, public_addresses=True,
)  # fmt: skip
LIMITS: Final = (
    Limits("m5.large", interfaces=3, ipv4_per_interface=10, ipv6_per_interface=10, prefixes=True),
    Limits("m4.large", interfaces=2, ipv4_per_interface=10, ipv6_per_interface=10),
    Limits("m5.4xlarge", interfaces=8, ipv4_per_interface=30, ipv6_per_interface=30, prefixes=True),
    Limits("t3.nano", interfaces=2, ipv4_per_interface=2, ipv6_per_interface=2, prefixes=True),
    Limits(
        "cards.large", interfaces=6, ipv4_per_interface=10, ipv6_per_interface=10, prefixes=True, network_cards=2,
        card_interfaces=(3, 3),
    ),
)  # fmt: skip
READS: Final = (
    "read-instance", "read-inventory", "read-subnets", "read-security-groups", "read-limits", "read-public-addresses",
)  # fmt: skip
