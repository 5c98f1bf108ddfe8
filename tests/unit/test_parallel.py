"""Which tests a worker gets in one piece, and in which order the pieces go out."""

from __future__ import annotations

from pathlib import Path

from tests.parallel import FOLDERS, ORDER, piece_of, turn_of

ROOT = Path(__file__).parents[2]


def test_a_file_goes_out_as_one_and_some_folders_do() -> None:
    assert piece_of("tests/datapath/test_pods.py::test_del[4-direct::]") == "tests/datapath/test_pods.py"
    assert {piece_of(f"tests/vm/test_{name}.py::Test::test_it") for name in "ab"} == {"tests/vm"}


def test_what_takes_long_goes_out_first_and_what_nobody_named_last() -> None:
    pieces = ["tests/unit/test_a.py", "tests/contract/x/test_b.py", "tests/datapath/test_c.py", *reversed(FOLDERS)]
    assert sorted(pieces, key=turn_of) == [*FOLDERS, *pieces[2::-1]]


def test_every_folder_that_is_named_exists() -> None:
    assert [folder for folder in (*FOLDERS, *ORDER) if not (ROOT / folder).is_dir()] == []
