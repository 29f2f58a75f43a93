"""How many two-peer attempts a second the modelled lab runs on one core, by technique.
Opens no socket; the time is this machine's, the runs are virtual."""

from __future__ import annotations

import time
from functools import partial

from bench._frame import Figure, Progress, Report, interleaved
from punchd.lab.model import World

TECHNIQUES = ("tcp-simopen", "tcp-midstream", "udp", "auto")


def attempts_a_second(technique: str, runs: int) -> float:
    """Through two Linux NATs, without the applications' first words."""
    names = None if technique == "auto" else [technique]
    transport = "udp" if technique == "udp" else "tcp"
    begin = time.perf_counter()
    for seed in range(runs):
        result = World("linux", "linux", techniques=names, transport=transport, seed=seed, speaks="").run()
        assert result.a.ok
        assert result.b.ok
    return runs / (time.perf_counter() - begin)


def run(*, quick: bool, progress: Progress) -> Report:
    runs = 200 if quick else 2000
    rounds = interleaved(5, {name: partial(attempts_a_second, name, runs) for name in TECHNIQUES}, progress)
    return Report([Figure.of(name, rates, "1/s") for name, rates in rounds.items()], conditions={"runs": runs})
