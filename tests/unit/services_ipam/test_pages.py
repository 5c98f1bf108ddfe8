"""Listings come in pages; each item that stays is seen once, whatever comes and goes between two pages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipam.errors import InvalidInput
from services.ipam.pages import DEFAULT_SIZE, LARGEST_SIZE, page


def read_all(names: list[str], size: int) -> list[list[str]]:
    pages, token = [], ""
    while True:
        part, token = page(names, str, size, token)
        pages.append(list(part))
        if not token:
            return pages


@given(st.lists(st.text(min_size=1, max_size=5), unique=True, max_size=30).map(sorted), st.integers(1, 7))
def test_all_pages_together_are_the_listing(names: list[str], size: int) -> None:
    pages = read_all(names, size)
    assert [name for each in pages for name in each] == names
    assert all(len(each) == size for each in pages[:-1])


def test_what_goes_between_two_pages_hides_nothing_else() -> None:
    part, token = page(["a", "b", "c", "d"], str, 2, "")
    assert list(part) == ["a", "b"]
    part, token = page(["a", "c", "d"], str, 2, token)
    assert (list(part), token) == (["c", "d"], "")


def test_sizes_are_bounded() -> None:
    names = [f"{number:05}" for number in range(2 * LARGEST_SIZE)]
    assert len(page(names, str, 0, "")[0]) == DEFAULT_SIZE
    assert len(page(names, str, 10**6, "")[0]) == LARGEST_SIZE


@pytest.mark.parametrize("token", ["!", "YQ", "/w==", "é"])
def test_a_foreign_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        page(["a"], str, 1, token)
    assert refusal.value.field == "page_token"
