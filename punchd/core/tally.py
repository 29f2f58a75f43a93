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

from punchd.core import predict
from punchd.words.nat import Sample

SPAN_S = 5.0
"""How far back samples tell how fast others take ports."""

SAMPLES_KEPT = 256
RUN_MAX = 48
"""As many of them."""
MAPPINGS_KEPT = 1024
AHEAD_MAX = 1024
"""Turns within which a port is looked for where the counter leaves ports out."""

_NEAR = 4096  # turns; what passes within the span
_TOGETHER_S = 0.0015  # two samples' times are told to the millisecond
_MISPLACED = 0.25  # the part of the other transport's mappings for which a wrong place is no wrong counter
_SURE_SD = 3.0  # beyond these, in standard deviations, foreign mappings are not fewer
_UNSURE = 2  # mappings that left at about the time of the last sample


class Tally:
    """Of one transport, from one local address. Times are the caller's, in seconds."""

    __slots__ = ("_beside", "_opened", "_others", "_seen")

    def __init__(self) -> None:
        self._opened: deque[tuple[float, int]] = deque(maxlen=MAPPINGS_KEPT)
        self._others: deque[tuple[float, int]] = deque(maxlen=MAPPINGS_KEPT)
        self._seen: list[tuple[float, int]] = []
        self._beside: deque[tuple[float, int]] = deque(maxlen=SAMPLES_KEPT)

    def opened(self, mappings: int, now: float) -> None:
        """So many new mappings have been made."""
        self._opened.append((now, mappings))

    def opened_beside(self, mappings: int, now: float) -> None:
        """So many, perhaps: of the other transport, which may have the same counter."""
        self._others.append((now, mappings))

    def saw(self, port: int, at: float) -> None:
        """The mapping that was made then got this public port."""
        if (at, port) not in self._seen[-SAMPLES_KEPT:]:
            insort(self._seen, (at, port))
            del self._seen[:-SAMPLES_KEPT]

    def saw_beside(self, port: int, at: float) -> None:
        """The same of the other transport, which may have the same counter."""
        self._beside.append((at, port))

    def taken(self, since: float) -> int:
        """How many mappings of ours came after that."""
        return _after(self._opened, since)

    def unsure(self, since: float) -> int:
        """How many perhaps did."""
        return _after(self._others, since)

    def line(self, step: int) -> list[tuple[float, int]]:
        """The last sample and one before it, as if ours in between had come before both; one alone, or none."""
        if not self._seen:
            return []
        run = self._run(step)
        first, last = run[0], run[-1]
        if len(run) < 2:
            return [last]
        gone = (last[1] - first[1]) // step
        foreign = gone - max(self._ours_by_time(run, step), self._ours_by_port(first, gone, step))
        return [(first[0], last[1] - step * (max(0, foreign) + 1)), last]

    def _ours_by_time(self, run: list[tuple[float, int]], step: int) -> int:
        """How many of ours came after the first sample, up to the last one, as the clock has it.

        Those of the other transport are of one counter if the samples leave them room, or nearly: what leaves within
        a millisecond of a sample may be put on its wrong side.
        """
        opened = [(self.taken(at), self.unsure(at)) for at, _ in run]
        ours, unsure = (opened[0][which] - opened[-1][which] for which in (0, 1))
        homeless = 0
        for (earlier, later), (before, after) in zip(pairwise(run), pairwise(opened), strict=True):
            room = (later[1] - earlier[1]) // step - before[0] + after[0]
            homeless += max(0, before[1] - after[1] - max(0, room))
        return ours + (unsure if homeless <= unsure * _MISPLACED else 0)

    def _ours_by_port(self, first: tuple[float, int], gone: int, step: int) -> int:
        """The same, as far as the ports are known: no matter who seemed to come first."""
        since = first[0] - SPAN_S
        turns = {
            (port - first[1]) // step
            for log in (self._seen, self._beside)
            for at, port in log
            if at > since and not (port - first[1]) % step
        }
        return sum(0 < turn <= gone for turn in turns)

    def _run(self, step: int) -> list[tuple[float, int]]:
        """The latest samples, in the order of time: of those of one moment the one that came last."""
        sign, run = (1 if step > 0 else -1), [self._seen[-1]]
        for one in self._seen[-2 : -RUN_MAX - 2 : -1]:
            age_s, behind = run[0][0] - one[0], (run[0][1] - one[1]) * sign
            if run[-1][0] - one[0] > SPAN_S:
                break
            if age_s <= _TOGETHER_S and -_NEAR * abs(step) < behind < 0:
                run[0] = one
            elif age_s > _TOGETHER_S and 0 < behind < _NEAR * abs(step):
                run.insert(0, one)
        return run

    def samples(self, step: int, epoch_s: float) -> tuple[Sample, ...]:
        """The same for a course. `epoch_s` is what to add to get seconds since 1970."""
        return tuple(Sample(round((at + epoch_s) * 1000), 0, port) for at, port in self.line(step))

    def ahead(self, port: int, step: int, now: float, *, surely: bool = False) -> tuple[int, int] | None:
        """Before the mapping that gets this port, so many others come at least and at most. Below 0: gone, or far.

        None: nothing is known.

        surely  others may have taken none since the last sample, however busy they seemed before
        """
        line = self.line(step)
        if not line:
            return None
        at, last = line[-1]
        foreign = (last - line[0][1]) // step - 1 if len(line) > 1 else 0
        low, high = predict.range_of([seen for _, seen in self._seen], step)
        course = predict.Course(at * 1000, last, step, foreign, at - line[0][0], low, high)
        turn = predict.turn_of(course, port, AHEAD_MAX)
        if turn is None:
            return -AHEAD_MAX, -AHEAD_MAX
        where = predict.window(course, at_ms=now * 1000, own=self.taken(at))
        fewest = 0 if surely else max(0, int(where.centre - where.first - _SURE_SD * where.spread))
        least = turn - where.first - where.count + 1 - self.unsure(at) - _UNSURE
        return least, turn - where.first - fewest + _UNSURE


def _after(log: deque[tuple[float, int]], since: float) -> int:
    total = 0
    for at, count in reversed(log):
        if at <= since + _TOGETHER_S:
            break
        total += count
    return total
