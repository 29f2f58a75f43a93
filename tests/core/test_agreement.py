"""The theory at the head of core/attempt.py: whatever the net, the kernels and the callers do, both sides end well.

It refuses to care which technique wins. Two real cores run in the modelled lab (punchd/lab/model.py); hypothesis
draws the schedules, and each counterexample ever found is kept below as a vector.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from punchd.core.attempt import Attempt
from punchd.core.techniques import TECHNIQUES
from punchd.lab.model import World
from punchd.lab.model_nat import KINDS
from punchd.lab.model_peer import Daemon
from punchd.words.effects import Effect, HandOver, Resend, Tell
from punchd.words.events import DeadlinePassed, Event
from punchd.words.outcomes import Punched

TCP = [name for name, technique in TECHNIQUES.items() if technique.transport == "tcp"]
KIND_NAMES = sorted(KINDS)
PROBES_PER_PAIR_AND_SECOND = 12  # three words at first, then pauses of 150 ms and more
DYING_TTLS = (2, 3, 4, 5)  # a primer that reaches the peer is no primer


class Judge:
    """Watches both cores step by step; `complaints` is empty for a run that keeps all promises."""

    def __init__(self, setting: dict[str, Any]) -> None:
        self.complaints: list[str] = []
        self.probes = 0
        self._setting = setting

    def run(self) -> Judge:
        world = World(**self._setting, on_attempt=self._watch)
        result = world.run()
        for name, daemon, half in (("a", world.a, result.a), ("b", world.b, result.b)):
            if not daemon.done:
                self.complaints.append(f"{name} never ends")
            elif daemon.attempt is not None and half.finals != 1:
                self.complaints.append(f"{name} has {half.finals} final outcomes")
            if len(half.handed) > 1:
                self.complaints.append(f"{name} is handed {len(half.handed)} sockets")
        self.complaints += result.leaks
        a, b = result.a.outcome, result.b.outcome
        if isinstance(a, Punched) and isinstance(b, Punched):
            if (a.local.port, a.remote.port) != (b.remote.port, b.local.port):
                self.complaints.append(f"a has {a}, b has {b}")
            elif a.technique != "udp" and not result.exchanged and self._setting["loss"] <= 0.2:
                self.complaints.append("both have it, and it carries nothing")
        for daemon in (world.a, world.b):
            if daemon.attempt is not None:
                lasted_s = daemon.ended_at - daemon.attempt.started
                pairs = len(daemon.attempt.pairs)
                if self.probes > 2 * pairs * PROBES_PER_PAIR_AND_SECOND * (lasted_s + 2):
                    self.complaints.append(f"{self.probes} probes in {lasted_s} s")
        return self

    def _watch(self, daemon: Daemon, attempt: Attempt) -> None:
        before = attempt.deadline

        def judge(event: Event, now: float, effects: list[Effect]) -> None:
            nonlocal before
            deadline = attempt.deadline
            if deadline is not None:
                if isinstance(event, DeadlinePassed) and deadline <= now:
                    self.complaints.append(f"{type(attempt).__name__} asks for a deadline in the past")
                elif deadline < now and deadline != before:
                    self.complaints.append(f"{event} sets a deadline in the past")
            before = deadline
            self.probes += sum(isinstance(effect, Tell | Resend) for effect in effects)
            if sum(isinstance(effect, HandOver) for effect in effects) > 1:
                self.complaints.append("two sockets in one step")

        daemon.watcher = judge


def delays_ms(highest: float) -> st.SearchStrategy[float]:
    return st.sampled_from([0.0, 0.1, 1.0, 10.0, 50.0]) | st.floats(0, highest)


def shares() -> st.SearchStrategy[float]:
    return st.sampled_from([0.0, 0.0, 0.05, 0.2, 0.5])


def schedules(
    transport: str = "tcp", *, ttls: tuple[int, ...] = (2, 6), **fixed: Any
) -> st.SearchStrategy[dict[str, Any]]:
    names = TCP if transport == "tcp" else ["udp"]
    free: dict[str, st.SearchStrategy[Any]] = {
        "kind_a": st.sampled_from(KIND_NAMES), "kind_b": st.sampled_from(KIND_NAMES),
        "techniques": st.none() | st.lists(st.sampled_from(names), min_size=1, max_size=6),
        "seed": st.integers(0, 2**32 - 1), "delay_ms": delays_ms(300), "jitter_ms": delays_ms(400),
        "loss": shares(), "reorder": shares(), "duplicate": shares(), "hole_ttl": st.sampled_from(ttls),
        "side_delay_ms": st.none() | delays_ms(5000), "side_repeat": st.integers(1, 2), "wake_ms": delays_ms(300),
        "early": st.booleans(), "timeout_s": st.sampled_from([0.3, 3.0, 10.0]),
        "speaks": st.sampled_from(["", "a", "b", "ab"]), "hosts_conntrack": st.booleans(),
    }  # fmt: skip
    return st.fixed_dictionaries(
        {name: draw for name, draw in free.items() if name not in fixed}
        | {name: st.just(value) for name, value in (fixed | {"transport": transport}).items()}
    )


@given(schedules())
def test_both_sides_end_with_the_same_connection(setting: dict[str, Any]) -> None:
    """One outcome each, one connection if any, nothing left behind: the reason for the commit probe."""
    assert [] == Judge(setting).run().complaints
