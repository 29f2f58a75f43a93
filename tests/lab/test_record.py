"""A matrix that is worse than the recorded one is told, cell by cell; and the record is what pictures and README show.

It refuses to run the whole: `./dev lab accept --matrix` does. A few pairs of it are run here.
"""

from __future__ import annotations

import io
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from cells_by_hand import cell
from rich.console import Console

from punchd.lab import cells
from punchd.lab.cells import TRANSPORTS, Cell, Conditions
from punchd.lab.matrix import matrix
from punchd.lab.pages import KINDS
from punchd.lab.record import (
    BEGIN,
    CONDITIONS,
    END,
    QUICK,
    README,
    RECORD,
    accept,
    late,
    misses,
    record,
    section,
    whole,
    worse,
)
from punchd.lab.worker import Effort


def test_one_lost_run_of_a_whole_cell_is_worse() -> None:
    """20 of 20 means 20, and in fewer runs all of them."""
    assert {} == worse([cell()], [cell()])
    assert 1 == len(worse([cell(ok=19)], [cell()]))
    assert 1 == len(worse([cell(ok=2, runs=3)], [cell()]))
    assert {} == worse([cell(ok=3, runs=3)], [cell()])


def test_cell_that_was_not_whole_is_worse_beyond_chance_only() -> None:
    """Half of the runs may be a little less than half the next time; none of them is news."""
    half = cell(ok=10)
    assert {} == worse([cell(ok=6)], [half])
    assert 1 == len(worse([cell(ok=2)], [half]))
    assert {} == worse([cell(ok=0)], [cell(ok=0)])
    assert {} == worse([cell(ok=20)], [half])


def test_only_the_same_cell_is_compared() -> None:
    """UDP, another delay or another direction is another cell."""
    lost = cell("linux", "cone", ok=0)
    for other in (
        cell("cone", "linux"),
        cell("linux", "cone", transport="udp"),
        cell("linux", "cone", technique="tcp-simopen"),
        cell("linux", "cone", delay_ms=100.0),
        cell("linux", "cone", hosts_conntrack=True),
    ):
        assert {} == worse([lost], [other])


def test_every_cell_of_auto_must_be_whole_but_the_excepted() -> None:
    """The promise of the README, however the record stands."""
    assert {} == misses([cell(), cell("random", "random", ok=0), cell(technique="tcp-syni", ok=0)])
    (said,) = misses([cell("random", "cone", ok=19, causes={"nothing-heard": 1})]).values()
    assert "random x cone, tcp auto, 0 ms one way: 19 of 20 (nothing-heard)" == said


def test_nearly_all_successes_come_on_the_first_try() -> None:
    """In the field, too, 97.6 % of them do: what follows a failed try must be the exception."""
    exact = [cell(first_try=20)] * 4 + [cell(first_try=17)]
    assert [] == late([*exact, cell("random", "random", first_try=0), cell(technique="tcp-syni", first_try=0)])
    assert ["96 of 100 successes came on the first try"] == late([cell(first_try=19)] * 4 + [cell(first_try=20)])
    assert ["1 cells do not say what came on the first try"] == late([*exact, cell(first_try=None)])


def test_record_holds_every_pair_under_each_of_its_conditions() -> None:
    """A cell that is missing would never be worse."""
    recorded = {cell.key for cell in cells.read(RECORD)}
    held = {conditions for *_, conditions in recorded}
    assert {Conditions()} <= held <= set(CONDITIONS)
    for conditions in held:
        networks = whole(conditions, Effort()).networks()
        wanted = {(one.a, one.b, *task, conditions) for one in networks for task in one.tasks}
        assert len(KINDS) ** 2 * len(TRANSPORTS) == len(wanted)
        assert set() == wanted - recorded


def test_readme_says_what_is_recorded_and_what_is_not() -> None:
    """Conditions that nobody has recorded must not pass for others, nor those of a record get lost unseen."""
    found = README.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    assert section(cells.read(RECORD)) == found, "./dev lab record writes both"


def test_row_counts_what_is_no_guess() -> None:
    """Cells in which both sides must guess would drown the news."""
    recorded = [cell(), cell("linux", "cone", ok=10), cell("random", "random", ok=0), cell(technique="udp", ok=0)]
    *_, plain, dropping, _ = section(recorded).splitlines()
    assert "| 0 ms one way | 1 of 2 cells | 75.0 % | 100.0 % |" == plain
    assert "| 0 ms one way, hosts drop INVALID | not recorded yet | | |" == dropping


def _every(**more: int) -> list[Cell]:
    """Whole cells for every pair under every condition, or cells of so many `ok`."""
    networks = [network for conditions in CONDITIONS for network in whole(conditions, Effort()).networks()]
    return [
        cell(network.a, network.b, transport=transport, technique=technique, **asdict(network.conditions), **more)
        for network in networks
        for transport, technique in network.tasks
    ]


def test_acceptance_counts_each_cell_that_is_not_whole_once(tmp_path: Path) -> None:
    """Status 1 hangs on it: a cell that misses the promise and is worse than recorded is one cell."""
    path, quiet = tmp_path / "m.json", Console(file=io.StringIO())
    said: list[str] = []
    every = _every()
    cells.write(path, every)
    assert 0 == accept(Effort(), jobs=1, console=quiet, path=path, tell=said.append)
    at = next(n for n, one in enumerate(every) if (one.a, one.b) == ("linux", "cone"))
    excepted = next(n for n, one in enumerate(every) if (one.a, one.b) == ("random", "random"))
    every[at], every[excepted] = replace(every[at], ok=19), replace(every[excepted], ok=0)
    cells.write(path, every)
    assert 1 == accept(Effort(), jobs=1, console=quiet, path=path, tell=said.append)
    assert "MISS  linux x cone, tcp auto, 0 ms one way: 19 of 20" in "\n".join(said)


def test_new_record_takes_the_old_ones_place_only_when_it_is_whole(tmp_path: Path) -> None:
    """A run that is stopped after half an hour must not leave half old and half new cells."""
    path, quiet = tmp_path / "m.json", Console(file=io.StringIO())
    old, fresh = _every(ok=0), _every()
    cells.write(path, old)
    cells.write(tmp_path / "m.fresh", fresh)
    record(Effort(), jobs=1, console=quiet, resume=True, path=path)
    assert {20} == {one.ok for one in cells.read(path)}
    assert ["m.json"] == [one.name for one in tmp_path.iterdir()]
    record(Effort(), jobs=1, console=quiet, resume=True, path=path)
    assert fresh == sorted(cells.read(path), key=fresh.index), "what a record has is not run again"


@pytest.mark.slow
def test_pictures_show_the_recorded_cells() -> None:
    """They are drawn from the record; a picture of another day flatters or slanders."""
    from punchd.lab.heatmap import FORMATS, digest

    wanted = digest(cells.read(RECORD)).encode()
    for kind in FORMATS:
        assert wanted in RECORD.with_suffix(f".{kind}").read_bytes(), (
            "draw it: ./dev lab heatmap docs/matrix.json docs/matrix"
        )


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_few_tricky_pairs_are_not_worse_than_recorded(tmp_path: Path) -> None:
    """What a careless change breaks first, in seconds; the rest is `./dev lab accept --matrix`'s."""
    plan = replace(whole(Conditions(), Effort(runs=4, timeout_ms=4000)), pairs=QUICK)
    with (tmp_path / "said").open("w") as said:
        found = matrix(plan, path=tmp_path / "m.json", jobs=3, console=Console(file=said))
    assert 2 * len(QUICK) == len(found)
    assert {} == worse(found, cells.read(RECORD))
