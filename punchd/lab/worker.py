"""Runs networks of the matrix, one after the other: a network per line on stdin, its cells as lines on stdout.

It refuses to choose: what to run stands in the line. An empty line ends a network; SIGTERM and the end of stdin end it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from .cells import Cell, Conditions, bare, cell
from .pair import DAEMON, Pair
from .topology import Lab

_REMEMBERS = frozenset({"blacklist"})
"""Kinds that hold against a peer for long what its last cell did: each cell has a lab of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How each cell is run; `endpoint` is one of pair.ENDPOINT. The record is with fresh descriptors."""

    runs: int = 20
    parallel: int = 4
    timeout_ms: int = 10000
    endpoint: str = "run"
    tell_side_delay: bool = False
    daemon: tuple[str, ...] = DAEMON


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A pair of kinds, and the cells to run on it as (transport, technique)."""

    a: str
    b: str
    conditions: Conditions
    tasks: tuple[tuple[str, str], ...]
    effort: Effort


def perform(network: Network) -> Iterator[Cell]:
    """One lab and one pair of daemons serve all cells, as far as that is fair."""
    alone = _REMEMBERS & {bare(network.a), bare(network.b)}
    for tasks in [(task,) for task in network.tasks] if alone else [network.tasks]:
        yield from _share(network, tasks)


def _share(network: Network, tasks: tuple[tuple[str, str], ...]) -> Iterator[Cell]:
    conditions, effort = network.conditions, network.effort
    a, b = (_loaded(kind, conditions.foreign) for kind in (network.a, network.b))
    with Lab(
        a, b, delay_ms=conditions.delay_ms, loss=conditions.loss, hosts_conntrack=conditions.hosts_conntrack, echo=None
    ) as lab:
        with Pair(lab, daemon=effort.daemon) as pair:
            for transport, technique in tasks:
                result = pair.run(
                    technique,
                    transport=transport,
                    runs=effort.runs,
                    parallel=effort.parallel,
                    hurry=True,
                    timeout_ms=effort.timeout_ms,
                    endpoint=effort.endpoint,
                    tell_side_delay=effort.tell_side_delay,
                )
                yield cell(result, a=network.a, b=network.b, conditions=conditions)


def _loaded(kind: str, foreign: int) -> str:
    return f"{kind}:foreign={foreign}" if kind == "sequential" else kind


def main() -> None:
    for line in sys.stdin:
        for one in perform(msgspec.json.decode(line, type=Network)):
            print(msgspec.json.encode(one).decode(), flush=True)
        print(flush=True)


if __name__ == "__main__":
    main()
