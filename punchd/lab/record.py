"""The recorded matrix: which cells it holds, how it is made anew and told, and whether a fresh one is worse.

It refuses to forgive: a cell that was whole may not miss one run. One that was not is worse when chance alone would
bring so few successes less than once in a hundred times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import comb
from pathlib import Path

from rich.console import Console

from . import cells
from .cells import TRANSPORTS, Cell, Conditions, Key
from .matrix import Plan, matrix, tasks
from .pages import KINDS
from .worker import Effort

_ROOT = Path(__file__).parents[2]
RECORD, README = _ROOT / "docs" / "matrix.json", _ROOT / "README.md"
BEGIN, END = "<!-- matrix: begin -->\n", "<!-- matrix: end -->\n"

CONDITIONS = (Conditions(), Conditions(hosts_conntrack=True), Conditions(delay_ms=100, loss=0.02))

QUICK = (
    ("linux-noloose", "linux-reject"),
    ("linux-synfilter", "icmp-kills"),
    ("rst-kills", "blacklist"),
    ("blacklist", "linux-reject"),
    ("cgn", "cgn"),
    ("cone", "linux-synfilter"),
)
"""Pairs that punish strays, or hide behind two boxes: what a careless change breaks first."""

FIRST_TRIES = 0.97
"""The share of all successes that come on the first try: who tries again mostly fails again."""

_CHANCE = 0.01


def whole(conditions: Conditions, effort: Effort) -> Plan:
    """Auto over both transports, in every ordered pair of kinds."""
    return Plan(
        kinds=tuple(cells.order(KINDS)), tasks=tasks(["auto"], TRANSPORTS), conditions=conditions, effort=effort
    )


def misses(fresh: Iterable[Cell]) -> dict[Key, str]:
    """The cells of auto that did not connect in every run, though they should, and what to say of them."""
    return {
        cell.key: _said(cell)
        for cell in fresh
        if cell.technique == "auto" and not cell.excepted and cell.ok < cell.runs
    }


def worse(fresh: Iterable[Cell], recorded: Iterable[Cell]) -> dict[Key, str]:
    """The cells that are worse than they were, and what to say of them."""
    before = {cell.key: cell for cell in recorded}
    return {
        cell.key: f"{_said(cell)}; recorded {was.ok} of {was.runs}"
        for cell in fresh
        if (was := before.get(cell.key)) is not None and _chance(cell, was) < _CHANCE
    }


def late(fresh: Iterable[Cell]) -> list[str]:
    """What to say where too few of auto's successes came on the first try; nothing where enough did."""
    counted = [cell for cell in fresh if cell.technique == "auto" and not cell.excepted]
    untold = sum(cell.first_try is None for cell in counted)
    if untold:
        return [f"{untold} cells do not say what came on the first try"]
    first, ok = sum(cell.first_try or 0 for cell in counted), sum(cell.ok for cell in counted)
    return [f"{first} of {ok} successes came on the first try"] if first < FIRST_TRIES * ok else []


def record(effort: Effort, *, jobs: int, console: Console, resume: bool, path: Path = RECORD) -> None:
    """Make the recorded matrix anew, under all its conditions; it takes the old one's place when it is whole.

    With `resume`, what was interrupted goes on; where nothing was, the record gets what it lacks.
    """
    fresh = path.with_suffix(".fresh")
    if not resume:
        fresh.unlink(missing_ok=True)
    elif not fresh.exists() and path.exists():
        fresh.write_bytes(path.read_bytes())
    for number, conditions in enumerate(CONDITIONS, 1):
        console.print(f"{number} of {len(CONDITIONS)}: {conditions.say()}")
        matrix(whole(conditions, effort), path=fresh, jobs=jobs, console=console, resume=True)
    fresh.replace(path)


def section(recorded: Iterable[Cell]) -> str:
    """What stands between the README's marks: a row for each of the conditions, also for one not recorded yet."""
    counted = [cell for cell in recorded if cell.technique == "auto" and not cell.excepted]
    rows = [_row(conditions, [cell for cell in counted if cell.conditions == conditions]) for conditions in CONDITIONS]
    head = "| | connected in each run | of single runs | of these on the first try |\n|---|---|---|---|\n"
    return head + "".join(rows)


def tell(path: Path = README) -> None:
    """Put the record's section into the README."""
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    told = before + BEGIN + section(cells.read(RECORD)) + END + rest.partition(END)[2]
    path.write_text(told, encoding="utf-8")


def accept(effort: Effort, *, jobs: int, console: Console, path: Path, tell: Callable[[str], None] = print) -> int:
    """Run the whole matrix under all recorded conditions, into a file of its own; the number of misses."""
    recorded = cells.read(RECORD)
    complaints: list[str] = []
    for conditions in CONDITIONS:
        tell(conditions.say())
        plan = whole(conditions, effort)
        found = [
            cell
            for cell in matrix(plan, path=path, jobs=jobs, console=console, resume=True)
            if cell.conditions == conditions
        ]
        absent = len(plan.kinds) ** 2 * len(plan.tasks) - len(found)
        complaints += (misses(found) | worse(found, recorded)).values()
        complaints += late(found)
        complaints += [f"{absent} cells are missing"] if absent else []
    for complaint in complaints:
        tell(f"MISS  {complaint}")
    tell(f"{len(complaints)} misses")
    return len(complaints)


def _row(conditions: Conditions, found: list[Cell]) -> str:
    if not found:
        return f"| {conditions.say()} | not recorded yet | | |\n"
    every, ok, first = (sum(counts) for counts in zip(*map(_counts, found), strict=True))
    shares = f"{100 * ok / sum(one.runs for one in found):.1f} % | {100 * first / max(ok, 1):.1f} %"
    return f"| {conditions.say()} | {every} of {len(found)} cells | {shares} |\n"


def _counts(one: Cell) -> tuple[int, int, int]:
    """Whole, successes, those on the first try."""
    return int(one.ok == one.runs), one.ok, one.first_try or 0


def _chance(cell: Cell, was: Cell) -> float:
    """Of so few successes or fewer, were the recorded share of them the truth."""
    share = was.ok / was.runs
    return sum(
        comb(cell.runs, count) * share**count * (1 - share) ** (cell.runs - count) for count in range(cell.ok + 1)
    )


def _said(cell: Cell) -> str:
    causes = f" ({', '.join(cell.causes)})" if cell.causes else ""
    place = f"{cell.a} x {cell.b}, {cell.transport} {cell.technique}, {cell.conditions.say()}"
    return f"{place}: {cell.ok} of {cell.runs}{causes}"
