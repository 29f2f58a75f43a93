"""What is seen of the matrix while it runs: cells done, time left, and a table.

It refuses to start a lab: cells are made by hand.
"""

from __future__ import annotations

import io

from cells_by_hand import cell
from rich.console import Console

from punchd.lab.board import Board
from punchd.lab.cells import Conditions
from punchd.lab.matrix import Plan, tasks
from punchd.lab.worker import Effort

PLAN = Plan(kinds=("linux", "random"), tasks=tasks(["auto"], ["tcp", "udp"]), conditions=Conditions(), effort=Effort())


def _shown(*, terminal: bool) -> str:
    console = Console(file=io.StringIO(), width=100, force_terminal=terminal, color_system=None)
    with Board(console, PLAN.kinds, PLAN.networks()) as board:
        board.add(cell(ok=20))
        board.add(cell(ok=13, transport="udp", causes={"nothing-heard": 7}))
        board.add(cell("random", "random", ok=0))
    return console.file.getvalue()


def test_pipe_gets_a_line_per_cell_and_the_table_at_the_end() -> None:
    """Logs are read line by line."""
    first, second, third, *table = _shown(terminal=False).splitlines()
    assert "1 of 8, 0 s left  linux x linux  tcp auto: 20 of 20, worst 2 ms" == first
    assert "linux x linux  udp auto: 13 of 20, worst 2 ms (nothing-heard)" in second
    assert "3 of 8, 0 s left  random x random  tcp auto: 0 of 20" == third
    assert [["1", "linux", "●6", "··"], ["2", "random", "··", "0·"]] == [line.split() for line in table[1:3]]
    assert "auto tcp, auto udp: ● all runs" in table[3]


def test_terminal_gets_the_table_with_what_is_left() -> None:
    """The last picture stays."""
    shown = _shown(terminal=True)
    assert "3 of 8, 0 s left" in shown.splitlines()[-2]
    assert "●6" in shown
    assert "worst" not in shown
