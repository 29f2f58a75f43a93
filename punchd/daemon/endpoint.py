"""Runs the probes of one `endpoint` request: feeds each its events, performs its effects, arms its one timer.
Decides nothing: what to ask is core/probe.py's, what the caller reads is the session's.

A search has a side per transport: a probe, the ports it has taken, its TCP lines. Bytes become words here, between
edge/stun.py and wire/stun.py. A side that has found nothing is over; the others go on. Beside them it sounds the way to
the first server, for the TTL that clears the own NATs, and finds whether a mapping at that server outlives ICMP errors.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import structlog
from msgspec.structs import replace

from punchd.core.classify import wary
from punchd.core.mortality import told
from punchd.core.ports import Ports
from punchd.core.probe import Probe
from punchd.core.ttl import LEAST, clearing, reaching
from punchd.daemon.mourner import Mourner
from punchd.daemon.sounder import Sounder
from punchd.edge import stun as edge
from punchd.wire import stun as wire
from punchd.words import probing as do
from punchd.words.addresses import Endpoint
from punchd.words.events import Cancelled, DeadlinePassed
from punchd.words.hops import Reach, Way
from punchd.words.nat import Descriptor
from punchd.words.probing import Finding, KeptPort, LineEnded, Observation

log: Any = structlog.get_logger()

PORT_DRAWS = 1500  # fans hold runs of 256 neighbouring ports, which come one after the other
DATAGRAMS_PER_WAKE = 64
SAMPLE_LIFE_MS = 3_600_000
_TAKEN = (errno.EADDRINUSE, errno.EACCES)


class Seeker(Protocol):
    """Who is told what a search finds; `name` is for the log."""

    @property
    def name(self) -> str: ...

    def asks(self, transport: str, local: Endpoint, server: Endpoint, now: float) -> None: ...
    def sounds(self, local: str, now: float) -> None: ...
    def observed(self, observation: Observation) -> None: ...
    def found(
        self, descriptor: Descriptor | None, findings: list[Finding], way: Way, reach: Reach | None, *, kept: bool
    ) -> None: ...
    def lost(self, transport: str) -> None: ...
    def broke(self, error: Exception) -> None: ...


class Search:
    """One request at work."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        probes: Iterable[Probe],
        ports: Ports,
        seeker: Seeker,
        *,
        kept: set[KeptPort],
        peer: Descriptor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`kept`: where the ports are put down that punches may share. `peer`: whom the way is sounded to, too."""
        self.seeker, self.kept = seeker, kept
        self._loop, self._clock, self._telling, self._broken = loop, clock, False, False
        self._sides = [_Side(self, loop, probe, ports, clock) for probe in probes]
        first = self._sides[0].probe
        self._sounder = Sounder(loop, first.local, first.servers[0], expires=first.expires, clock=clock, owner=self)
        self._mourner = Mourner(loop, first.local, first.servers[0], expires=first.expires, clock=clock, owner=self)
        self._peer, self._far = peer, None
        if peer is not None:
            self._far = Sounder(
                loop, first.local, _public(peer), expires=first.expires, clock=clock, owner=self, through=True
            )

    def begin(self) -> None:
        """Ask; the seeker hears everything else. The hops first: no mapping of theirs comes between two samples."""
        for sounder in self._sounders():
            sounder.begin()
        self._mourner.begin()
        for side in self._sides:
            side.begin()

    def stop(self) -> None:
        """Close all ports. The seeker hears nothing more."""
        for sounder in self._sounders():
            sounder.stop()
        self._mourner.stop()
        for side in self._sides:
            side.feed(Cancelled(""))

    def found(self) -> None:
        """Something is new: tell it once the present step is over, when it is known whether a probe is done."""
        if self._sounder.settled:
            self._mourner.sounded(self._sounder.hops)
        if not self._telling:
            self._telling = True
            self._loop.call_soon(self._guarded_tell)

    def _guarded_tell(self) -> None:
        self._telling = False
        try:
            self._tell()
        except Exception as error:
            self.broke(error)

    def _tell(self) -> None:
        """All sides must have had their say before the seeker hears the first word."""
        findings = [side.probe.finding for side in self._sides]
        said = [told(finding, self._mourner.outlives) for finding in findings if finding is not None]
        if len(said) < len(findings):
            return
        said = wary(said)
        publics = {finding.face.public.address for finding in said if finding.face is not None}
        if publics and not (self._mourner.settled and all(sounder.settled for sounder in self._sounders())):
            return
        for sounder in self._sounders():
            sounder.stop()
        self._mourner.stop()
        kept = any(not side.probe.done for side in self._sides)
        way = clearing(self._sounder.hops, publics)
        descriptor = describe(said, self._sides[0].probe.local, round(time.time() * 1000), ttl=way.ttl)
        self.seeker.found(descriptor, said, way, self._reach(), kept=kept)

    def _reach(self) -> Reach | None:
        """What was found of the peer: without a NAT, the hops that its own TTL clears lie before its address."""
        if self._peer is None or self._far is None:
            return None
        public = _public(self._peer).address
        own = (self._peer.ttl or LEAST) - 1 if self._peer.host == public else 0
        return reaching(self._far.hops, public, own=own)

    def _sounders(self) -> list[Sounder]:
        return [self._sounder] if self._far is None else [self._sounder, self._far]

    def sounds(self) -> None:
        """A sounder's packet has left, which makes a mapping if it gets as far as our NAT."""
        self.seeker.sounds(self._sides[0].probe.local, self._clock())

    def broke(self, error: Exception) -> None:
        """A bug of ours ends this search, and no other."""
        log.exception("bug", endpoint=self.seeker.name)
        if not self._broken:
            self._broken = True
            self.stop()
            self.seeker.broke(error)


def describe(findings: Iterable[Finding], host: str, made_ms: int, *, ttl: int | None = None) -> Descriptor | None:
    """The descriptor of what was found, without samples too old to predict by; None where no transport has a face.

    `made_ms` may lie before a sample, or far behind it: the clock of a host can be set.
    """
    faces = {
        finding.transport: replace(
            finding.face,
            samples=tuple(one for one in finding.face.samples if 0 <= made_ms - one.at_ms < SAMPLE_LIFE_MS),
        )
        for finding in findings
        if finding.face is not None
    }
    return Descriptor(host, made_ms, faces.get("tcp"), faces.get("udp"), ttl) if faces else None


def _public(peer: Descriptor) -> Endpoint:
    """Where a peer is seen. Its UDP port, if it has one: any other may be a service of its router."""
    face = peer.udp or peer.tcp
    assert face is not None
    return face.public


class _Side:
    """One transport of a search."""

    def __init__(
        self, search: Search, loop: asyncio.AbstractEventLoop, probe: Probe, ports: Ports, clock: Callable[[], float]
    ) -> None:
        self.probe = probe
        self._search, self._loop, self._draw, self._clock = search, loop, ports, clock
        self._mapped: set[tuple[int, Endpoint]] = set()
        self._now = clock()
        self._inbox: deque[do.ProbeEvent] = deque()
        self._busy = False
        self._timer: asyncio.TimerHandle | None = None
        self._ports: dict[int, edge.Datagrams | edge.Anchor] = {}
        self._lines: dict[tuple[int, Endpoint], edge.Line] = {}
        self._heads: dict[edge.Line, bytearray] = {}
        self._table: dict[type[Any], Callable[[Any], None]] = {
            do.OpenPort: self._open_port, do.ClosePort: self._close_port, do.Dial: self._dial, do.HangUp: self._hang_up,
            do.Listen: self._listen, do.Ask: self._ask, do.Observed: self._observed, do.Found: self._found,
            do.Lost: self._lost,
        }  # fmt: skip

    def begin(self) -> None:
        self._work(self.probe.begin)

    def feed(self, event: do.ProbeEvent) -> None:
        """Step the probe with this event and with all that its effects bring about."""
        self._inbox.append(event)
        if not self._busy:
            self._work(list)

    def _work(self, first: Callable[[], list[do.ProbeEffect]]) -> None:
        self._busy = True
        try:
            self._perform(first())
            while self._inbox:
                self._now = self._clock()
                self._perform(self.probe.step(self._inbox.popleft(), self._now))
        except Exception as error:
            self._inbox.clear()
            self._busy = False
            self._drop_all()
            self._search.broke(error)
            return
        self._busy = False
        self._arm()

    def _perform(self, effects: list[do.ProbeEffect]) -> None:
        for effect in effects:
            self._table[type(effect)](effect)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self.probe.deadline
        if deadline is not None:
            wait_s = max(0.0, deadline - self._clock())
            self._timer = self._loop.call_later(wait_s, self.feed, DeadlinePassed())

    # -- effects, in the order of words/probing.py -----------------------------------------------------------------

    def _open_port(self, effect: do.OpenPort) -> None:
        cause = ""
        for _ in range(PORT_DRAWS):
            number, _ = self._draw.draw()
            try:
                port = edge.open_port(self.probe.transport, (self.probe.local, number))
            except OSError as error:
                cause = f"port {number}: {error.strerror}"
                if error.errno not in _TAKEN:
                    break
            else:
                self._ports[effect.slot] = port
                self._search.kept.add(KeptPort(self.probe.transport, *port.local))
                if isinstance(port, edge.Datagrams):
                    self._loop.add_reader(port, self._on_datagrams, effect.slot, port)
                self._inbox.append(do.PortOpened(effect.slot, number))
                return
        self._inbox.append(do.PortFailed(effect.slot, cause))

    def _close_port(self, effect: do.ClosePort) -> None:
        for slot, server in list(self._lines):
            if slot == effect.slot:
                self._drop_line(slot, server)
        port = self._ports.pop(effect.slot, None)
        if port is not None:
            self._search.kept.discard(KeptPort(self.probe.transport, *port.local))
            self._loop.remove_reader(port)
            port.close()

    def _dial(self, effect: do.Dial) -> None:
        try:
            line = edge.Line(self._ports[effect.slot].local, effect.server)
        except OSError as error:
            self._inbox.append(LineEnded(effect.slot, effect.server, str(error.strerror)))
            return
        self._lines[effect.slot, effect.server] = line
        self._maps(effect.slot, effect.server)
        self._loop.add_writer(line, self._on_connected, effect.slot, line)

    def _hang_up(self, effect: do.HangUp) -> None:
        self._drop_line(effect.slot, effect.server)

    def _listen(self, effect: do.Listen) -> None:
        port = self._ports[effect.slot]
        assert isinstance(port, edge.Anchor)
        try:
            port.listen()
        except OSError:
            return  # nobody will be heard: the server says that it called in vain, or nothing
        self._loop.add_reader(port, self._on_called, effect.slot, port)

    def _ask(self, effect: do.Ask) -> None:
        request = wire.encode_request(effect.transaction, effect.change)
        port = self._ports[effect.slot]
        try:
            if isinstance(port, edge.Datagrams):
                self._maps(effect.slot, effect.server)
                port.send(request, effect.server)
            else:
                self._lines[effect.slot, effect.server].send(request)
        except OSError as error:
            self._inbox.append(LineEnded(effect.slot, effect.server, str(error.strerror)))

    def _maps(self, slot: int, server: Endpoint) -> None:
        """The first packet from a port to a server makes a mapping, at NATs of many kinds."""
        if (slot, server) not in self._mapped:
            self._mapped.add((slot, server))
            local = Endpoint(*self._ports[slot].local)
            self._search.seeker.asks(self.probe.transport, local, server, self._now)

    def _observed(self, effect: do.Observed) -> None:
        self._search.seeker.observed(effect.observation)

    def _found(self, effect: do.Found) -> None:
        self._search.found()

    def _lost(self, effect: do.Lost) -> None:
        self._search.seeker.lost(self.probe.transport)

    # -- sockets ---------------------------------------------------------------------------------------------------

    def _on_datagrams(self, slot: int, port: edge.Datagrams) -> None:
        for _ in range(DATAGRAMS_PER_WAKE):
            came = port.receive()
            if came is None:
                return
            self._on_message(slot, *came)
            if port.closed:
                return

    def _on_called(self, slot: int, port: edge.Anchor) -> None:
        source = port.called()
        if source is not None:
            self.feed(do.Called(slot, source))

    def _on_connected(self, slot: int, line: edge.Line) -> None:
        self._loop.remove_writer(line)
        failure = line.failure()
        if failure:
            self._end_line(slot, line, errno.errorcode.get(failure, str(failure)))
            return
        self._heads[line] = bytearray()
        self._loop.add_reader(line, self._on_readable, slot, line)
        self.feed(do.Reached(slot, line.server))

    def _on_readable(self, slot: int, line: edge.Line) -> None:
        head = self._heads[line]
        try:
            came = line.receive(wire.MESSAGE_MAX_LEN - len(head))
        except OSError as error:
            self._end_line(slot, line, str(error.strerror))
            return
        if came is None:
            return
        if not came:
            self._end_line(slot, line, "closed by the server")
        head += came
        while line in self._heads:  # two answers may come as one
            try:
                length = wire.message_len(bytes(head))
            except ValueError as error:
                self._end_line(slot, line, str(error))
                return
            if length is None or len(head) < length:
                return
            message = bytes(head[:length])
            del head[:length]
            self._on_message(slot, message, line.server)

    def _on_message(self, slot: int, message: bytes, source: Endpoint) -> None:
        answer = wire.decode_answer(message)
        if answer is not None:
            self.feed(do.Answered(slot, source, answer))

    def _end_line(self, slot: int, line: edge.Line, cause: str) -> None:
        self._drop_line(slot, line.server)
        self.feed(LineEnded(slot, line.server, cause))

    def _drop_line(self, slot: int, server: Endpoint) -> None:
        line = self._lines.pop((slot, server), None)
        if line is not None:
            self._loop.remove_writer(line)
            self._loop.remove_reader(line)
            self._heads.pop(line, None)
            line.close()

    def _drop_all(self) -> None:
        for slot in list(self._ports):
            self._close_port(do.ClosePort(slot))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
