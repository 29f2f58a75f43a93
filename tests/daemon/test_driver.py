"""When the driver takes an event to be all there is to do.
Punches nothing: attempt, host and loop are stand-ins; what effects do to a kernel is tested in the lab."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

from punchd.core.budget import Budget, Limits
from punchd.daemon.driver import QUIET_S, Driver
from punchd.daemon.recent import Recent
from punchd.edge.records import Seen
from punchd.words.effects import Effect, OpenPair
from punchd.words.events import Event


class Stage:
    """Attempts with a pair each; of every event of theirs, whether the caller was told that it is alone."""

    def __init__(self, attempts: int) -> None:
        self.now = 100.0
        self.alone: list[bool] = []
        self.host = MagicMock(raw=None, queue=None, ports=range(22000, 22100))
        self.host.diag.holds.return_value = False
        loop = MagicMock()
        self.driver = Driver(loop, self.host, Budget(Limits()), recent=Recent(), clock=lambda: self.now)
        self.drain = loop.add_reader.call_args.args[1]
        for number in range(attempts):
            caller: Any = SimpleNamespace(name="1/1", uid=0, alone=False)
            self.driver.launch(self._attempt(22000 + number, caller), caller)

    def _attempt(self, port: int, caller: Any) -> Any:
        def step(event: Event, now: float) -> list[Effect]:
            self.alone.append(caller.alone)
            return []

        return SimpleNamespace(
            begin=lambda: [OpenPair(0, "tcp-midstream", port, "198.51.100.2", port, True)], step=step, done=False,
            deadline=None, targets=(), local="10.0.1.2", terms=SimpleNamespace(initiating=False),
        )  # fmt: skip

    def hear(self, *tokens: int, after_s: float) -> list[bool]:
        self.now += after_s
        self.alone.clear()
        records = [Seen(n, 0, 0, 0, False, 16, 1, 1, 1, 60, b"", None, None, False, None, 1, 1) for n in tokens]
        self.host.ring.drain.return_value = records
        self.drain()
        return self.alone


def test_a_segment_after_a_rest_is_alone() -> None:
    """What it brings about waits for nothing."""
    assert [True] == Stage(1).hear(1, after_s=2 * QUIET_S)


def test_segments_that_come_together_are_not_alone() -> None:
    """Their lines leave together: each write wakes the application up."""
    assert [False, False] == Stage(2).hear(1, 2, after_s=2 * QUIET_S)


def test_a_segment_right_after_another_is_not_alone() -> None:
    """The loop has not come to rest, so more is under way."""
    stage = Stage(2)
    assert [True] == stage.hear(1, after_s=2 * QUIET_S)
    assert [False] == stage.hear(2, after_s=QUIET_S / 2)
    assert [False] == stage.hear(1, after_s=QUIET_S / 2)
    assert [True] == stage.hear(1, after_s=2 * QUIET_S)


def test_a_second_event_of_the_same_attempt_is_as_alone_as_the_first() -> None:
    """A segment and what the kernel makes of it come together."""
    stage = Stage(2)
    assert [True, True] == stage.hear(1, 1, after_s=2 * QUIET_S)
    assert [True] == stage.hear(1, after_s=QUIET_S / 2)
    assert [False] == stage.hear(2, after_s=QUIET_S / 2)
