"""The matrix: every ordered pair of kinds, auto and each technique, several labs at a time.

It refuses to judge: it counts, and keeps what it has after every cell. record.py compares.
"""

from __future__ import annotations

import os
import queue
import random
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import msgspec
from rich.console import Console

from . import cells
from .board import Board
from .cells import Cell, Conditions
from .worker import Effort, Network

JOBS = 2 * (os.cpu_count() or 1)
"""Labs at a time: most of the time they wait."""

_TERM_PATIENCE_S = 3.0
_WORKER = (sys.executable, "-m", "punchd.lab.worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which cells are wanted, and how they are run."""

    kinds: tuple[str, ...]
    tasks: tuple[tuple[str, str], ...]
    conditions: Conditions
    effort: Effort
    pairs: tuple[tuple[str, str], ...] = ()  # these alone, instead of every pair of the kinds

    def networks(self, known: Iterable[Cell] = ()) -> list[Network]:
        """What is to be done, row by row, without the cells that are known."""
        done = {cell.key for cell in known}
        found = []
        for a, b in self.pairs or [(a, b) for a in self.kinds for b in self.kinds]:
            tasks = tuple(task for task in self.tasks if (a, b, *task, self.conditions) not in done)
            if tasks:
                found.append(Network(a=a, b=b, conditions=self.conditions, tasks=tasks, effort=self.effort))
        return found


def tasks(techniques: Sequence[str], transports: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """As (transport, technique): auto over each transport, any other over the one it is for."""
    found = []
    for technique in techniques:
        own = "udp" if technique.startswith("udp") else "tcp"
        found += [(transport, technique) for transport in transports if technique == "auto" or transport == own]
    return tuple(found)


class Broken(Exception):
    """Networks that could not be run."""


def run(networks: Sequence[Network], *, jobs: int) -> Iterator[Cell]:
    """Run them on so many workers; each cell as it is done. Broken comes at the end."""
    broken = []
    with _Workers(networks, min(jobs, len(networks))) as workers:
        over = 0
        while over < len(networks):
            said = workers.said.get()
            if isinstance(said, Cell):
                yield said
                continue
            over += 1
            if said is not None:
                broken.append(said)
    if broken:
        raise Broken("; ".join(broken))


class _Workers:
    """Processes, since a lab is a process's affair: its signals, its namespaces' names. One thread listens to each."""

    def __init__(self, networks: Sequence[Network], count: int) -> None:
        self.said: queue.Queue[Cell | str | None] = queue.Queue()
        self._waiting = deque(networks)
        self._children: list[subprocess.Popen[str]] = []
        self._count = count
        self._ending = False

    def __enter__(self) -> _Workers:
        for number in range(self._count):
            threading.Thread(target=self._serve, args=(self._start(),), name=f"worker {number}", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending = True
        # again and again: one that is just removing a lab does not hear it
        while living := [child for child in self._children if child.poll() is None]:
            for child in living:
                child.terminate()
            try:
                living[-1].wait(_TERM_PATIENCE_S)
            except subprocess.TimeoutExpired:
                pass

    def _start(self) -> subprocess.Popen[str]:
        # a session of its own: Ctrl-C is for us, and we say SIGTERM
        child = subprocess.Popen(
            _WORKER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self._children.append(child)
        return child

    def _serve(self, child: subprocess.Popen[str]) -> None:
        while self._waiting and not self._ending:
            try:
                network = self._waiting.popleft()
            except IndexError:
                break
            if self._ask(child, network):
                self.said.put(None)
            elif not self._ending:
                self.said.put(f"{network.a} x {network.b}: its worker ended with {child.wait()}")
                child = self._start()

    def _ask(self, child: subprocess.Popen[str], network: Network) -> bool:
        """Whether the worker came to the network's end."""
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(msgspec.json.encode(network).decode() + "\n")
            child.stdin.flush()
        except BrokenPipeError:
            return False
        for line in child.stdout:
            if line == "\n":
                return True
            self.said.put(msgspec.json.decode(line, type=Cell))
        return False


def merged(known: Iterable[Cell], fresh: Iterable[Cell]) -> list[Cell]:
    """The known cells, with what is fresh in their place."""
    return list({cell.key: cell for cell in (*known, *fresh)}.values())


def matrix(plan: Plan, *, path: Path, jobs: int, console: Console, resume: bool = False) -> list[Cell]:
    """Run the plan and write the file after every cell; what the file holds in the end.

    With `resume` the file's cells stay, and those are left out that were run as the plan wants them.
    """
    found = cells.read(path) if resume and path.exists() else []
    effort = plan.effort
    networks = plan.networks(cell for cell in found if (cell.runs, cell.endpoint) == (effort.runs, effort.endpoint))
    # hard pairs stand in a row; mixed, they make the time left true from the first minute on
    random.Random(0).shuffle(networks)
    cells.write(path, found)  # a place that can't be written is told before the hour, not after it
    with Board(console, cells.order(plan.kinds), networks) as board:
        for cell in run(networks, jobs=jobs):
            found = merged(found, [cell])
            cells.write(path, found)
            board.add(cell)
    return found
