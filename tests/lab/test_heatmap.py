"""The picture of the matrix has each number in its place, and is the same for the same cells.

It refuses to judge beauty.
"""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from cells_by_hand import cell

from punchd.lab.heatmap import digest, draw

pytestmark = pytest.mark.slow  # matplotlib takes its time

CELLS = [
    cell("linux", "cone", ok=13),
    cell("linux", "linux"),
    cell("cone", "linux", ok=0),
    cell("random", "random", ok=1),
    cell("linux", "linux", transport="udp", ok=19),
    cell("linux", "linux", technique="tcp-syni", ok=7),
]
SVG = "{http://www.w3.org/2000/svg}"


def test_svg_says_each_count_and_kind_as_text() -> None:
    """Numbers that can be searched, and read aloud."""
    words = [text.text for text in ElementTree.fromstring(draw(CELLS, "svg")).iter(f"{SVG}text")]
    assert ["0", "1", "13", "19", "20"] == sorted(word for word in words if word and word.isdigit())
    assert 4 == words.count("linux")
    assert {"TCP, 0 ms one way", "UDP, 0 ms one way", "all of 20 runs connected"} <= set(words)


def test_picture_leaves_the_page_its_background() -> None:
    """A README is read on white and on black."""
    drawn = ElementTree.fromstring(draw(CELLS, "svg"))
    width = float(drawn.attrib["viewBox"].split()[2])
    wide = [path for path in drawn.iter(f"{SVG}path") if _span(path) > width / 2 and _is_filled(path)]
    assert [] == wide
    png = draw(CELLS, "png")
    assert b"\x89PNG" == png[:4]
    assert 6 == png[25], "RGBA"


def test_same_cells_give_the_same_picture_and_others_another_digest() -> None:
    """A file in the repository must not change because it was drawn again."""
    assert draw(CELLS, "svg") == draw(CELLS[::-1], "svg")
    assert digest(CELLS).encode() in draw(CELLS, "svg")
    assert digest(CELLS).encode() in draw(CELLS, "png")
    assert digest(CELLS) != digest([*CELLS[:-2], cell("linux", "linux", transport="udp", ok=20)])


def test_each_condition_has_a_row_of_panels() -> None:
    """Delay and loss beside none, in one picture."""
    both = draw([*CELLS, cell(delay_ms=100.0, loss=0.02)], "svg").decode()
    assert ">UDP, 100 ms one way, 2 % lost<" in both
    assert 4 == len(re.findall(">A, who calls<", both))


def test_hosts_with_conntrack_have_a_row_where_nothing_else_is_drawn() -> None:
    """They change hardly a cell: the same panels twice would hide that."""
    held = [replace(one, hosts_conntrack=True, ok=1) for one in CELLS]
    assert draw(CELLS, "svg") == draw([*CELLS, *held], "svg")
    assert ">UDP, 0 ms one way, hosts drop INVALID<" in draw(held, "svg").decode()


def test_without_auto_there_is_nothing_to_draw() -> None:
    """Said, rather than an empty picture."""
    with pytest.raises(ValueError, match="no cell of auto"):
        draw(CELLS[-1:], "svg")


def _span(path: ElementTree.Element) -> float:
    xs = [float(x) for x in re.findall(r"[ML] (-?[\d.]+) ", path.attrib["d"])]
    return max(xs, default=0) - min(xs, default=0)


def _is_filled(path: ElementTree.Element) -> bool:
    style = path.attrib.get("style", "")
    return "fill: none" not in style and "opacity: 0" not in style
