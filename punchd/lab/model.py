"""The modelled half of the lab: two peers, two NATs and a side channel in virtual time, from one seed.
It refuses to touch sockets, clocks and dice of the machine: the same arguments give the same run, packet by packet.

    result = World("linux", "linux-reject", techniques=["tcp-simopen"], delay_ms=50).run()
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from punchd.core import plan
from punchd.core.attempt import Attempt
from punchd.core.initiating import Initiating
from punchd.core.ports import Ports
from punchd.core.responding import Responding
from punchd.core.techniques import TECHNIQUES
from punchd.core.terms import Terms
from punchd.lab.model_host import Kernel, Tcp, Udp
from punchd.lab.model_kinds import KINDS, Kind, Side, is_shared, layers
from punchd.lab.model_nat import Nat
from punchd.lab.model_net import Box, Clock, Net, Path
from punchd.lab.model_peer import Daemon, HandedOver
from punchd.lab.model_shared import Leg
from punchd.lab.model_view import look
from punchd.words.events import CallHeard, Cancelled
from punchd.words.nat import Allocation
from punchd.words.notification import Notification, SecondMessage
from punchd.words.outcomes import Failed, Progress, Punched
from punchd.words.plan import Row

PUBLIC = ("203.0.113.2", "198.51.100.2")
PRIVATE = ("10.0.1.2", "10.0.2.2")
START_S = 1000.0  # the clock at the beginning: no code may take 0 for "never"
PATIENCE_S = 20.0  # how long two applications may need for one word each way
ALL = frozenset({"ring", "raw", "repair", "rules", "queue"})
HELLO = b"hello"


@dataclass(frozen=True, slots=True)
class Half:
    """How one side fared. Times in seconds since the start; -1: never."""

    outcome: Punched | Failed | None
    at: float
    early_at: float
    ended_at: float
    progress: tuple[Progress, ...]
    handed: tuple[HandedOver, ...]
    finals: int

    @property
    def ok(self) -> bool:
        """Whether the application was told `ok`."""
        return isinstance(self.outcome, Punched)

    @property
    def code(self) -> str:
        """The technique that succeeded, or the code of the failure."""
        if isinstance(self.outcome, Punched):
            return self.outcome.technique
        return "silent" if self.outcome is None else self.outcome.code


@dataclass(frozen=True, slots=True)
class Result:
    """One run. `exchanged`: each application read what the other wrote, over the sockets handed over."""

    a: Half
    b: Half
    exchanged: bool
    packets: int
    effects: tuple[int, int]
    leaks: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Both succeeded, with one connection that works."""
        return self.a.ok and self.b.ok and self.exchanged


class World:
    """One attempt from both sides; `run` once.

    kind_a, _b     names as the kernel lab takes them (of shared boxes, too), or kinds from the host outwards
    shared         the outermost of kind_a is the outermost of kind_b, too
    techniques     names in order, or None for auto
    rows           the initiator's plan, instead of the one made from `techniques`
    side_delay_ms  of the side channel, one way; None: the notification is never carried
    side_repeat    how often the notification arrives
    calls_back     whether the applications carry a second message
    wake_ms        how long a daemon may sleep before it reads what its kernel holds
    classes        what A's plan knows: nothing, what both probes "measured", or all that the kinds' "nicknames" say
    fans           whether A's host can send many packets of one technique at once
    timed          whether A's caller tells what the side channel takes
    tried          attempts that failed a short time ago
    speaks         whose applications write at hand-over: "ab", "a", "b" or ""
    faults_a, _b   index of an effect -> code with which the host refuses it
    cancel_a_ms    when the caller cancels, counted from the start
    """

    def __init__(
        self, kind_a: Side, kind_b: Side, *, techniques: Iterable[str] | None = None,
        rows: Sequence[Row] | None = None, transport: str = "tcp",
        seed: int = 1, delay_ms: float = 50.0, jitter_ms: float = 0.0, loss: float = 0.0, reorder: float = 0.0,
        duplicate: float = 0.0, side_delay_ms: float | None = 50.0, side_repeat: int = 1, calls_back: bool = True,
        wake_ms: float = 0.0, classes: str = "", tried: int = 0, timed: bool = False, fans: bool = False,
        early: bool = False, blind_a: bool = False, blind_b: bool = False, hole_ttl: int = 2,
        hosts_conntrack: bool = False, timeout_s: float = 10.0, speaks: str = "ab", shared: bool = False,
        faults_a: Mapping[int, str] | None = None, faults_b: Mapping[int, str] | None = None,
        cancel_a_ms: float | None = None, cancel_b_ms: float | None = None,
        on_attempt: Callable[[Daemon, Attempt], None] | None = None,
        on_notification: Callable[[Notification], None] | None = None,
    ) -> None:  # fmt: skip
        self._dice = dice = random.Random(seed)
        self._clock = clock = Clock(START_S)
        path = Path(delay_ms / 1000, jitter_ms / 1000, loss, reorder, duplicate)
        self.net = net_of(kind_a, kind_b, clock, path, dice, seed=seed, shared=shared)
        kinds = layers(kind_a), layers(kind_b)
        self._names = str(kind_a), str(kind_b)
        self._local = [PRIVATE[side] if kinds[side][0].translates else PUBLIC[side] for side in (0, 1)]
        self._blind = blind_a, blind_b
        kernels = [
            Kernel(
                clock, self.net, side, salt=dice.getrandbits(64) | 1, hole_ttl=hole_ttl, blind=self._blind[side],
                firewall=Nat(KINDS["firewall"], "") if hosts_conntrack else None,
            )
            for side in (0, 1)
        ]  # fmt: skip
        self.net.join(*kernels)
        self.a, self.b = (
            Daemon(
                clock, kernel, dice, wake_s=wake_ms / 1000, faults=faults or {},
                on_notify=self._carry, on_call=self._carry_back, on_socket=self._on_socket,
            )
            for kernel, faults in zip(kernels, (faults_a, faults_b), strict=True)
        )  # fmt: skip
        self._techniques, missing = plan.choose(techniques, transport, self._able(0))
        if not self._techniques:
            raise ValueError(f"nothing can run: {missing}")
        self._in_turn, self._early = techniques is not None, early
        self._hole_ttl, self._timeout_s = hole_ttl, timeout_s
        self._side_s = None if side_delay_ms is None else side_delay_ms / 1000
        self._rows = (
            self._plan(kinds, classes, transport, timed=timed, tried=tried, fans=fans) if rows is None else rows
        )
        self._side_repeat, self._speaks, self._calls_back = side_repeat, speaks, calls_back
        self._cancels = ((self.a, cancel_a_ms), (self.b, cancel_b_ms))
        self._on_attempt, self._on_notification = on_attempt, on_notification
        self._pending = 0  # notifications under way
        self._exchange_until = -1.0

    def run(self) -> Result:
        """From the first packet until both attempts are over and both applications have heard each other."""
        clock = self._clock
        for daemon, at_ms in self._cancels:
            if at_ms is not None:
                clock.at(START_S + at_ms / 1000, self._cancel, daemon)
        self._launch(self.a, self._initiating())
        clock.run(self._goes_on, START_S + 10 * self._timeout_s + PATIENCE_S)
        return Result(
            _half(self.a), _half(self.b), self._exchanged(), self.net.sent,
            (self.a.performed, self.b.performed),
            tuple([f"a: {leak}" for leak in self.a.leaks()] + [f"b: {leak}" for leak in self.b.leaks()]),
        )  # fmt: skip

    def _initiating(self) -> Initiating:
        return Initiating(
            terms=Terms(True, self._dice.randbytes(16), self._hole_ttl, self._blind[0]),
            local=self._local[0], public=self.net.public[0], remote=self.net.public[1], rows=self._rows,
            ports=Ports(self._dice), timeout_s=self._timeout_s, now=self._clock.now, early=self._early,
            in_turn=self._in_turn,
        )  # fmt: skip

    def _plan(
        self, kinds: Kinds, classes: str, transport: str, *, timed: bool, tried: int, fans: bool
    ) -> list[Row]:  # fmt: skip
        own, peer = (
            look(self.net.boxes(side), kinds[side], self._names[side] if classes == "nicknames" else None, transport,
                 now=START_S) if classes else None
            for side in (0, 1)
        )  # fmt: skip
        for daemon, view in ((self.a, own), (self.b, peer)):
            if view is not None and view.face is not None and view.nat.allocation is Allocation.SEQUENTIAL:
                daemon.step = view.nat.step
                for sample in view.face.samples:
                    daemon.tally.saw(sample.public_port, daemon.tally.opened(1, sample.at_ms / 1000))
        times = plan.Times(START_S * 1000, self._side_s if timed else None, self._timeout_s)
        return plan.rows(
            self._techniques, listed=self._in_turn, own=own, peer=peer, times=times, tried=tried, fans=fans
        )

    def _responding(self, notification: Notification, runnable: frozenset[str]) -> Responding:
        return Responding(
            terms=Terms(False, notification.nonce, self._hole_ttl, self._blind[1]),
            local=self._local[1], notification=notification, runnable=runnable, ports=Ports(self._dice),
            timeout_s=self._timeout_s, now=self._clock.now,
        )  # fmt: skip

    def _able(self, side: int) -> frozenset[str]:
        return frozenset() if self._blind[side] else ALL

    def _launch(self, daemon: Daemon, attempt: Attempt) -> None:
        if self._on_attempt is not None:
            self._on_attempt(daemon, attempt)
        daemon.launch(attempt)

    def _carry(self, notification: Notification) -> None:
        if self._on_notification is not None:
            self._on_notification(notification)
        if self._side_s is not None:
            for turn in range(self._side_repeat):
                self._pending += 1
                self._clock.at(self._clock.now + self._side_s * (1 + turn), self._notified, notification)

    def _notified(self, notification: Notification) -> None:
        self._pending -= 1
        if self.b.attempt is None:  # admission: already-responded
            runnable = frozenset(
                o.technique for o in notification.offers if TECHNIQUES[o.technique].needs <= self._able(1)
            )
            if runnable and (attempt := self._responding(notification, runnable)).has_offers:
                self._launch(self.b, attempt)  # else, admission: no-common-technique

    def _carry_back(self, message: SecondMessage) -> None:
        """The second message, where the applications carry one."""
        if self._side_s is not None and self._calls_back:
            self._pending += 1
            self._clock.at(self._clock.now + self._side_s, self._called, message)

    def _called(self, message: SecondMessage) -> None:
        self._pending -= 1
        if not self.a.done:
            self.a.feed(CallHeard(message))

    def _cancel(self, daemon: Daemon) -> None:
        if daemon.attempt is not None:
            daemon.feed(Cancelled("cancelled"))

    def _on_socket(self, daemon: Daemon, handed: HandedOver) -> None:
        if ("a" if daemon is self.a else "b") in self._speaks:
            if isinstance(handed.sock, Tcp):
                handed.sock.write(len(HELLO))
            else:
                handed.sock.send(HELLO)
        self._exchange_until = self._clock.now + PATIENCE_S

    def _exchanged(self) -> bool:
        return all(
            daemon.handed and (other not in self._speaks or _has_read(daemon.handed[0].sock))
            for daemon, other in ((self.a, "b"), (self.b, "a"))
        )

    def _goes_on(self) -> bool:
        if self._pending or not (self.a.done and self.b.done):
            return True
        both = self.a.handed and self.b.handed
        return bool(both) and self._clock.now < self._exchange_until and not self._exchanged()


def net_of(
    kind_a: Side, kind_b: Side, clock: Clock, path: Path, dice: random.Random, *, seed: int = 1, shared: bool = False
) -> Net:  # fmt: skip
    """The net between two hosts behind these kinds; the hosts are yet to join."""
    kinds, shared = (layers(kind_a), layers(kind_b)), shared or is_shared(kind_a, kind_b)
    boxes = _shared(kinds, seed) if shared else _apart(kinds, seed)
    return Net(clock, path, dice, boxes, shared=shared)


Boxes = tuple[Sequence[Box], Sequence[Box]]
Kinds = tuple[Sequence[Kind], Sequence[Kind]]


def _apart(kinds: Kinds, seed: int) -> Boxes:
    """Each side's NATs from the host outwards."""
    return _row(kinds[0], 0, seed, PUBLIC[0]), _row(kinds[1], 1, seed, PUBLIC[1])


def _shared(kinds: Kinds, seed: int) -> Boxes:
    """Each side's own NATs, and its leg of the one that both are behind."""
    last = kinds[0][-1]
    nat = Nat(last, PUBLIC[0], gateway="100.64.1.1", dice=random.Random(f"{seed} shared"))
    own = [_row(kinds[side][:-1], side, seed, f"100.64.1.{side + 2}") for side in (0, 1)]
    return [*own[0], Leg(nat, 0, last.hairpin)], [*own[1], Leg(nat, 1, last.hairpin)]


def _row(kinds: Sequence[Kind], side: int, seed: int, outermost: str) -> list[Nat]:
    """With the addresses that the kernel lab gives them."""
    carrier = [f"100.{64 + layer}.{side + 1}" for layer in range(len(kinds) - 1)]
    gateways = [f"10.0.{side + 1}.1", *(f"{net}.1" for net in carrier)]
    publics = [*(f"{net}.2" for net in carrier), outermost]
    return [
        Nat(kind, public, gateway=gateway if kind.translates else "", dice=random.Random(f"{seed} {side} {public}"))
        for kind, public, gateway in zip(kinds, publics, gateways, strict=False)
    ]


def _has_read(sock: Tcp | Udp) -> bool:
    return sock.received > 0 if isinstance(sock, Tcp) else HELLO in sock.queue


def _half(daemon: Daemon) -> Half:
    def since(at: float) -> float:
        return round(at - START_S, 9) if at >= 0 else -1.0

    early = [handed.at for handed in daemon.handed if handed.early]
    return Half(
        daemon.finals[0] if daemon.finals else None, since(daemon.final_at), since(early[0]) if early else -1.0,
        since(daemon.ended_at), tuple(daemon.progress), tuple(daemon.handed), len(daemon.finals),
    )  # fmt: skip
