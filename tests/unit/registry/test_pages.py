"""Pages of listings and their tokens."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.registry.errors import InvalidInput
from services.registry.pages import DEFAULT_SIZE, MAX_SIZE, page

Keys = list[tuple[str, ...]]

keys = st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), unique=True).map(sorted)


def walk(listed: Keys, size: int, scope: str = "") -> Keys:
    seen: Keys = []
    token = ""
    while True:
        told, token = page(listed, size=size, token=token, scope=scope)
        seen.extend(told)
        if not token:
            return seen


@settings(deadline=None)
@given(listed=keys, size=st.integers(1, 7))
def test_all_pages_together_are_the_whole(listed: Keys, size: int) -> None:
    assert walk(listed, size) == listed


@settings(deadline=None)
@given(listed=keys, removed=st.integers(0, 3), size=st.integers(1, 3))
def test_what_stays_is_told_once_while_others_go(listed: Keys, removed: int, size: int) -> None:
    first, token = page(listed, size=size, token="")
    left = [key for key in listed if key not in first[:removed]]
    rest = walk_from(left, size, token) if token else []
    assert [*first, *rest] == listed


def walk_from(listed: Keys, size: int, token: str) -> Keys:
    seen: Keys = []
    while token:
        told, token = page(listed, size=size, token=token)
        seen.extend(told)
    return seen


def test_no_size_means_the_default() -> None:
    listed: Keys = [(f"{n:05}",) for n in range(DEFAULT_SIZE + 1)]
    told, token = page(listed, size=0, token="")
    assert len(told) == DEFAULT_SIZE
    assert token


def test_the_last_page_has_no_token_even_when_full() -> None:
    told, token = page([("a",), ("b",)], size=2, token="")
    assert (len(told), token) == (2, "")


def test_too_large_a_page_is_refused_with_its_range() -> None:
    with pytest.raises(InvalidInput, match=f"1 to {MAX_SIZE}") as refused:
        page([], size=MAX_SIZE + 1, token="")
    assert refused.value.field == "page_size"


@pytest.mark.parametrize("token", ["x", "ü", "e30", "bnVsbA", "WyIiXQ", "WyIiLCBbMV1d", "////", "a" * 2000])
def test_a_token_of_nobody_is_refused(token: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        page([("a",)], size=1, token=token)
    assert refused.value.field == "page_token"


def test_a_token_of_another_listing_is_refused() -> None:
    _, token = page([("a",), ("b",)], size=1, token="", scope="node=a")
    with pytest.raises(InvalidInput, match="another listing"):
        page([("a",), ("b",)], size=1, token=token, scope="node=b")


@settings(deadline=None)
@given(token=st.text(min_size=1))
def test_no_token_crashes(token: str) -> None:
    with contextlib.suppress(InvalidInput):
        page([("a",), ("b",)], size=1, token=token)
