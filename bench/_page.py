"""The README's section of measurements, made from what a full run recorded: some figures, and the four plots.
It rounds and picks, and says nothing of its own; a test holds the README to it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from bench._frame import number

ROOT = Path(__file__).parents[1]
RECORD, README = ROOT / "docs" / "bench.json", ROOT / "README.md"
BEGIN, END = "<!-- bench: begin -->\n", "<!-- bench: end -->\n"
PICKED = (
    ("throughput", r"(tcp-\w+|udp)( of uvloop)? at 100"),
    ("throughput", r".* success"),
    ("cpu", r"tcp-midstream: daemons and kernel"),
    ("floor", r"(floor|punchd): (daemons|of uvloop)|punchd in multiples of the floor"),
    ("latency", r"RTT (0|100), idle: (plain messages|tcp-midstream), (A|B|A early)( own share)?"),
    ("scale", r"tcp-midstream.* waiting(: daemon's memory|.* of .*, (begin one|punch))"),
    ("api", r"pings one at a time|descriptors handed over"),
    ("peers", r"(time|rate|CPU|packets), .* by (aioice|libnice|hyperdht|py-libp2p.*)"),
)
PLOTS = {
    "throughput": "connections a second against attempts in flight",
    "latency-idle": "time beyond the physical limit, by share of attempts",
    "scale": "cost of one attempt against attempts waiting",
    "success": "success through each pair of NATs, beside other programs",
}


def section(said: list[dict[str, Any]] | None) -> str:
    """What stands between the marks; None: there is no record."""
    if said is None:
        return "No full run is recorded yet; `./dev bench --record` makes one, on a machine that does nothing else.\n"
    machine, commit = said[0]["machine"], said[0]["versions"]["commit"]
    minutes = sum(one["seconds"] for one in said) / 60
    lines = [
        f"`./dev bench --record` at {commit}, {minutes:.0f} minutes on {machine['cores']} cores of {machine['cpu']}, "
        f"Linux {machine['kernel']}, load {machine['load']} when it began; medians, all in "
        "[docs/bench.json](docs/bench.json):", "", "| | | measured | target |", "|---|---|---:|---:|",
    ]  # fmt: skip
    figures = {one["bench"]: one["figures"] for one in said}
    for bench, pattern in PICKED:
        picked = [one for one in figures.get(bench, ()) if re.fullmatch(pattern, one["figure"])]
        lines += [_row(bench, figure) for figure in picked]
    drawn = {Path(path).stem: path for one in said for path in one["plots"]}
    for name, words in PLOTS.items():
        if name in drawn:
            lines += ["", f"![{words}]({drawn[name]})"]
    return "\n".join(lines) + "\n"


def rewrite(said: list[dict[str, Any]]) -> None:
    """Record a full run, and put its section into the README."""
    RECORD.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    README.write_text(before + BEGIN + section(said) + END + rest.partition(END)[2], encoding="utf-8")


def _row(bench: str, figure: dict[str, Any]) -> str:
    value = "not measured" if figure["value"] is None else f"{number(figure['value'])} {figure['unit']}".strip()
    missed = "" if figure["met"] is not False else ", missed"
    return f"| {bench} | {figure['figure']} | {value} | {figure['target'] or ''}{missed} |"
