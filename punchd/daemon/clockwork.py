"""All alarms of the driver behind one timer of the event loop.
Knows no attempt: an alarm is a time and what to call then.

Nearly every alarm is cancelled before its time, so setting and cancelling are what must be cheap: a push onto a heap,
and a mark. Cancelled ones leave the heap at their time, or all together once they are the greater part of it.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

COMPACT_MIN = 1024
EARLY_S = 0.0005  # the loop counts whole milliseconds


class Alarm:
    """A time and what to call then."""

    __slots__ = ("at", "ring")

    def __init__(self, at: float, ring: Callable[[], None]) -> None:
        self.at = at
        self.ring: Callable[[], None] | None = ring

    def cancel(self) -> None:
        self.ring = None


class Clockwork:
    """A heap of alarms and the one timer for the first of them."""

    __slots__ = ("_clock", "_heap", "_loop", "_next_compact_len", "_timer", "_timer_at")

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]) -> None:
        self._loop, self._clock = loop, clock
        self._heap: list[tuple[float, int, Alarm]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._next_compact_len = COMPACT_MIN

    def set(self, at: float, ring: Callable[[], None]) -> Alarm:
        """Call `ring` at this time of the clock, unless the alarm is cancelled before."""
        alarm = Alarm(at, ring)
        heapq.heappush(self._heap, (at, id(alarm), alarm))
        if len(self._heap) > self._next_compact_len:
            self._compact()
        self._wind()
        return alarm

    def _wind(self) -> None:
        """See to it that the loop's timer is no later than the first alarm."""
        if not self._heap:
            return
        at = self._heap[0][0]
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_later(max(0.0, at - self._clock()), self._strike)

    def _strike(self) -> None:
        self._timer = None
        until = self._clock() + EARLY_S
        try:
            while self._heap and self._heap[0][0] <= until:
                alarm = heapq.heappop(self._heap)[2]
                if alarm.ring is not None:
                    alarm.ring()
        finally:  # whatever one alarm does, the others ring
            self._wind()

    def _compact(self) -> None:
        self._heap = [entry for entry in self._heap if entry[2].ring is not None]
        heapq.heapify(self._heap)
        self._next_compact_len = 2 * len(self._heap) + COMPACT_MIN
