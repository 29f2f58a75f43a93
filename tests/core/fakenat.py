"""A NAT and STUN servers in virtual time, for one probe: what it sends is answered as RFC 4787's axes say.
It refuses to be an emulator: punchd/lab has one. Here the axes are parameters, and time is a heap.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from punchd.core.probe import Probe
from punchd.words.addresses import Endpoint
from punchd.words.events import DeadlinePassed
from punchd.words.nat import Allocation, Dependence
from punchd.words.probing import (
    Answer,
    Answered,
    Ask,
    Called,
    ClosePort,
    Dial,
    Finding,
    Found,
    HangUp,
    LineEnded,
    Listen,
    Lost,
    Observed,
    OpenPort,
    PortOpened,
    ProbeEffect,
    Reached,
)

HOST, PUBLIC = "10.0.1.2", "203.0.113.2"
A1, A2 = "192.0.2.10", "192.0.2.11"
FIRST, OTHER = Endpoint(A1, 3478), Endpoint(A2, 3479)
EPOCH_MS = 1_700_000_000_000.0


@dataclass
class Nat:
    """Mapping, filtering and allocation as parameters. `busy` foreign mappings are made before each of ours.

    `blocks`: who sends a stray is not heard any more, from anywhere. `rejects`: it gets an error back.
    """

    mapping: Dependence = Dependence.INDEPENDENT
    filtering: Dependence = Dependence.ADDRESS_AND_PORT
    allocation: Allocation = Allocation.PRESERVING
    step: int = 1
    busy: int = 0
    counter: int = 40000
    seed: int = 1
    blocks: bool = False
    rejects: bool = False
    blocked: set[str] = field(default_factory=set)
    made: dict[Any, int] = field(default_factory=dict)
    sent_to: dict[int, set[Endpoint]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)

    def out(self, port: int, to: Endpoint) -> Endpoint:
        """The public endpoint of a packet from the local port."""
        self.sent_to.setdefault(port, set()).add(to)
        far = {
            Dependence.INDEPENDENT: None,
            Dependence.ADDRESS: to.address,
            Dependence.ADDRESS_AND_PORT: to,
        }[self.mapping]
        if (port, far) not in self.made:
            self.made[port, far] = self._allocate(port)
        return Endpoint(PUBLIC, self.made[port, far])

    def lets_in(self, port: int, source: Endpoint) -> bool:
        """Whether a packet from there gets to the local port."""
        passes = source.address not in self.blocked and self._asked_for(port, source)
        if self.blocks and not passes:
            self.blocked.add(source.address)
        return passes

    def _asked_for(self, port: int, source: Endpoint) -> bool:
        known = self.sent_to.get(port, set())
        match self.filtering:
            case Dependence.INDEPENDENT:
                return bool(known)
            case Dependence.ADDRESS:
                return source.address in {to.address for to in known}
            case _:
                return source in known

    def _allocate(self, port: int) -> int:
        if self.allocation is Allocation.PRESERVING:
            return port
        if self.allocation is Allocation.RANDOM:
            return self.dice.randrange(1024, 65536)
        self.counter += self.step * (1 + self.dice.randrange(self.busy + 1))
        if not 1024 <= self.counter < 65536:
            self.counter = 1024 if self.step > 0 else 65535
        return self.counter


@dataclass
class Servers:
    """Which ends answer, and what they can.

    `second` is OTHER-ADDRESS, `changes` CHANGE-REQUEST, `pipelines` two requests at once over TCP; `tells`: what came
    back of strays.
    """

    ends: frozenset[Endpoint] = frozenset(Endpoint(address, port) for address in (A1, A2) for port in (3478, 3479))
    second: Endpoint | None = OTHER
    changes: bool = True
    pipelines: bool = True
    tells: bool = True

    def source(self, ask: Ask) -> Endpoint | None:
        """Who answers."""
        if ask.server not in self.ends:
            return None
        if ask.change is None or self.second is None or not self.changes:
            return ask.server
        address = self.second.address if ask.change.address else ask.server.address
        end = Endpoint(address, self.second.port if ask.change.port else ask.server.port)
        return end if end in self.ends else None


class Street:
    """A probe behind a NAT, and what it did: run() until it rests or `until_s`."""

    def __init__(
        self,
        transport: str = "udp",
        nat: Nat | None = None,
        servers: Servers | None = None,
        *,
        named: tuple[Endpoint, ...] = (FIRST,),
        rtt_s: float = 0.02,
        loss: float = 0.0,
        drops: tuple[int, ...] = (),
        jitter_s: float = 0.0,
        seed: int = 1,
        keep: bool = False,
        timeout_s: float = 6.0,
        allow_private: bool = False,
        knocks: Endpoint | None = None,
    ) -> None:
        self.nat, self.servers = nat or Nat(), servers or Servers()
        self.rtt_s, self.loss, self.jitter_s, self.dice = rtt_s, loss, jitter_s, random.Random(seed)
        self.drops = drops
        """The numbers of questions that are lost; over TCP, of those whose answer waits for another one behind it."""
        self._stuck: dict[tuple[int, Endpoint], list[Answered]] = {}
        self.now = 100.0
        self.asked: list[tuple[float, Ask]] = []
        self.told: list[ProbeEffect] = []
        self.open: set[int] = set()
        self.lines: set[tuple[int, Endpoint]] = set()
        self.dialled: list[tuple[int, Endpoint]] = []
        self.refuse: set[Endpoint] = set()
        self.listening: set[int] = set()
        self.strayed: dict[int, bool] = {}
        """By local port, whether the strays to it were refused."""
        self._knocks = knocks
        self._ports: dict[int, int] = {}
        self._number = count(22000)
        self._order = count()
        self._heap: list[tuple[float, int, Any]] = []
        self.probe = Probe(
            transport=transport, servers=named, local=HOST, dice=self.dice, timeout_s=timeout_s, keep=keep,
            now=self.now, epoch_ms=EPOCH_MS, allow_private=allow_private,
        )  # fmt: skip
        self._do(self.probe.begin())

    @property
    def finding(self) -> Finding:
        assert self.probe.finding is not None
        return self.probe.finding

    def feed(self, event: Any) -> None:
        self._do(self.probe.step(event, self.now))

    def run(self, until_s: float = 60.0) -> Finding:
        """What was found; time goes on to `until_s` after the start, or until the probe is done."""
        end = 100.0 + until_s
        for _ in range(20_000):
            deadline = self.probe.deadline
            nexts = [self._heap[0][0]] if self._heap else []
            if deadline is not None:
                nexts.append(deadline)
            if not nexts or min(nexts) > end or self.probe.done:
                return self.finding
            self.now = max(self.now, min(nexts))
            if self._heap and self._heap[0][0] <= self.now:
                self.feed(heapq.heappop(self._heap)[2])
            else:
                self.feed(DeadlinePassed())
        raise AssertionError("the probe spins")

    def _later(self, after_s: float, event: Any) -> None:
        heapq.heappush(self._heap, (self.now + after_s, next(self._order), event))

    def _do(self, effects: list[ProbeEffect]) -> None:
        for effect in effects:
            match effect:
                case OpenPort(slot):
                    self.open.add(slot)
                    self._ports[slot] = next(self._number)
                    self.feed(PortOpened(slot, self._ports[slot]))
                case ClosePort(slot):
                    self.open.remove(slot)
                    self.lines = {line for line in self.lines if line[0] != slot}
                case Dial(slot, server):
                    self._dial(slot, server)
                case HangUp(slot, server):
                    self.lines.discard((slot, server))
                case Listen(slot):
                    self.listening.add(slot)
                    if self._knocks is not None:
                        self._later(self.rtt_s, Called(slot, self._knocks))
                case Ask():
                    self._ask(effect)
                case Observed() | Found() | Lost():
                    self.told.append(effect)

    def _dial(self, slot: int, server: Endpoint) -> None:
        assert (slot, server) not in self.lines, "dialled twice"
        self.dialled.append((slot, server))
        self.nat.out(self._ports[slot], server)
        if server in self.refuse:
            self._later(self.rtt_s, LineEnded(slot, server, "ECONNREFUSED"))
        elif server in self.servers.ends and self.nat.lets_in(self._ports[slot], server):
            self.lines.add((slot, server))
            self._later(self.rtt_s, Reached(slot, server))

    def _ask(self, ask: Ask) -> None:
        assert ask.slot in self.open
        doubled = any((at, one.slot, one.server) == (self.now, ask.slot, ask.server) for at, one in self.asked)
        self.asked.append((self.now, ask))
        dropped = len(self.asked) - 1 in self.drops
        if dropped and self.probe.transport == "udp":
            return
        if doubled and not self.servers.pipelines and self.probe.transport == "tcp":
            return
        port = self._ports[ask.slot]
        public = self.nat.out(port, ask.server)
        source = self.servers.source(ask)
        if ask.change and self.probe.transport == "tcp" and self.servers.changes:
            self._call(ask, source)
            return
        refused = self.strayed.get(port) if self.servers.tells else None
        if source is None:
            return
        if not self.nat.lets_in(port, source):
            if ask.change:
                self.strayed[port] = self.nat.rejects
            return
        if self.dice.random() < self.loss:
            return
        rtt_s = self.rtt_s + self.dice.random() * self.jitter_s
        stuck = self._stuck.setdefault((ask.slot, ask.server), [])
        stuck.append(Answered(ask.slot, source, Answer(ask.transaction, public, self.servers.second, refused=refused)))
        while stuck and not dropped:
            self._later(rtt_s, stuck.pop(0))

    def _call(self, ask: Ask, source: Endpoint | None) -> None:
        """Over TCP: from another port than those that are known, as the example server does."""
        caller = None if source is None else Endpoint(source.address, 50000)
        if caller is not None and ask.slot in self.listening and self.nat.lets_in(self._ports[ask.slot], caller):
            self._later(self.rtt_s, Called(ask.slot, caller))
        elif self.nat.lets_in(self._ports[ask.slot], ask.server):
            refused = self.nat.rejects if self.servers.tells else None
            after_s = self.rtt_s + (0.0 if self.nat.rejects else 2.0)
            self._later(after_s, Answered(ask.slot, ask.server, Answer(ask.transaction, error=447, refused=refused)))
