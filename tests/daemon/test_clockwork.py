"""Whether alarms ring in order, not before their time, and not after they were cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from punchd.daemon.clockwork import COMPACT_MIN, Clockwork


class Loop:
    """A loop with a clock of its own, which moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], None], Timer]] = []

    def clock(self) -> float:
        return self.now

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Any:
        timer = Timer()
        self.timers.append((self.now + delay_s, call, timer))
        return timer

    def pass_time(self, until: float) -> None:
        while due := sorted(entry[0] for entry in self.timers if entry[0] <= until and not entry[2].cancelled):
            index = next(i for i, entry in enumerate(self.timers) if entry[0] == due[0] and not entry[2].cancelled)
            at, call, _ = self.timers.pop(index)
            self.now = max(self.now, at)
            call()
        self.now = until


class Timer:
    cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


def made() -> tuple[Loop, Clockwork, list[str]]:
    loop = Loop()
    as_loop: Any = loop
    return loop, Clockwork(as_loop, loop.clock), []


def test_alarms_ring_in_order_of_their_times() -> None:
    """A retransmission of one attempt must not wait for the timeout of another."""
    loop, clockwork, rung = made()
    for name, at in (("c", 130.0), ("a", 110.0), ("b", 120.0)):
        clockwork.set(at, lambda name=name: rung.append(name))
    loop.pass_time(109.0)
    assert [] == rung
    loop.pass_time(121.0)
    assert ["a", "b"] == rung
    loop.pass_time(200.0)
    assert ["a", "b", "c"] == rung


def test_a_cancelled_alarm_is_silent() -> None:
    """Nearly all are: an attempt that ended must not be stepped again."""
    loop, clockwork, rung = made()
    first = clockwork.set(110.0, lambda: rung.append("first"))
    clockwork.set(120.0, lambda: rung.append("second"))
    first.cancel()
    loop.pass_time(200.0)
    assert ["second"] == rung


def test_an_alarm_set_by_an_alarm_rings() -> None:
    """Each retransmission sets the next one, sooner or later than what else waits."""
    loop, clockwork, rung = made()

    def again() -> None:
        rung.append("again")
        clockwork.set(loop.now + 5, lambda: rung.append("sooner"))

    clockwork.set(110.0, again)
    clockwork.set(120.0, lambda: rung.append("later"))
    loop.pass_time(200.0)
    assert ["again", "sooner", "later"] == rung


def test_cancelled_alarms_do_not_pile_up() -> None:
    """At thousands of attempts a second, each with ten minutes of patience, they would fill the memory."""
    loop, clockwork, rung = made()
    clockwork.set(900.0, lambda: rung.append("yes"))
    for number in range(50 * COMPACT_MIN):
        clockwork.set(1000.0 + number, lambda: rung.append("no")).cancel()
    assert len(clockwork._heap) <= 2 * COMPACT_MIN
    assert len([entry for entry in loop.timers if not entry[2].cancelled]) == 1


def test_with_no_alarm_left_there_is_no_timer() -> None:
    """An idle daemon is not woken for attempts that have ended long ago."""
    loop, clockwork, rung = made()
    alarms = [clockwork.set(110.0 + number, lambda: rung.append("no")) for number in range(3)]
    for alarm in alarms:
        alarm.cancel()
    assert all(entry[2].cancelled for entry in loop.timers)
    clockwork.set(120.0, lambda: rung.append("yes"))
    clockwork.set(150.0, lambda: rung.append("no")).cancel()
    loop.pass_time(125.0)
    assert ["yes"] == rung
    assert all(entry[2].cancelled for entry in loop.timers), "what was cancelled wakes nobody either"


def test_an_alarm_that_fails_silences_no_other() -> None:
    """One attempt's fault must not stop the clock of all."""
    loop, clockwork, rung = made()
    clockwork.set(110.0, lambda: rung.remove("what is not there"))
    clockwork.set(120.0, lambda: rung.append("other"))
    with pytest.raises(ValueError, match="not in list"):
        loop.pass_time(110.0)
    loop.pass_time(200.0)
    assert ["other"] == rung


def test_it_works_on_a_real_loop() -> None:
    """The loop's timers count whole milliseconds, and may come a little early."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        rung = loop.create_future()
        Clockwork(loop, loop.time).set(loop.time() + 0.005, lambda: rung.set_result(None))
        await asyncio.wait_for(rung, 1)

    asyncio.run(story())
