"""What does an attempt cost while many others wait for a peer that never answers?
Says nothing of punches a second in general; bench/throughput.py does."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench._duo import Duo, Meter
from bench._frame import Figure, Plot, Progress, Report, Target, at_most, number

LEVELS = {"tcp-midstream": (100, 1_000, 10_000, 50_000), "tcp-simopen": (100, 1_000, 10_000)}
SPARE_FDS = 500
KIB = 1024


@dataclass(frozen=True, slots=True)
class Level:
    """The daemon with so many attempts waiting."""

    waiting: int
    begin_ms: float
    """Processor time of the initiator's daemon to begin one."""
    punch_ms: float
    """Processor time of both daemons for one complete punch beside those that wait."""
    memory: int
    sockets: int
    kernel: int
    idle: float
    """Share of a core that the initiator's daemon uses while nothing happens."""


def run(*, quick: bool, progress: Progress) -> Report:
    figures: list[Figure] = []
    begin: dict[str, list[tuple[float, float]]] = {}
    punch: dict[str, list[tuple[float, float]]] = {}
    for technique, levels in LEVELS.items():
        room = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - SPARE_FDS
        holds_socket = technique != "tcp-midstream"
        reachable = [level for level in levels if not holds_socket or level <= room]
        if quick:
            reachable = [level for level in reachable if level <= (1_000 if holds_socket else 10_000)]
        elif holds_socket:
            reachable.append(room)
        found = _climb(technique, reachable, progress, punches=200 if quick else 600)
        empty, first, last = found[0], found[1], found[-1]
        for level in found[1:]:
            name = f"{technique}, {level.waiting} waiting"
            each = f"punch {number(level.punch_ms)} ms, idle {level.idle:.1%} of a core"
            figures.append(Figure(f"{name}: begin one", level.begin_ms, "ms", note=each))
            memory = (level.memory - empty.memory) / level.waiting / KIB
            figures.append(
                Figure(f"{name}: daemon's memory", memory, "KiB", None, _limit(level, last, 12.0, technique))
            )
            sockets = (level.sockets - empty.sockets) / level.waiting
            figures.append(Figure(f"{name}: sockets", sockets, "each", None, _limit(level, last, 0.0, technique)))
            figures.append(
                Figure(f"{name}: kernel's memory", (level.kernel - empty.kernel) / level.waiting / KIB, "KiB")
            )
            begin.setdefault(technique, []).append((level.waiting, level.begin_ms))
            punch.setdefault(technique, []).append((level.waiting, level.punch_ms))
        limit = at_most(1.2) if technique == "tcp-midstream" else None
        growth = f"{technique}: {last.waiting} waiting of {first.waiting} waiting"
        figures.append(Figure(f"{growth}, begin one", last.begin_ms / first.begin_ms, "x", None, limit))
        figures.append(Figure(f"{growth}, punch", last.punch_ms / first.punch_ms, "x", None, limit))
    lines = {f"{name}: begin one": points for name, points in begin.items()}
    lines |= {f"{name}: a punch beside them, both ends": points for name, points in punch.items()}
    plots = [
        Plot(name="scale", title="Cost of one, while others wait", x="attempts waiting", y="ms of processor",
             lines=lines, log_x=True)
    ]  # fmt: skip
    return Report(figures, plots, {"descriptors": resource.getrlimit(resource.RLIMIT_NOFILE)[1]})


def _limit(level: Level, last: Level, limit: float, technique: str) -> Target | None:
    return at_most(limit) if level is last and technique == "tcp-midstream" else None


def _climb(technique: str, levels: list[int], progress: Progress, *, punches: int) -> list[Level]:
    """An empty daemon, then each level on top of the one before."""
    with Duo("linux", "linux", options=["--attempts-per-uid", "100000"]) as duo:
        duo.punch(technique, punches, concurrency=20)  # what grows once has grown
        daemon = duo.pair.daemons[0].pid
        lab = duo.lab
        path = str(duo.pair.socket_path("a"))
        holder = lab.a.popen(
            [sys.executable, "-m", "bench._holder", path, lab.public_b, lab.public_a, technique],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdout.readline()
        found: list[Level] = []
        for level in (0, *levels):
            more = level - (found[-1].waiting if found else 0)
            meter = Meter({"daemon": [daemon]})
            if more:
                holder.stdin.write(f"{more}\n")
                holder.stdin.flush()
                said = holder.stdout.readline().strip()
                if said != "ok":
                    raise RuntimeError(f"{technique}: {level} attempts do not wait: {said}")
            begin_ms = meter.spent()["daemon"] / max(1, more) * 1000
            memory, kernel, sockets = _resident(daemon), _slab(), _sockets(daemon)
            meter = Meter({"daemon": [daemon]})
            time.sleep(1)
            idle = meter.spent()["daemon"]
            outcome = duo.punch(technique, punches, concurrency=20)
            punch_ms = outcome.cpu_s["daemons"] / outcome.ok * 1000
            found.append(Level(level, begin_ms, punch_ms, memory, sockets, kernel, idle))
            progress(f"{technique}: {level} waiting, {number(begin_ms)} ms to begin one, {number(punch_ms)} ms a punch")
        return found


def _resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))) * KIB


def _sockets(pid: int) -> int:
    folder = f"/proc/{pid}/fd"
    return sum(os.readlink(f"{folder}/{name}").startswith("socket:") for name in os.listdir(folder))


def _slab() -> int:
    """The whole machine's: others who work here at the same time are counted with it."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("SUnreclaim:"))) * KIB
