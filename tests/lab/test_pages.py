"""What can be typed for a kind, and what it stands for.

It refuses to load rules; test_kinds.py and test_kinds_axes.py do.
"""

from __future__ import annotations

import re

import pytest

from punchd.lab.pages import BARE, KINDS, boxes, check, check_pair, ports


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        ("tomato", "no kind 'tomato'"),
        ("linux/firewall", "stand alone"),
        ("linux/cgn/linux", "4 layers"),
        ("sequential:pace=1", "no parameter 'pace'; it has: step, foreign"),
        ("linux:step=1", "no parameter 'step'; it has: hairpin"),
        ("open:step=1", "no parameter 'step'; it has: none"),
        ("linux:hairpin=2", "no sense"),
        ("same:open", "can't be shared"),
        ("same:untracked", "can't be shared"),
        ("same:cgn", "can't be shared"),
        ("same:linux/linux", "no kind 'same'"),
        ("sequential:step=0", "no sense"),
        ("sequential:foreign=-1", "no sense"),
        ("sequential:step=two", "a whole number, not 'two'"),
    ],
)
def test_a_kind_that_cannot_be_is_refused_by_name(kind: str, complaint: str) -> None:
    """The lab's user types these; what is wrong, and what there is, must be in the answer."""
    with pytest.raises(ValueError, match=re.escape(complaint)):
        check(kind)


@pytest.mark.parametrize(
    ("a", "b"), [("same:linux", "linux"), ("same:linux", "same:linux-reject"), ("same:linux", "same:linux:hairpin=1")]
)
def test_a_shared_box_is_named_by_both_sides(a: str, b: str) -> None:
    """One of two would be a lab that nobody asked for."""
    with pytest.raises(ValueError, match="in the same words"):
        check_pair(a, b)
    check_pair(a, a)
    check_pair("linux/same:random", "same:random")


def test_every_kind_stands_alone_and_the_cgn_is_two() -> None:
    """The list that `lab kinds` prints is the list that can be built."""
    assert {kind: 2 if kind == "cgn" else 1 for kind in KINDS} == {kind: len(boxes(kind)) for kind in KINDS}
    assert set(KINDS) >= BARE


@pytest.mark.parametrize("step", [1, -1, 2, 3, 256, -256, 20000])
def test_each_port_of_a_round_comes_once_whatever_the_step(step: int) -> None:
    """A step that hit the same ports again would let mappings collide, which no such NAT does."""
    pairs = [tuple(map(int, pair)) for pair in re.findall(r"(\d+) : (\d+)", ports(step))]
    assert list(range(16384)) == [n for n, _ in pairs]
    assert set(range(32768, 49152)) == {port for _, port in pairs}
    if abs(step) < 8192:
        assert step == pairs[1][1] - pairs[0][1]
