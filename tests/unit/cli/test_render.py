"""Cells and tables."""

from __future__ import annotations

import pytest

from services.cli.render import Table, age, plain, show


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (None, "-"), ("", "-"), ([], "-"), (0, 0), (False, "no"), (True, "yes"), (["a", "b"], "a, b"),
        ({"zone": "a"}, "zone=a"), ("text", "text"),
    ],
)  # fmt: skip
def test_plain(value: object, cell: object) -> None:
    assert plain(value) == cell


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5, "5 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (86400 * 4, "4 d"), (-30, "in 30 s")],
)
def test_age(seconds: int, text: str) -> None:
    assert age("2023-11-14T22:13:20Z", now_s=1_700_000_000 + seconds) == text


def test_age_of_what_never_happened() -> None:
    assert age(None) == "-"


def test_an_empty_table_says_what_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    show([], False, Table(("a",), empty="no nodes yet"))
    assert capsys.readouterr().out == "no nodes yet\n"


def test_nothing_is_cut_when_the_output_is_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    show([], False, Table(("a", "b"), [("x" * 300, "[red]y[/red]")]))
    out = capsys.readouterr().out
    assert "x" * 300 in out
    assert "[red]y[/red]" in out, "text of services is never taken for markup"
