"""The matrix's file holds what was measured, and is the same for the same cells.

It refuses to start a lab: cells are made by hand.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cells_by_hand import cell

from punchd.lab.cells import EXCEPTIONS, ORDER, Conditions, order, read, write
from punchd.lab.pages import KINDS


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    """A run that is resumed builds on it."""
    cells = [cell(causes={"nothing-heard": 3}, ok=17), cell("linux", "cone", transport="udp")]
    write(tmp_path / "m.json", cells)
    assert set(map(repr, cells)) == set(map(repr, read(tmp_path / "m.json")))
    assert ["m.json"] == [path.name for path in tmp_path.iterdir()]


def test_file_is_a_list_of_flat_cells_for_scripts(tmp_path: Path) -> None:
    """The contract: names and numbers that a script finds without our code."""
    write(tmp_path / "m.json", [cell("cone", "linux", ok=19, causes={"nothing-heard": 1})])
    (line,) = json.loads((tmp_path / "m.json").read_text())
    assert {
        "a": "cone",
        "b": "linux",
        "technique": "auto",
        "transport": "tcp",
        "runs": 20,
        "ok": 19,
    }.items() <= line.items()
    assert {"nothing-heard": 1} == line["causes"]
    assert {"median": 1.5, "worst": 2.5} == line["time_a_ms"] == line["time_b_ms"]


def test_order_of_cells_in_the_file_is_not_the_order_of_running(tmp_path: Path) -> None:
    """Several labs at a time end in any order; a diff of two records should show what changed, and no more."""
    cells = [cell(a, b) for a in ("random", "linux") for b in ("cone", "linux")]
    write(tmp_path / "one.json", cells)
    write(tmp_path / "other.json", cells[::-1])
    assert (tmp_path / "one.json").read_text() == (tmp_path / "other.json").read_text()
    assert len(cells) + 2 == len((tmp_path / "one.json").read_text().splitlines())


@pytest.mark.parametrize("text", ["", "{}", '[{"a":"linux"}]', "[3]"])
def test_file_that_holds_no_matrix_is_refused_by_name(tmp_path: Path, text: str) -> None:
    """Not overwritten, and not taken for an empty one."""
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(ValueError, match=r"m\.json holds no matrix"):
        read(tmp_path / "m.json")


def test_every_kind_has_its_place_in_tables() -> None:
    """A new kind must be put somewhere; parameters and layers come last."""
    assert set(KINDS) == set(ORDER)
    assert ["open", "linux", "random", "linux/linux", "sequential:step=2"] == order(
        ["sequential:step=2", "linux/linux", "random", "linux", "open", "open"]
    )


def test_only_pairs_in_which_both_must_guess_are_excepted() -> None:
    """Each exception is a hole in the promise: they are three, and by name."""
    excepted = {(a, b) for a in KINDS for b in KINDS if cell(a, b).excepted}
    assert EXCEPTIONS == excepted
    assert {("random", "random"), ("random", "sequential"), ("sequential", "random")} == excepted
    assert cell("random", "sequential:step=2").excepted


def test_conditions_are_said_in_words() -> None:
    """They head the panels of the picture."""
    assert "0 ms one way" == Conditions().say()
    assert "100 ms one way, 2 % lost" == Conditions(delay_ms=100, loss=0.02).say()
    assert "0 ms one way, hosts drop INVALID" == Conditions(hosts_conntrack=True).say()
