"""Cells of the matrix as data: what was asked of a pair of networks, what came of it, and the file that holds them.

It refuses to run anything and to judge: matrix.py and record.py do.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from .pair import Result

TRANSPORTS = ("tcp", "udp")

FOREIGN = 20
"""Ports a second that neighbours take at a `sequential` box, unless the kind says another number."""

EXCEPTIONS = frozenset({("random", "random"), ("random", "sequential"), ("sequential", "random")})
"""Pairs in which both sides would have to guess: a few in a thousand runs, within any decent budget."""

ORDER = (
    "open", "firewall", "cone", "linux", "linux-liberal", "untracked", "linux-reject", "linux-noloose",
    "linux-synfilter", "cgn", "rst-kills", "icmp-kills", "blacklist", "sequential", "random",
)  # fmt: skip
"""The kinds as tables show them: from what lets everything in to what hides its ports."""

Key = tuple[str, str, str, str, "Conditions"]


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Conditions:
    """What cells must share to be compared."""

    delay_ms: float = 0.0
    loss: float = 0.0
    hosts_conntrack: bool = False
    foreign: int = FOREIGN

    def say(self) -> str:
        """For a heading: `100 ms one way, 2 % lost`."""
        return ", ".join(
            [
                f"{self.delay_ms:g} ms one way",
                *([f"{100 * self.loss:g} % lost"] if self.loss else []),
                *(["hosts drop INVALID"] if self.hosts_conntrack else []),
                *([f"{self.foreign} foreign ports a second"] if self.foreign != FOREIGN else []),
            ]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Of the runs that connected: ms from A's request to the descriptor in that application's hands."""

    median: float | None
    worst: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """So many runs of one technique, or of auto, between two kinds."""

    a: str
    b: str
    transport: str
    technique: str
    delay_ms: float
    loss: float
    hosts_conntrack: bool
    foreign: int
    endpoint: str
    runs: int
    ok: int
    first_try: int | None = None
    """Of these, how many by what was tried first; None in files from before it was counted."""
    winners: dict[str, int]
    causes: dict[str, int]
    time_a_ms: Spread
    time_b_ms: Spread

    @property
    def conditions(self) -> Conditions:
        return Conditions(
            delay_ms=self.delay_ms, loss=self.loss, hosts_conntrack=self.hosts_conntrack, foreign=self.foreign
        )

    @property
    def key(self) -> Key:
        """What tells it from every other cell, whatever came of it."""
        return self.a, self.b, self.transport, self.technique, self.conditions

    @property
    def excepted(self) -> bool:
        return (bare(self.a), bare(self.b)) in EXCEPTIONS


def cell(result: Result, *, a: str, b: str, conditions: Conditions) -> Cell:
    """The result as a cell, under the names that were asked for."""
    line = result.summary()
    return Cell(
        a=a,
        b=b,
        transport=result.transport,
        technique=result.technique,
        **asdict(conditions),
        endpoint=result.endpoint,
        runs=result.runs,
        ok=result.ok,
        first_try=result.first_try,
        winners=dict(result.winners),
        causes=dict(line["causes"]),
        time_a_ms=Spread(**line["time_a_ms"]),
        time_b_ms=Spread(**line["time_b_ms"]),
    )


def bare(kind: str) -> str:
    """Without its parameters."""
    return kind.partition(":")[0]


def order(kinds: Iterable[str]) -> list[str]:
    """Each kind once, as tables show them; what is not in ORDER comes last."""
    known = {kind: number for number, kind in enumerate(ORDER)}
    return sorted(set(kinds), key=lambda kind: (known.get(kind, len(known)), kind))


def read(path: Path) -> list[Cell]:
    """The cells of a file; a ValueError says what is wrong with it."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Cell])
    except msgspec.DecodeError as error:
        raise ValueError(f"{path} holds no matrix: {error}") from error


def write(path: Path, cells: Sequence[Cell]) -> None:
    """A cell a line, in an order of their own, so that a change of one is a change of one line."""
    ranks = {kind: number for number, kind in enumerate(kinds(cells))}
    ranked = sorted(cells, key=lambda one: (one.conditions, one.transport, one.technique, ranks[one.a], ranks[one.b]))
    lines = ",\n".join(msgspec.json.encode(one).decode() for one in ranked)
    # a reader, and whoever resumes, never sees half a file
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    os.replace(fresh, path)


def kinds(cells: Iterable[Cell]) -> list[str]:
    """Every kind that occurs, as tables show them."""
    return order(name for one in cells for name in (one.a, one.b))
