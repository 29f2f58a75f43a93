"""Starts delay lines: delayline.c between two interfaces, compiled on first use into build/.

It refuses to exist where nothing is to be delayed or lost: an Impairment of nothing is false.
"""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
from dataclasses import astuple, dataclass
from pathlib import Path

from .namespace import Namespace

_SOURCE = Path(__file__).with_name("delayline.c")
_BUILD = Path(__file__).parents[2] / "build" / "lab"


@dataclass(frozen=True, slots=True, kw_only=True)
class Impairment:
    """What a path does to packets, one way. Chances are from 0 to 1."""

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss: float = 0.0
    reorder: float = 0.0
    duplicate: float = 0.0

    def __bool__(self) -> bool:
        return any(astuple(self))

    def half(self) -> Impairment:
        """What each of two lines in a row does, so that both together do this."""
        return Impairment(
            delay_ms=self.delay_ms / 2,
            jitter_ms=self.jitter_ms / 2,
            loss=_share(self.loss),
            reorder=_share(self.reorder),
            duplicate=_share(self.duplicate),
        )


def _share(chance: float) -> float:
    return 1 - math.sqrt(1 - chance)


def start_line(place: Namespace, left: str, right: str, what: Impairment, *, seed: int) -> None:
    """Forward frames between two interfaces of a namespace until that namespace's children are stopped."""
    line = place.popen(
        [
            str(_binary()),
            left,
            right,
            str(round(what.delay_ms * 1e6)),
            str(round(what.jitter_ms * 1e6)),
            repr(what.loss),
            repr(what.reorder),
            repr(what.duplicate),
            str(seed),
        ],
        stdout=subprocess.PIPE,
    )
    assert line.stdout is not None
    if line.stdout.readline() != b"ready\n":
        raise RuntimeError(f"the delay line between {left} and {right} did not start")


def _binary() -> Path:
    """The compiled line, keyed by what it was compiled from, so that two runs never disturb each other."""
    source = _SOURCE.read_bytes()
    binary = _BUILD / f"delayline-{hashlib.sha256(source).hexdigest()[:12]}"
    if not binary.exists():
        _BUILD.mkdir(parents=True, exist_ok=True)
        fresh = binary.with_suffix(f".{os.getpid()}")
        flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror"]
        subprocess.run(["gcc", *flags, "-o", str(fresh), str(_SOURCE)], check=True)
        fresh.replace(binary)
    return binary
