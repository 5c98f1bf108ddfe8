"""Small rules of the loader that need no kernel."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapath.loader import bpffs
from datapath.loader.clock import signed
from datapath.loader.links import pin_name


def test_pins_of_links_have_no_dots() -> None:
    assert pin_name("to-device", "eth0") == "to-device-eth0"
    assert pin_name("to-device", "eth0.100") == "to-device-eth0%2e100"
    assert pin_name("xdp", "a%2e") != pin_name("xdp", "a.")


@given(st.text(st.characters(blacklist_characters="/\0"), min_size=1), st.text(min_size=1))
def test_no_two_devices_share_a_pin(one: str, other: str) -> None:
    assert "." not in pin_name("hook", one)
    assert (pin_name("hook", one) == pin_name("hook", other)) == (one == other)


@pytest.mark.parametrize(("difference", "meant"), [(5, 5), (0, 0), (0xFFFFFFFF, -1), (1 << 31, -(1 << 31)), (-3, -3)])
def test_differences_of_jiffies_wrap(difference: int, meant: int) -> None:
    assert signed(difference) == meant


@given(st.integers(0, 0xFFFFFFFF), st.integers(-(1 << 31), (1 << 31) - 1))
def test_a_moment_and_another_that_far_from_it(moment: int, distance: int) -> None:
    assert signed(((moment + distance) & 0xFFFFFFFF) - moment) == distance


def test_the_file_system_of_a_path() -> None:
    assert bpffs.file_system(Path("/proc/self/status")) == "proc"
    assert bpffs.file_system(Path("/proc/nothing/at/all")) == "proc"
