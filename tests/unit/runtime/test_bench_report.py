"""The bench's table: ratios, targets and verdicts."""

from __future__ import annotations

import json

import pytest

from tests.bench.report import Row, as_json, table


@pytest.mark.parametrize(
    ("row", "ratio", "met"),
    [
        (Row("fleet", 5.0, "s", target="<= 6"), None, True),
        (Row("leases", 2500.0, "1/s", target=">= 3000"), None, False),
        (Row("add", 9.0, "ms", 6.0, target="ratio <= 1.5"), 1.5, True),
        (Row("calls", 40.0, "calls", 100.0), 0.4, None),
        (Row("given", 40.0, "calls", 100.0, ratio=2.5), 2.5, None),
    ],
)
def test_a_row_knows_its_ratio_and_whether_it_is_good_enough(row: Row, ratio: float | None, met: bool | None) -> None:
    assert (row.ratio, row.met) == (ratio, met)


def test_a_target_that_can_not_be_read_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="target"):
        Row("x", 1.0, "s", target="fast")


def test_table_and_json_tell_the_same() -> None:
    rows = [Row("leases", 12345.0, "1/s", 3.14159, target=">= 3000"), Row("p50", 0.00012, "s")]
    text = table(rows)
    assert [line.count("|") for line in text.splitlines()] == [8] * 4
    assert "12,345" in text
    assert "0.000120" in text
    assert [row["met"] for row in json.loads(as_json(rows))["rows"]] == [True, None]
