"""Draws the matrix: cells to SVG and PNG, a panel for each transport and each set of conditions.

It refuses to run or to judge; and it draws auto alone, since the other techniques are means to it, and no conditions
twice, with the hosts' own conntrack and without. The background stays transparent and the words grey, so that a page
may be light or dark.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace

import msgspec
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .cells import TRANSPORTS, Cell, kinds

FORMATS = ("svg", "png")

_INK = "#848d97"  # readable on white and on #0d1117
_WHOLE, _MOST, _SOME, _NONE = "#1f7f83", "#8fae4c", "#d98a2b", "#96353f"
_FONTS = ["DejaVu Sans", "Verdana", "Arial"]  # the first comes with matplotlib, the others are for who looks at an SVG
_CELL_IN = 0.30
_DPI = 110


def draw(cells: Sequence[Cell], kind: str) -> bytes:
    """The picture as `svg` or `png`; in its description is `digest`, which tells whether it is out of date."""
    shown = _shown(cells)
    if not shown:
        raise ValueError("there is no cell of auto to draw")
    conditions = sorted({cell.conditions for cell in shown})
    names = kinds(shown)
    side_in = _CELL_IN * len(names)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "punchd", "font.sans-serif": _FONTS, "text.color": _INK}):
        figure = Figure(figsize=(2 * side_in + 4.2, len(conditions) * (side_in + 1.9) + 0.6), layout="constrained")
        panels = figure.subplots(len(conditions), len(TRANSPORTS), squeeze=False)
        for row, condition in zip(panels, conditions, strict=True):
            for panel, transport in zip(row, TRANSPORTS, strict=True):
                found = [cell for cell in shown if (cell.transport, cell.conditions) == (transport, condition)]
                _panel(panel, found, names, f"{transport.upper()}, {condition.say()}")
        _legend(figure, shown)
        picture = io.BytesIO()
        # no date and no version: the same cells give the same file
        known = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        about = {"Title": "punchd's matrix", "Description": digest(cells)} | known
        figure.savefig(picture, format=kind, dpi=_DPI, transparent=True, bbox_inches="tight", metadata=about)
    return picture.getvalue()


def digest(cells: Sequence[Cell]) -> str:
    """Of what is drawn: its cells with their counts."""
    told = sorted((cell.conditions, cell.transport, cell.a, cell.b, cell.ok, cell.runs) for cell in _shown(cells))
    return f"{len(told)} cells, sha256 {hashlib.sha256(msgspec.json.encode(told)).hexdigest()}"


def _shown(cells: Sequence[Cell]) -> list[Cell]:
    auto = [cell for cell in cells if cell.technique == "auto"]
    known = {cell.conditions for cell in auto}
    twins = {one for one in known if one.hosts_conntrack and replace(one, hosts_conntrack=False) in known}
    return sorted((cell for cell in auto if cell.conditions not in twins), key=lambda cell: cell.key)


def _panel(panel: Axes, cells: Sequence[Cell], names: Sequence[str], title: str) -> None:
    places = {kind: number for number, kind in enumerate(names)}
    for cell in cells:
        x, y = places[cell.b], places[cell.a]
        panel.add_patch(_square(x, y, _colour(cell), hatch="////" if cell.excepted else None))
        panel.text(
            x, y, str(cell.ok), ha="center", va="center_baseline", color="white", fontsize=8,
            fontweight="normal" if cell.ok == cell.runs else "bold",
        )  # fmt: skip
    panel.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5), aspect="equal")
    panel.set_title(title, color=_INK, fontsize=11, fontweight="bold", loc="left")
    panel.set_ylabel("A, who calls", color=_INK, fontsize=9)
    panel.set_xlabel("B, who is called", color=_INK, fontsize=9)
    panel.xaxis.set_label_position("top")
    panel.set_yticks(range(len(names)), names, fontsize=8)
    panel.set_xticks(range(len(names)), names, fontsize=8, rotation=60, ha="left", rotation_mode="anchor")
    panel.tick_params(length=0, colors=_INK, top=True, labeltop=True, bottom=False, labelbottom=False)
    panel.spines[:].set_visible(False)


def _square(x: float, y: float, colour: str, *, hatch: str | None) -> Rectangle:
    return Rectangle(
        (x - 0.47, y - 0.47), 0.94, 0.94, facecolor=colour, edgecolor="#ffffff60", linewidth=0, hatch=hatch
    )


def _colour(cell: Cell) -> str:
    if cell.ok == cell.runs:
        return _WHOLE
    if not cell.ok:
        return _NONE
    return _MOST if cell.ok >= 0.9 * cell.runs else _SOME


def _legend(figure: Figure, cells: Sequence[Cell]) -> None:
    counts = sorted({cell.runs for cell in cells})
    of = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    entries = [
        (_square(0, 0, colour, hatch=hatch), text)
        for colour, hatch, text in (
            (_WHOLE, None, f"all of {of} runs connected"),
            (_MOST, None, "nine in ten"),
            (_SOME, None, "fewer"),
            (_NONE, None, "none"),
            (_INK, "////", "both sides must guess"),
        )
    ]
    figure.legend(
        [square for square, _ in entries], [text for _, text in entries],
        loc="outside lower center", ncols=len(entries), frameon=False, labelcolor=_INK, fontsize=9,
    )  # fmt: skip
