"""All alarms of the driver behind one timer of the event loop.
Knows no attempt: an alarm is a time and what to call then.

Nearly every alarm is cancelled before its time, so setting and cancelling are what must be cheap: a push onto a heap,
and a mark. Cancelled ones leave the heap at their time, or all together once they are the greater part of it, or
once no other is left: then there is no timer either, and nothing wakes.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

COMPACT_MIN = 1024
EARLY_S = 0.0005  # the loop counts whole milliseconds


class Alarm:
    """A time and what to call then."""

    __slots__ = ("_clockwork", "at", "ring")

    def __init__(self, clockwork: Clockwork, at: float, ring: Callable[[], None]) -> None:
        self._clockwork, self.at = clockwork, at
        self.ring: Callable[[], None] | None = ring

    def cancel(self) -> None:
        """It will not ring."""
        if self.ring is not None:
            self.ring = None
            self._clockwork.lost_one()


class Clockwork:
    """A heap of alarms and the one timer for the first of them."""

    __slots__ = ("_clock", "_heap", "_left", "_loop", "_next_compact_len", "_timer", "_timer_at")

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]) -> None:
        self._loop, self._clock = loop, clock
        self._heap: list[tuple[float, int, Alarm]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._left = 0
        """Alarms that are to ring yet."""
        self._next_compact_len = COMPACT_MIN

    def set(self, at: float, ring: Callable[[], None]) -> Alarm:
        """Call `ring` at this time of the clock, unless the alarm is cancelled before."""
        alarm = Alarm(self, at, ring)
        self._left += 1
        heapq.heappush(self._heap, (at, id(alarm), alarm))
        if len(self._heap) > self._next_compact_len:
            self._compact()
        self._wind()
        return alarm

    def lost_one(self) -> None:
        """An alarm was cancelled."""
        self._left -= 1
        if not self._left:
            self._wind()

    def _wind(self) -> None:
        """See to it that the loop's timer is no later than the first alarm, and that there is none for nothing."""
        if not self._left:
            self._heap.clear()
        if self._timer is not None:
            if self._heap and self._timer_at <= self._heap[0][0]:
                return
            self._timer.cancel()
            self._timer = None
        if not self._heap:
            return
        self._timer_at = at = self._heap[0][0]
        self._timer = self._loop.call_later(max(0.0, at - self._clock()), self._strike)

    def _strike(self) -> None:
        self._timer = None
        until = self._clock() + EARLY_S
        try:
            while self._heap and self._heap[0][0] <= until:
                alarm = heapq.heappop(self._heap)[2]
                ring, alarm.ring = alarm.ring, None
                if ring is not None:
                    self._left -= 1
                    ring()
        finally:  # whatever one alarm does, the others ring
            self._wind()

    def _compact(self) -> None:
        self._heap = [entry for entry in self._heap if entry[2].ring is not None]
        heapq.heapify(self._heap)
        self._next_compact_len = 2 * len(self._heap) + COMPACT_MIN
