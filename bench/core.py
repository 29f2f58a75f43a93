"""How many two-peer attempts a second run in virtual time on one core?
Opens no socket; seconds are this process's CPU time, the runs are virtual.

Two halves of the answer. "Core": both attempts and both modelled NATs, back to back, without kernels: what a
technique's own hand says is carried to the other side. "Model": the whole World of lab/model.py, with modelled kernels,
rings, timers and applications, which a test of a technique pays for.
"""

from __future__ import annotations

import gc
import random
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from bench._frame import Figure, Progress, Report, at_least, interleaved
from punchd.core import plan
from punchd.core.attempt import Attempt
from punchd.core.initiating import Initiating
from punchd.core.ports import Ports
from punchd.core.responding import Responding
from punchd.core.techniques import TECHNIQUES
from punchd.core.terms import Terms
from punchd.lab.model import PRIVATE, PUBLIC, START_S, World
from punchd.lab.model_kinds import KINDS
from punchd.lab.model_nat import Nat
from punchd.lab.model_net import Datagram, IcmpError, Refused, Segment
from punchd.words.effects import AskKernel, Effect, Finish, HandOver, Notify, OpenPair, Tell
from punchd.words.events import (
    ACK,
    BY_WINDOW,
    WINDOWS,
    DeadlinePassed,
    Event,
    KernelHeard,
    SegmentSeen,
    Settled,
    Signal,
    SignalSeen,
)
from punchd.words.notification import Notification
from punchd.words.outcomes import Punched

HOLE_TTL = 2
LEAN = ("tcp-midstream", "udp")
MODEL = ("tcp-midstream", "tcp-simopen", "udp", "auto")
FULL_TTL = 64
STEPS_MAX = 1000


def run(*, quick: bool, progress: Progress) -> Report:
    rounds, attempts = (3, 200) if quick else (5, 2000)
    gc.freeze()  # as the daemon does
    lean = interleaved(rounds, {name: partial(_lean_rate, name, attempts) for name in LEAN}, progress)
    model = interleaved(rounds, {name: partial(_model_rate, name, attempts // 2) for name in MODEL}, progress)
    return Report(
        [
            *(Figure.of(f"core, {name}", lean[name], "1/s", at_least(5000)) for name in LEAN),
            *(Figure.of(f"model, {name}", model[name], "1/s") for name in MODEL),
        ],
        conditions={"rounds": rounds, "attempts": attempts, "nats": "linux linux"},
    )


def _lean_rate(technique: str, attempts: int) -> float:
    dice = random.Random(1)
    begun = time.process_time()
    for _ in range(attempts):
        outcomes = Street(technique, dice).run()
        assert all(isinstance(outcome, Punched) for outcome in outcomes), outcomes
    return attempts / (time.process_time() - begun)


def _model_rate(technique: str, attempts: int) -> float:
    """Without the applications' first words."""
    names = None if technique == "auto" else [technique]
    transport = "udp" if technique == "udp" else "tcp"
    begun = time.process_time()
    for seed in range(attempts):
        result = World("linux", "linux", techniques=names, transport=transport, seed=seed, speaks="").run()
        assert result.a.ok
        assert result.b.ok
    return attempts / (time.process_time() - begun)


class Street:
    """One attempt from both sides, both NATs between them; packets take no time, only deadlines make it pass."""

    __slots__ = ("_attempts", "_dice", "_nats", "_now", "_outcomes", "_pairs", "_technique", "_waiting")

    def __init__(self, technique: str, dice: random.Random) -> None:
        self._technique, self._dice, self._now = technique, dice, START_S
        self._nats = [Nat(KINDS["linux"], PUBLIC[side], dice=dice) for side in (0, 1)]
        self._attempts: list[Attempt | None] = [None, None]
        self._outcomes: list[object] = [None, None]
        self._pairs: list[dict[int, OpenPair]] = [{}, {}]
        self._waiting: deque[tuple[int, Event]] = deque()

    def run(self) -> list[object]:
        """What both callers were told in the end."""
        self._begin(0, self._initiating())
        for _ in range(STEPS_MAX):
            if self._waiting:
                side, event = self._waiting.popleft()
                self._step(side, event)
            elif not self._wait():
                return self._outcomes
        raise RuntimeError("no end")

    def _begin(self, side: int, attempt: Attempt) -> None:
        self._attempts[side] = attempt
        self._perform(side, attempt.begin())
        self._waiting.append((side, Settled()))

    def _step(self, side: int, event: Event) -> None:
        attempt = self._attempts[side]
        if attempt is not None and not attempt.done:
            self._perform(side, attempt.step(event, self._now))

    def _wait(self) -> bool:
        """Let time pass until the next deadline; False: there is none, both are done."""
        deadlines = [
            (attempt.deadline, side)
            for side, attempt in enumerate(self._attempts)
            if attempt is not None and not attempt.done and attempt.deadline is not None
        ]
        if not deadlines:
            return False
        deadline, side = min(deadlines)
        self._now = max(self._now, deadline)
        self._step(side, DeadlinePassed())
        return True

    def _perform(self, side: int, effects: list[Effect]) -> None:
        for effect in effects:
            perform = _PERFORMED.get(type(effect))
            if perform is not None:  # else sockets, reports: there is no kernel here
                perform(self, side, effect)

    def _open(self, side: int, effect: OpenPair) -> None:
        self._pairs[side][effect.pair] = effect

    def _notify(self, _: int, effect: Notify) -> None:
        self._begin(1, self._responding(effect.notification))

    def _end(self, side: int, effect: HandOver | Finish) -> None:
        if effect.outcome is not None:
            self._outcomes[side] = effect.outcome

    def _ask_kernel(self, side: int, effect: AskKernel) -> None:
        """It is asked of what the ring has seen come, and no rule of a host's drops anything here."""
        self._waiting.append((side, KernelHeard(effect.pair)))

    def _tell(self, side: int, effect: Tell) -> None:
        pair, other = self._pairs[side][effect.pair], 1 - side
        packet: Segment | Datagram
        ttl = effect.ttl or FULL_TTL
        if self._technique == "udp":
            packet = Datagram(pair.local_port, pair.remote_port, bytes([effect.signal]), ttl)
        else:
            window = WINDOWS[effect.signal]
            packet = Segment(pair.local_port, pair.remote_port, ACK, effect.seq, effect.ack, window, ttl)
        out = self._nats[side].outbound(packet, self._now, PUBLIC[other])
        if out is None or ttl <= HOLE_TTL:
            return
        came = self._nats[other].inbound(out, self._now, PUBLIC[side])
        if came is None or isinstance(came, (Refused, IcmpError)):
            return
        for index, theirs in self._pairs[other].items():
            if theirs.local_port == came.dst:
                self._waiting.append((other, _event(index, came)))

    def _initiating(self) -> Initiating:
        return Initiating(
            terms=Terms(True, self._dice.randbytes(16), HOLE_TTL, False),
            local=PRIVATE[0], public=PUBLIC[0], remote=PUBLIC[1], rows=plan.rows([self._technique], listed=True),
            ports=Ports(self._dice), timeout_s=10.0, now=self._now,
        )  # fmt: skip

    def _responding(self, notification: Notification) -> Responding:
        return Responding(
            terms=Terms(False, notification.nonce, HOLE_TTL, False), local=PRIVATE[1], notification=notification,
            runnable=frozenset(TECHNIQUES), ports=Ports(self._dice), timeout_s=10.0, now=self._now,
        )  # fmt: skip


_PERFORMED: dict[type[Any], Callable[[Street, int, Any], None]] = {
    OpenPair: Street._open, Tell: Street._tell, Notify: Street._notify, HandOver: Street._end, Finish: Street._end,
    AskKernel: Street._ask_kernel,
}  # fmt: skip


def _event(pair: int, packet: Segment | Datagram) -> Event:
    if isinstance(packet, Datagram):
        return SignalSeen(pair, Signal(packet.data[0]))
    assert packet.window in BY_WINDOW
    return SegmentSeen(pair, False, packet.flags, packet.seq, packet.ack, packet.window, packet.ttl, b"")
