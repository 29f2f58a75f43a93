"""What this host knows of the counter of its own NAT: the ports that its probes saw, and all that it has opened since.
Asks nobody and knows no clock: times come with what is told.

A peer can but guess how far our NAT will have counted when it is our turn to send; we know what we have sent ourselves
to the last mapping, and have fresher samples. So the peer names a port that is surely ahead, and we open as many
mappings as it takes to come past it (core/fan.py): the guess becomes an appointment.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from itertools import pairwise
from math import inf
from typing import NamedTuple

from punchd.core import predict
from punchd.words.nat import Sample

SPAN_S = 5.0
"""How far back samples tell how fast others take ports."""

SAMPLES_KEPT = 256
RUN_MAX = 48
"""As many of them."""
MAPPINGS_KEPT = 256
AHEAD_MAX = 1024
"""Turns within which a port is looked for where the counter leaves ports out."""
BEYOND = 24
"""Turns by which a port of our own choice is further than the counter may be."""

_NEAR = 4096  # turns; what passes within the span
_TOGETHER_S = 0.0015  # two samples' times may be told to the millisecond
_MISPLACED = 0.25  # the part of the other transport's mappings for which a wrong place is no wrong counter
_UNSURE = 2  # mappings that left at about the time of the last sample


class Mark(NamedTuple):
    """When a mapping was made: at that time, and as so-manieth of ours.

    dying   so many had left before whose packets may not have come as far as our NAT
    beside  so many of the other transport, which may have the same counter
    """

    ours: int
    dying: int
    beside: int
    at: float


class Seen(NamedTuple):
    """A sample: the port of the mapping that was made then."""

    mark: Mark
    port: int


class Tally:
    """Of one transport, from one local address. Times are the caller's, in seconds."""

    __slots__ = ("_log", "_seen")

    def __init__(self) -> None:
        self._log: deque[Mark] = deque([Mark(0, 0, 0, -inf)], maxlen=MAPPINGS_KEPT)
        self._seen: list[Seen] = []

    def opened(self, mappings: int, now: float, *, dying: int = 0, beside: int = 0) -> Mark:
        """So many new mappings have been made, and perhaps others. The mark is the last one's."""
        last = self._log[-1]
        self._log.append(Mark(last.ours + mappings, last.dying + dying, last.beside + beside, now))
        return self._log[-1]

    def saw(self, port: int, made: Mark) -> None:
        """The mapping of this mark got this public port."""
        one = Seen(made, port)
        if one not in self._seen[-SAMPLES_KEPT:]:
            insort(self._seen, one)
            del self._seen[:-SAMPLES_KEPT]

    def at(self, when: float) -> Mark:
        """The mark of what was made then, as the clock has it."""
        mark = next((mark for mark in reversed(self._log) if mark.at <= when + _TOGETHER_S), self._log[0])
        return mark._replace(at=when)

    def since(self, mark: Mark) -> tuple[int, int]:
        """How many mappings of ours came after it, and how many perhaps did."""
        last = self._log[-1]
        return last.ours - mark.ours, last.dying - mark.dying + last.beside - mark.beside

    def since_seen(self, step: int) -> tuple[int, int]:
        """The same since the last sample of the line."""
        return self.since(self._run(step)[-1].mark) if self._seen else (0, 0)

    def line(self, step: int) -> list[tuple[float, int]]:
        """The last sample and one before it, as if ours in between had come before both; one alone, or none."""
        if not self._seen:
            return []
        run = self._run(step)
        first, last = run[0], run[-1]
        if len(run) < 2:
            return [(last.mark.at, last.port)]
        foreign = max(0, (last.port - first.port) // step - self._ours(run, step))
        return [(first.mark.at, last.port - step * (foreign + 1)), (last.mark.at, last.port)]

    def _ours(self, run: list[Seen], step: int) -> int:
        """How many of ours came after the first sample, up to the last one.

        Those that may have died have not, and those of the other transport are of one counter, if the samples leave
        them room, or nearly.
        """
        rooms = [(later.port - earlier.port) // step - (later.mark.ours - earlier.mark.ours)
                 for earlier, later in pairwise(run)]  # fmt: skip
        total = run[-1].mark.ours - run[0].mark.ours
        for which in ("dying", "beside"):
            guests = [getattr(later.mark, which) - getattr(earlier.mark, which) for earlier, later in pairwise(run)]
            homeless = sum(max(0, many - max(0, room)) for many, room in zip(guests, rooms, strict=True))
            if homeless <= sum(guests) * _MISPLACED:
                total += sum(guests)
                rooms = [room - many for many, room in zip(guests, rooms, strict=True)]
        return total

    def _run(self, step: int) -> list[Seen]:
        """The latest samples, in the order in which they were made: of those of one moment the one that came last."""
        sign, run = (1 if step > 0 else -1), [self._seen[-1]]
        for one in self._seen[-2 : -RUN_MAX - 2 : -1]:
            age_s, behind = run[0].mark.at - one.mark.at, (run[0].port - one.port) * sign
            if run[-1].mark.at - one.mark.at > SPAN_S:
                break
            if age_s <= _TOGETHER_S and -_NEAR * abs(step) < behind < 0:
                run[0] = one._replace(mark=run[0].mark)
            elif age_s > _TOGETHER_S and 0 < behind < _NEAR * abs(step):
                run.insert(0, one)
        return run

    def samples(self, step: int, epoch_s: float) -> tuple[Sample, ...]:
        """The same for a course. `epoch_s` is what to add to get seconds since 1970."""
        return tuple(Sample(round((at + epoch_s) * 1000), 0, port) for at, port in self.line(step))

    def ahead(self, port: int, step: int, now: float) -> tuple[int, int] | None:
        """Before the mapping that gets this port, so many others come at least and at most. Below 0: gone, or far.

        None: nothing is known.
        """
        course = self._course(step)
        if course is None:
            return None
        turn = predict.turn_of(course, port, AHEAD_MAX)
        if turn is None:
            return -AHEAD_MAX, -AHEAD_MAX
        first, last = self._turns(course, now)
        return turn - last - _UNSURE, turn - first + _UNSURE

    def beyond(self, step: int, now: float) -> int:
        """A port that the NAT has surely not come to, but soon will. 0: nothing is known."""
        course = self._course(step)
        return 0 if course is None else course.port_of(self._turns(course, now)[1] + BEYOND)

    def _course(self, step: int) -> predict.Course | None:
        line = self.line(step)
        if not line:
            return None
        at, last = line[-1]
        foreign = (last - line[0][1]) // step - 1 if len(line) > 1 else 0
        low, high = predict.range_of([seen.port for seen in self._seen], step)
        return predict.Course(at * 1000, last, step, foreign, at - line[0][0], low, high)

    def _turns(self, course: predict.Course, now: float) -> tuple[int, int]:
        """Between which the next mapping's is."""
        ours, unsure = self.since_seen(course.step)
        where = predict.window(course, at_ms=now * 1000, own=ours)
        return where.first + where.fewest, where.first + where.count - 1 + unsure
