"""A modelled NAT: it behaves as the axes of its kind say (model_kinds.py).
It refuses to send anything: each packet is let through, translated, or not, and the net does the rest.

A box keeps two tables. A *mapping* is a public port and whom it serves: an inside port, and as much of the remote
endpoint as `Axes.mapping` says. A *session* is one inside port and one remote endpoint; filtering asks for it,
and for TCP it holds what Linux's connection tracking knows (model_track.py). A mapping lives as long as one of its
sessions. One host sits behind each box, so preserved ports never collide.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from punchd.lab import model_track as conntrack
from punchd.lab import pages
from punchd.lab.model_kinds import Axes, By, Ending, Kind, Pickup, Ports, Stray, Tracking
from punchd.lab.model_net import FIN, Carried, Datagram, IcmpError, Packet, Refused, Segment
from punchd.lab.model_track import Fate, Track
from punchd.words.events import ACK, RST, SYN

_PATIENCE_S = 6.0  # RFC 5382, REQ-4: how long a SYN may wait for one from inside
_KNOWN_S = 120.0  # how long late packets of an own flow are no strays
_TYPE = SYN | ACK | RST | FIN

Remote = tuple[str, int]
Flow = tuple[bool, int, Remote]  # stream, inside port, remote endpoint
Key = tuple[bool, int, Remote]  # stream, inside or public port, as much of the remote endpoint as the mapping minds


@dataclass(slots=True)
class _Session:
    """One inside port and one remote endpoint."""

    expires: float = 0.0
    replied: bool = False
    track: Track | None = None
    from_outside: bool = False


@dataclass(slots=True)
class _Mapping:
    """A public port and the inside port that it serves."""

    inside: int
    public: int
    flows: set[Flow] = field(default_factory=set)


class Nat:
    """One box. What passes comes back translated; None, or a refusal to be answered, if it dies here."""

    __slots__ = (
        "_blocked", "_by_inside", "_by_public", "_counted", "_dice", "_foreign_at", "_kind", "_known", "_sessions",
        "gateway", "public",
    )  # fmt: skip

    def __init__(self, kind: Kind, public: str, *, gateway: str = "", dice: random.Random | None = None) -> None:
        self._kind, self.public, self.gateway = kind, public, gateway or public
        self._dice = dice or random.Random(0)
        self._sessions: dict[Flow, _Session] = {}
        self._by_inside: dict[Key, _Mapping] = {}
        self._by_public: dict[Key, _Mapping] = {}
        self._known: dict[Flow, float] = {}  # public flows whose packets are no strays, until
        self._blocked: dict[str, float] = {}
        self._counted = 0  # ports that a sequential box has given away
        self._foreign_at = -1.0  # when neighbours will have taken the next

    @property
    def kind(self) -> Kind:
        """What it behaves as."""
        return self._kind

    def outbound(self, packet: Carried, now: float, remote: str = "") -> Carried | None:
        """A packet from inside to this address."""
        kind = self._kind
        if kind.tracking is Tracking.NOTHING:
            return packet
        stream = isinstance(packet, Segment)
        flow = (stream, packet.src, (remote, packet.dst))
        session = self._session(flow, now)
        ends = False
        if session is None:
            session = self._first(packet)
            if session is None:
                return None
            self._sessions[flow] = session
            self._refresh(session, now, stream=stream)
        elif isinstance(packet, Segment) and session.track is not None:
            fate = conntrack.follow(session.track, packet, reply=session.from_outside, liberal=kind.liberal)
            if fate is Fate.INVALID:
                return None
            if fate is Fate.PASSES:
                self._refresh(session, now, stream=stream)
            ends = fate is Fate.ENDS
        else:
            self._refresh(session, now, stream=stream)
        mapping = self._mapping(flow, now)
        self._known[(stream, mapping.public, flow[2])] = now + _KNOWN_S
        if ends:
            self._end(flow)
        return _translated(packet, src=mapping.public)

    def inbound(self, packet: Packet, now: float, remote: str = "") -> Packet | Refused | None:
        """A packet from this address to the public one, or an ICMP error about one that went there."""
        kind = self._kind
        if kind.tracking is Tracking.NOTHING:
            return packet
        sender = packet.sender if isinstance(packet, IcmpError) else remote
        if self._blocked.get(sender, now) > now:
            self._blocked[sender] = now + kind.timers.block
            return None
        if isinstance(packet, IcmpError):
            return self._error(packet, now, remote)
        resets = isinstance(packet, Segment) and packet.flags & RST != 0
        if resets and kind.rst is Ending.SWALLOWED:
            return None
        if isinstance(packet, Segment) and kind.drops_syn and packet.flags & _TYPE == SYN:
            return None
        stream, there = isinstance(packet, Segment), (remote, packet.src)
        mapping = self._by_public.get(self._key((stream, packet.dst, there)))
        flow = (stream, mapping.inside if mapping else 0, there)
        session = self._session(flow, now) if mapping else None
        if mapping is None or (session is None and not self._lets_in(flow, mapping, now)):
            return self._stray(packet, now, remote)
        passed = _translated(packet, dst=mapping.inside)
        if isinstance(packet, Datagram) or kind.tracking is Tracking.HOLES:
            if session is not None:
                session.replied = True
                if kind.tracking is Tracking.CONNTRACK or kind.timers.refreshed_from_outside:
                    self._refresh(session, now, stream=stream)
        elif not self._tracked(flow, session, packet, now):
            return self._stray(packet, now, remote)
        if resets and kind.rst is Ending.KILLS:
            self._kill(mapping)
        return passed

    def still_waits(self, packet: Segment, now: float, remote: str = "") -> bool:
        """Whether a SYN that was held has met none from inside."""
        mapping = self._by_public.get(self._key((True, packet.dst, (remote, packet.src))))
        return mapping is None or self._session((True, mapping.inside, (remote, packet.src)), now) is None

    # -- sessions ------------------------------------------------------------------------------------------------

    def _session(self, flow: Flow, now: float) -> _Session | None:
        session = self._sessions.get(flow)
        if session is not None and session.expires < now:
            self._end(flow)
            return None
        return session

    def _first(self, packet: Carried, *, from_outside: bool = False) -> _Session | None:
        """What this packet begins."""
        if isinstance(packet, Datagram):
            return _Session()
        pickup = self._kind.pickup
        if self._kind.tracking is Tracking.CONNTRACK:
            track = conntrack.begin(packet, loose=pickup is not Pickup.SYN)
            return _Session(track=track, from_outside=from_outside) if track else None
        begins = packet.flags & _TYPE == SYN or (pickup is Pickup.SYN_OR_ACK and packet.flags & _TYPE == ACK)
        return _Session() if begins or pickup is Pickup.ANYTHING else None

    def _refresh(self, session: _Session, now: float, *, stream: bool) -> None:
        timers = self._kind.timers
        if session.track is not None:
            life_s = timers.of(session.track)
        elif self._kind.tracking is Tracking.HOLES:
            life_s = timers.hole_tcp if stream else timers.hole_udp
        else:
            life_s = timers.udp_stream if session.replied else timers.udp_unreplied
        session.expires = now + life_s

    def _tracked(self, flow: Flow, session: _Session | None, segment: Segment, now: float) -> bool:
        """Conntrack's opinion of a segment from outside; False is INVALID."""
        if session is None:
            session = self._first(segment, from_outside=True)
            if session is None:
                return False
            self._sessions[flow] = session
            self._mapping(flow, now)
            self._refresh(session, now, stream=True)
            return True
        assert session.track is not None
        if self._kind.rst is Ending.KEEPS and segment.flags & RST:
            return True
        fate = conntrack.follow(session.track, segment, reply=not session.from_outside, liberal=self._kind.liberal)
        if fate is Fate.PASSES:
            self._refresh(session, now, stream=True)
        elif fate is Fate.ENDS:
            self._end(flow)
        return fate is not Fate.INVALID

    def _end(self, flow: Flow) -> None:
        """The session is over, and its mapping if that serves no other."""
        self._sessions.pop(flow, None)
        mapping = self._by_inside.get(self._key(flow))
        if mapping is not None:
            mapping.flows.discard(flow)
            if not mapping.flows:
                del self._by_inside[self._key(flow)]
                del self._by_public[self._key((flow[0], mapping.public, flow[2]))]

    def _kill(self, mapping: _Mapping) -> None:
        for flow in list(mapping.flows):
            self._end(flow)

    # -- mapping and filtering -----------------------------------------------------------------------------------

    def _axes(self, stream: bool) -> Axes:
        return self._kind.tcp if stream else self._kind.udp

    def _key(self, flow: Flow) -> Key:
        stream, port, remote = flow
        return stream, port, _minded(remote, self._axes(stream).mapping)

    def _mapping(self, flow: Flow, now: float) -> _Mapping:
        key = self._key(flow)
        mapping = self._by_inside.get(key)
        if mapping is not None and flow not in mapping.flows:
            for other in list(mapping.flows):
                self._session(other, now)  # what has expired goes, and the mapping with the last of it
            mapping = self._by_inside.get(key)
        if mapping is None:
            mapping = _Mapping(flow[1], self._draw(flow, now))
            self._by_inside[key] = mapping
            self._by_public[self._key((flow[0], mapping.public, flow[2]))] = mapping
        mapping.flows.add(flow)
        return mapping

    def _lets_in(self, flow: Flow, mapping: _Mapping, now: float) -> bool:
        """Whether filtering lets a stranger speak to the mapping."""
        filtering = self._axes(flow[0]).filtering
        wanted = _minded(flow[2], filtering)
        live = [other for other in list(mapping.flows) if self._session(other, now) is not None]
        return any(_minded(other[2], filtering) == wanted for other in live)

    def _draw(self, flow: Flow, now: float) -> int:
        """The public port of a new mapping."""
        ports = self._axes(flow[0]).ports
        if ports is Ports.PRESERVED:
            return flow[1]
        while True:
            port = self._dice.randrange(1024, 65536) if ports is Ports.RANDOM else self._count(now)
            if self._key((flow[0], port, flow[2])) not in self._by_public:
                return port

    def _count(self, now: float) -> int:
        """The next port after those that neighbours took meanwhile: Poisson, as real load is over a second or so."""
        if rate := self._kind.foreign:
            if self._foreign_at < 0:
                self._foreign_at = now + self._dice.expovariate(rate)
            while self._foreign_at <= now:
                self._counted += 1
                self._foreign_at += self._dice.expovariate(rate)
        order = pages.order(self._kind.step)
        port = order[self._counted % len(order)]
        self._counted += 1
        return port

    # -- what comes unasked --------------------------------------------------------------------------------------

    def _stray(self, packet: Carried, now: float, remote: str) -> Refused | None:
        known = self._known.get((isinstance(packet, Segment), packet.dst, (remote, packet.src)), now) > now
        match self._kind.stray:
            case Stray.REFUSED:
                return Refused(0.0)
            case Stray.HELD if isinstance(packet, Segment) and packet.flags & _TYPE == SYN:
                return Refused(_PATIENCE_S)
            case Stray.BLOCKS if not known:
                self._blocked[remote] = now + self._kind.timers.block
        return None

    def _error(self, error: IcmpError, now: float, remote: str) -> IcmpError | None:
        quoted = error.quoted
        stream, there = isinstance(quoted, Segment), (remote, quoted.dst)
        mapping = self._by_public.get(self._key((stream, quoted.src, there)))
        if mapping is None or self._kind.icmp is Ending.SWALLOWED:
            return None
        if self._session((stream, mapping.inside, there), now) is None:
            return None
        if self._kind.icmp is Ending.KILLS:
            self._kill(mapping)
        return IcmpError(error.type, error.code, error.sender, _translated(quoted, src=mapping.inside))


def _minded(remote: Remote, by: By) -> Remote:
    """As much of the remote endpoint as counts."""
    match by:
        case By.NOTHING:
            return ("", 0)
        case By.ADDRESS:
            return (remote[0], 0)
        case By.ADDRESS_AND_PORT:
            return remote


def _translated(packet: Carried, *, src: int | None = None, dst: int | None = None) -> Carried:
    """The packet with other ports; itself where they are the same."""
    src, dst = packet.src if src is None else src, packet.dst if dst is None else dst
    if (src, dst) == (packet.src, packet.dst):
        return packet
    if isinstance(packet, Datagram):
        return Datagram(src, dst, packet.data, packet.ttl)
    return Segment(src, dst, packet.flags, packet.seq, packet.ack, packet.window, packet.ttl, packet.length)
