"""The frame of a measurement: figures with targets, interleaved rounds, the table, the plots, the JSON line.
Measures nothing itself and knows no question; those lie beside it, one file each.

A bench is a module `bench/NAME.py`. Its docstring's first line is its question. It has one function,

    def run(*, quick: bool, progress: Progress) -> Report

which prints nothing, tells `progress("5 of 20: midstream 1371/s")` what goes on, and returns figures:

    rounds = interleaved(5, {"punchd": punches_a_second, "plain": connects_a_second}, progress)
    return Report([
        Figure.of("tcp-midstream", rounds["punchd"], "1/s"),
        Figure.of("of plain", ratios(rounds["punchd"], rounds["plain"]), "x", at_least(0.5)),
    ])

A figure that could not be measured is `Figure.absent(name, unit, target, reason)`: it has no value, and a target
that was not measured is not met. What a full run is to draw goes into Report.plots; `--quick` draws nothing.
"""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

Progress = Callable[[str], None]

PLOTS = Path(__file__).parents[1] / "docs" / "plots"


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure has to reach."""

    sign: Literal[">=", "<="]
    limit: float

    def met_by(self, value: float) -> bool:
        return value >= self.limit if self.sign == ">=" else value <= self.limit

    def __str__(self) -> str:
        return f"{self.sign} {number(self.limit)}"


def at_least(limit: float) -> Target:
    return Target(">=", limit)


def at_most(limit: float) -> Target:
    return Target("<=", limit)


@dataclass(frozen=True, slots=True)
class Figure:
    """One number: the median of what was measured, and between which values that lay."""

    name: str
    value: float | None
    unit: str
    spread: tuple[float, float] | None = None
    target: Target | None = None
    note: str = ""

    @classmethod
    def of(
        cls, name: str, values: Sequence[float], unit: str, target: Target | None = None, *, note: str = ""
    ) -> Figure:
        """The median of several measurements."""
        return cls(name, statistics.median(values), unit, (min(values), max(values)), target, note)

    @classmethod
    def absent(cls, name: str, unit: str, target: Target | None, reason: str) -> Figure:
        """What could not be measured here, and why."""
        return cls(name, None, unit, None, target, f"not measured: {reason}")

    @property
    def met(self) -> bool | None:
        """None where there is no target."""
        if self.target is None:
            return None
        return self.value is not None and self.target.met_by(self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One picture: lines of points, by label."""

    name: str
    title: str
    x: str
    y: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    log_x: bool = False
    log_y: bool = False
    limits: Mapping[str, float] = field(default_factory=dict)
    """Horizontal lines, by label: what physics or a target says."""
    upright: Mapping[str, float] = field(default_factory=dict)
    """The same, vertical."""
    bars: Sequence[str] = ()
    """Bars in groups with these names instead of lines; x is the number of the group."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a bench found."""

    figures: Sequence[Figure]
    plots: Sequence[Plot] = ()
    conditions: Mapping[str, Any] = field(default_factory=dict)
    """What was set: counts, concurrency, delays; it goes into the JSON line."""
    installing_s: float = 0.0
    """What was spent on what a machine needs once, such as fetching other programs; the bench's seconds are without."""


def interleaved(rounds: int, measures: Mapping[str, Callable[[], float]], progress: Progress) -> dict[str, list[float]]:
    """Each measure once a round, every other round backwards: a machine that slows down does not favour one."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    for turn in range(rounds):
        names = list(measures) if turn % 2 == 0 else list(measures)[::-1]
        for name in names:
            value = measures[name]()
            found[name].append(value)
            progress(f"round {turn + 1} of {rounds}: {name} {number(value)}")
    return found


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours by theirs, round by round."""
    return [one / other for one, other in zip(ours, theirs, strict=True)]


def share(values: Sequence[float], part: float) -> float:
    """The value below which this part of them lies: 0.5 the median, 0.99 the p99."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def number(value: float) -> str:
    """Three digits that matter, without an exponent."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def perform(name: str, run: Callable[..., Report], *, quick: bool) -> dict[str, Any]:
    """Run one bench: progress on stderr, then the table, then the JSON line on stdout, which is also returned."""
    question = (sys.modules[run.__module__].__doc__ or "").split("\n", 1)[0]
    begun, used_s, place = time.monotonic(), _used_s(), machine()
    print(f"{name}: {question}", flush=True)

    def progress(text: str) -> None:
        print(f"  {time.monotonic() - begun:6.1f} s  {text}", file=sys.stderr, flush=True)

    report = run(quick=quick, progress=progress)
    _table(report.figures)
    drawn = [] if quick else _draw(name, report.plots)
    said = {
        "bench": name,
        "question": question,
        "quick": quick,
        "figures": [_spelt(figure) for figure in report.figures],
        "met": all(figure.met is not False for figure in report.figures),
        "seconds": round(time.monotonic() - begun - report.installing_s, 1),
        "cpu_s": round(_used_s() - used_s, 1),
        "installing_s": round(report.installing_s, 1),
        "conditions": dict(report.conditions),
        "plots": drawn,
        "machine": place,
        "versions": versions(),
    }
    print(json.dumps(said), flush=True)
    return said


def summary(said: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each bench took, and all of them; installing is named apart."""
    rows = [(one["bench"], one["seconds"], one["cpu_s"], one["installing_s"]) for one in said]
    rows.append(("all", *(sum(row[column] for row in rows) for column in (1, 2, 3))))
    return [
        f"{name:<12} {seconds:6.1f} s, {cpu_s:6.1f} s of processor" + (f"; installing {more:.1f} s" if more else "")
        for name, seconds, cpu_s, more in rows
    ]


def _used_s() -> float:
    """Processor time of this process and of all it has waited for; what it installed is among them."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def machine() -> dict[str, Any]:
    """What it runs on; the load before it begins says how much company it has."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(encoding="ascii"))
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "memory_mib": int(memory[1]) // 1024 if memory else None,
        "kernel": os.uname().release,
        "load": round(os.getloadavg()[0], 1),
    }


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("punchd", "uvloop", "msgspec", "cffi", "NetfilterQueue"):
        found[package] = metadata.version(package)
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=PLOTS.parents[1], capture_output=True, text=True, check=False
    )
    return found | {"commit": told.stdout.strip()}


def _spelt(figure: Figure) -> dict[str, Any]:
    return {
        "figure": figure.name,
        "value": figure.value,
        "unit": figure.unit,
        "spread": figure.spread,
        "target": None if figure.target is None else str(figure.target),
        "met": figure.met,
        "note": figure.note,
    }


def _table(figures: Sequence[Figure]) -> None:
    rows = [("figure", "median", "unit", "least", "greatest", "target", "met", ""), *map(_row, figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(8)]
    for row in rows:
        cells = [
            cell.ljust(width) if column in (0, 2, 5, 6, 7) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip(), flush=True)


def _row(figure: Figure) -> tuple[str, ...]:
    return (
        figure.name,
        "-" if figure.value is None else number(figure.value),
        figure.unit,
        *(("", "") if figure.spread is None else map(number, figure.spread)),
        "" if figure.target is None else str(figure.target),
        {True: "yes", False: "NO", None: ""}[figure.met],
        figure.note,
    )


def _draw(bench: str, plots: Sequence[Plot]) -> list[str]:
    if not plots:
        return []
    pyplot = pictures()
    if pyplot is None:
        print(f"{bench}: no plots without matplotlib: pip install 'punchd[lab]'", file=sys.stderr)
        return []
    PLOTS.mkdir(parents=True, exist_ok=True)
    drawn = []
    for plot in plots:
        figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
        for place, (label, points) in enumerate(plot.lines.items()):
            if plot.bars:
                width = 0.8 / len(plot.lines)
                axes.bar([x + width * place for x, _ in points], [y for _, y in points], width, label=label)
                axes.set_xticks([number + 0.4 - width / 2 for number in range(len(plot.bars))], plot.bars, fontsize=7)
            else:
                axes.plot(*zip(*points, strict=True), label=label, marker="o" if len(points) < 30 else None)
        for label, level in plot.limits.items():
            axes.axhline(level, linestyle=":", color="grey")
            axes.annotate(label, (1, level), xycoords=("axes fraction", "data"), ha="right", va="bottom")
        for label, level in plot.upright.items():
            axes.axvline(level, linestyle=":", color="grey")
            axes.annotate(label, (level, 1), xycoords=("data", "axes fraction"), rotation=90, ha="right", va="top")
        axes.set(title=plot.title, xlabel=plot.x, ylabel=plot.y)
        axes.set_xscale("log" if plot.log_x else "linear")
        axes.set_yscale("log" if plot.log_y else "linear")
        if not plot.log_y:
            axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend()
        path = PLOTS / f"{plot.name}.svg"
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)
        drawn.append(str(path.relative_to(PLOTS.parents[1])))
    return drawn


def pictures() -> Any:
    """matplotlib.pyplot set up for files, or None."""
    try:
        import matplotlib
    except ImportError:
        return None
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "punchd"  # the same numbers give the same file
    from matplotlib import pyplot

    return pyplot
