"""The matrix as it grows, for people: a table drawn anew in a terminal, a line per cell elsewhere, and the time left.

It refuses to run anything: it is told what was done.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .cells import Cell
from .worker import Network

_COLOURS = ((1.0, "green"), (0.9, "yellow"), (0.0, "red"))


class Board:
    """Counts cells for the length of a `with` block."""

    def __init__(self, console: Console, kinds: Sequence[str], networks: Sequence[Network]) -> None:
        self._console, self._kinds = console, kinds
        self._tasks = list(dict.fromkeys(task for network in networks for task in network.tasks))
        self._cells: dict[tuple[str, str, str, str], Cell] = {}
        self._total = sum(len(network.tasks) for network in networks)
        self._done = 0
        self._begun = time.monotonic()
        self._live = Live(console=console, get_renderable=self._drawn, refresh_per_second=2)

    def __enter__(self) -> Board:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()
        elif kind is None:
            self._console.print(Group(self._table(), self._legend()))

    def add(self, cell: Cell) -> None:
        """Count one."""
        self._done += 1
        self._cells[cell.a, cell.b, cell.transport, cell.technique] = cell
        if not self._console.is_terminal:
            self._console.print(f"{self._progress()}  {_said(cell)}", soft_wrap=True, highlight=False)

    def _progress(self) -> str:
        elapsed_s = time.monotonic() - self._begun
        left = _span(elapsed_s / self._done * (self._total - self._done)) if self._done else "?"
        return f"{self._done:{len(str(self._total))}} of {self._total}, {left} left"

    def _drawn(self) -> Group:
        return Group(self._table(), self._legend(), Text(self._progress()))

    def _legend(self) -> Text:
        names = (technique if technique != "auto" else f"auto {transport}" for transport, technique in self._tasks)
        return Text(f"in each cell {', '.join(names)}: ● all runs, 1 to 9 tenths of them, 0 none, · not run")

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        table.add_column("A down, B across", no_wrap=True)
        for number, _ in enumerate(self._kinds, 1):
            table.add_column(str(number), no_wrap=True)
        for number, a in enumerate(self._kinds, 1):
            marks = (
                Text.assemble(*(_mark(self._cells.get((a, b, *task))) for task in self._tasks)) for b in self._kinds
            )
            table.add_row(f"{number:2} {a}", *marks)
        return table


def _mark(cell: Cell | None) -> tuple[str, str]:
    if cell is None:
        return "·", "dim"
    share = cell.ok / cell.runs
    colour = next(colour for least, colour in _COLOURS if share >= least)
    return "●" if cell.ok == cell.runs else str(int(10 * share)), colour


def _said(cell: Cell) -> str:
    worst = f", worst {max(cell.time_a_ms.worst or 0, cell.time_b_ms.worst or 0):.0f} ms" if cell.ok else ""
    causes = f" ({', '.join(cell.causes)})" if cell.causes else ""
    return f"{cell.a} x {cell.b}  {cell.transport} {cell.technique}: {cell.ok} of {cell.runs}{worst}{causes}"


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
