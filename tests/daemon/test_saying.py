"""Whether what is said together leaves together, and whose segment was refused."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

from punchd.daemon.saying import Saying
from punchd.edge import native
from punchd.words import effects as do
from punchd.words.events import Signal

HELD: Any = SimpleNamespace(flow=object())


class Raw:
    """The places, the calls, and how the kernel answers: a number, or an error at that place."""

    def __init__(self, *refused: int) -> None:
        self.put: dict[int, int] = {}
        self.calls: list[list[int]] = []
        self.refused = refused

    def send_one(self, flow: object, *, seq: int, **rest: object) -> None:
        self.calls.append([seq])

    def put_bare(self, place: int, flow: object, *, seq: int, **rest: object) -> None:
        self.put[place] = seq

    def send_bare(self, place: int, count: int) -> int:
        if self.put[place] in self.refused:
            raise OSError(errno.EPERM, "a rule of this host's")
        taken = []
        for at in range(place, place + count):
            if self.put[at] in self.refused:
                break
            taken.append(self.put[at])
        self.calls.append(taken)
        return len(taken)


def made(raw: Raw) -> tuple[Saying, list[int]]:
    refused = list[int]()
    given: Any = raw
    return Saying(given, lambda run, effect, error: refused.append(effect.seq)), refused


def say(saying: Saying, *numbers: int) -> None:
    run: Any = SimpleNamespace(count=lambda ttl: None)
    for number in numbers:
        saying.say(run, HELD, do.Tell(0, Signal.FIRE, None, number, 0))


def test_what_is_said_alone_leaves_at_once() -> None:
    """A notification must not be out before the hole is open."""
    raw = Raw()
    say(made(raw)[0], 1, 2)
    assert [[1], [2]] == raw.calls


def test_what_is_said_together_leaves_in_one_call() -> None:
    """The peer is woken once."""
    raw = Raw()
    saying, _ = made(raw)
    with saying.gathered():
        say(saying, 1, 2, 3)
        assert [] == raw.calls
    assert [[1, 2, 3]] == raw.calls
    say(saying, 4)
    assert [[1, 2, 3], [4]] == raw.calls


def test_a_refused_segment_keeps_no_other_back() -> None:
    """A rule of this host's against one peer is no reason to be silent to all."""
    raw = Raw(2, 3)
    saying, refused = made(raw)
    with saying.gathered():
        say(saying, 1, 2, 3, 4)
    assert [[1], [4]] == raw.calls
    assert [2, 3] == refused


def test_more_than_there_is_room_for_leaves_in_between() -> None:
    """The room is C's, and made once."""
    raw = Raw()
    saying, _ = made(raw)
    with saying.gathered():
        say(saying, *range(native.BARE_MAX + 1))
    assert [native.BARE_MAX, 1] == [len(call) for call in raw.calls]


def test_what_is_said_because_of_a_refusal_is_a_new_call() -> None:
    """The places of the first call are free by then."""
    raw = Raw(1)
    given: Any = raw
    saying = Saying(given, lambda run, effect, error: say(saying, 9))
    with saying.gathered():
        say(saying, 1, 2)
    assert [[2], [9]] == raw.calls
