"""A modelled NAT: it behaves as the axes of its kind say (model_kinds.py).
It refuses to send anything: each packet is let through, translated, or not, and the net does the rest.

A box keeps two tables. A *mapping* is a public port and whom it serves: an inside port, and as much of the remote
endpoint as `Axes.mapping` says. A *session* is one inside port and one remote endpoint; filtering asks for it,
and for TCP it holds what Linux's connection tracking knows (model_track.py). A mapping lives as long as one of its
sessions. A port that is to be kept and is taken, by a stray or by another host, gets a random one instead.
"""

from __future__ import annotations

import math
import random
from collections.abc import Hashable
from dataclasses import dataclass, field

from punchd.lab import model_session, pages
from punchd.lab.model_kinds import Ending, Kind, Ports, Say, Stray, Tracking
from punchd.lab.model_net import SEQ_MASK, Carried, Datagram, IcmpError, Packet, Refused, Segment
from punchd.lab.model_session import TYPE, Session
from punchd.lab.model_track import ENDS, INVALID, PASSES
from punchd.words.events import ACK, RST, SYN

_PATIENCE_S = 6.0  # RFC 5382, REQ-4: how long a SYN may wait for one from inside
_KNOWN_S = 120.0  # how long late packets of an own flow are no strays

Remote = tuple[str, int]
Flow = tuple[bool, int, Remote]  # stream, inside port, remote endpoint
Key = tuple[bool, int, tuple[str | int, ...]]  # stream, inside or public port, as much of the remote as is minded


@dataclass(slots=True)
class _Mapping:
    """A public port and the inside port that it serves."""

    inside: int
    public: int
    flows: set[Flow] = field(default_factory=set)


class Nat:
    """One box. What passes comes back translated; None, or a refusal to be answered, if it dies here."""

    __slots__ = (
        "_axes", "_blocked", "_by_inside", "_by_public", "_counted", "_dice", "_foreign_at", "_kind", "_known",
        "_occupied", "_sessions", "_tracks", "gateway", "is_end", "passes_errors", "public",
    )  # fmt: skip

    def __init__(self, kind: Kind, public: str, *, gateway: str = "", dice: random.Random | None = None) -> None:
        self._kind, self.public, self.gateway = kind, public, gateway or public
        self._axes = kind.udp, kind.tcp  # by whether it is a stream
        self._tracks = kind.tracking is not Tracking.NOTHING
        self.is_end, self.passes_errors = False, kind.icmp is not Ending.SWALLOWED
        self._dice = dice or random.Random(0)
        self._sessions: dict[Flow, Session] = {}
        self._by_inside: dict[Key, _Mapping] = {}
        self._by_public: dict[Key, _Mapping] = {}
        self._known: dict[Flow, float] = {}  # public flows whose packets are no strays, until
        self._occupied: dict[Flow, float] = {}  # public flows that strays have taken, until
        self._blocked: dict[str, float] = {}
        self._counted = 0  # ports that a sequential box has given away
        self._foreign_at = -1.0  # when neighbours will have taken the next

    def outbound(self, packet: Carried, now: float, remote: str = "") -> Carried | None:
        """A packet from inside to this address."""
        kind = self._kind
        if not self._tracks:
            return packet
        stream = isinstance(packet, Segment)
        flow = (stream, packet.src, (remote, packet.dst))
        session = self._session(flow, now)
        fate = PASSES
        if session is None:
            session = model_session.begin(kind, packet)
            if session is None:
                return None
            if kind.rewrites:
                session.offset = self._dice.getrandbits(32)
            self._sessions[flow] = session
        else:
            fate = session.leaves(packet)
        if fate is INVALID:
            return None
        if fate is PASSES:
            session.expires = now + session.life_s(stream=stream)
        mapping = self._mapping(flow, now)
        self._known[(stream, mapping.public, flow[2])] = now + _KNOWN_S
        if fate is ENDS:
            self._end(flow)
        if isinstance(packet, Segment) and packet.flags & RST and kind.rst_out is Ending.KILLS:
            self._kill(mapping)
        return _translated(packet, src=mapping.public, seq_by=session.offset)

    def inbound(self, packet: Packet, now: float, remote: str = "") -> Packet | Refused | None:
        """A packet from this address to the public one, or an ICMP error about one that went there."""
        kind = self._kind
        if not self._tracks:
            return packet
        if self._blocked and self._is_blocked(packet.sender if isinstance(packet, IcmpError) else remote, now):
            return None
        if isinstance(packet, IcmpError):
            return self._error(packet, now, remote)
        stream, there = isinstance(packet, Segment), (remote, packet.src)
        if isinstance(packet, Segment) and _dies_at_the_door(kind, packet):
            return None
        mapping = self._by_public.get(self._key((stream, packet.dst, there)))
        flow = (stream, mapping.inside if mapping else 0, there)
        session = self._session(flow, now) if mapping else None
        if mapping is None or (session is None and not self._lets_in(flow, mapping, now)):
            return self._stray(packet, now, remote)
        passed = _translated(packet, dst=mapping.inside, ack_by=-session.offset if session else 0)
        if session is not None:
            fate = session.comes(passed)
            if fate is INVALID:
                return self._stray(packet, now, remote)
            if fate is PASSES:
                session.expires = now + session.life_s(stream=stream)
            elif fate is ENDS:
                self._end(flow)
        elif kind.tracking is Tracking.CONNTRACK and isinstance(passed, Segment):
            session = model_session.begin(kind, passed, from_outside=True)
            if session is None:
                return self._stray(packet, now, remote)
            session.expires = now + session.life_s(stream=True)
            self._sessions[flow] = session
            self._mapping(flow, now)
        if isinstance(packet, Segment) and packet.flags & RST and kind.rst is Ending.KILLS:
            self._kill(mapping)
        return passed

    def still_waits(self, packet: Segment, now: float, remote: str = "") -> bool:
        """Whether a SYN that was held has met none from inside."""
        mapping = self._by_public.get(self._key((True, packet.dst, (remote, packet.src))))
        return mapping is None or self._session((True, mapping.inside, (remote, packet.src)), now) is None

    def state(self) -> Hashable:
        """All that the box remembers, but for the times at which it forgets: equal states answer all packets alike."""
        return (
            frozenset((flow, session.memory()) for flow, session in self._sessions.items()),
            frozenset((key, mapping.public) for key, mapping in self._by_inside.items()),
            frozenset(self._known), self.punished, frozenset(self._occupied), self._counted,
        )  # fmt: skip

    @property
    def punished(self) -> frozenset[str]:
        """Who has been blocked for strays, be it over by now."""
        return frozenset(self._blocked)

    def life_s(self, packet: Carried, now: float, remote: str = "") -> float:
        """How long the session of this packet from inside lives without another."""
        if not self._tracks:
            return math.inf
        session = self._session((isinstance(packet, Segment), packet.src, (remote, packet.dst)), now)
        return session.expires - now if session is not None else 0.0

    # -- sessions ------------------------------------------------------------------------------------------------

    def _session(self, flow: Flow, now: float) -> Session | None:
        session = self._sessions.get(flow)
        if session is not None and session.expires < now:
            self._end(flow)
            return None
        return session

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

    def _key(self, flow: Flow) -> Key:
        stream, port, remote = flow
        return stream, port, remote[: self._axes[stream].mapping]

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
        filtering = self._axes[flow[0]].filtering
        wanted = flow[2][:filtering]
        live = [other for other in list(mapping.flows) if self._session(other, now) is not None]
        return any(other[2][:filtering] == wanted for other in live)

    def _draw(self, flow: Flow, now: float) -> int:
        """The public port of a new mapping."""
        stream, inside, remote = flow
        ports = self._axes[stream].ports
        port = inside % 65536 if ports is Ports.PRESERVED else -1  # of a leg's port (model_shared.py) the lower half
        while port < 0 or self._is_taken((stream, port, remote), now):
            port = self._count(now) if ports is Ports.SEQUENTIAL else self._dice.randrange(1024, 65536)
        return port

    def _is_taken(self, public: Flow, now: float) -> bool:
        return self._key(public) in self._by_public or self._occupied.get(public, now) > now

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

    def _is_blocked(self, sender: str, now: float) -> bool:
        """Whether it is not heard for what it sent before; each arrival begins that time anew."""
        blocked = self._blocked.get(sender, now) > now
        if blocked:
            self._blocked[sender] = now + self._kind.timers.block
        return blocked

    def _stray(self, packet: Carried, now: float, remote: str) -> Refused | None:
        public = (isinstance(packet, Segment), packet.dst, (remote, packet.src))
        known = self._known.get(public, now) > now
        if self._axes[public[0]].occupies and self._key(public) not in self._by_public:
            self._occupied[public] = now + self._kind.timers.occupied
        match self._kind.stray:
            case Stray.REFUSED:
                return Refused(0.0)
            case Stray.HELD if isinstance(packet, Segment) and packet.flags & TYPE == SYN:
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
        session = self._session((stream, mapping.inside, there), now)
        if session is None:
            return None
        if self._kind.icmp is Ending.KILLS:
            self._kill(mapping)
        inner = _translated(quoted, src=mapping.inside, seq_by=-session.offset)
        return IcmpError(error.type, error.code, error.sender, inner)


def _dies_at_the_door(kind: Kind, segment: Segment) -> bool:
    """What is dropped whether or not somebody asked for it."""
    if segment.flags & RST:
        return kind.rst is Ending.SWALLOWED
    return segment.flags & TYPE == SYN and kind.odd.syn_in is Say.DROPPED


def _translated(
    packet: Carried, *, src: int | None = None, dst: int | None = None, seq_by: int = 0, ack_by: int = 0
) -> Carried:  # fmt: skip
    """The packet with other ports and numbers; itself where they are the same."""
    src, dst = packet.src if src is None else src, packet.dst if dst is None else dst
    if src == packet.src and dst == packet.dst and not (seq_by or ack_by):
        return packet
    if isinstance(packet, Datagram):
        return Datagram(src, dst, packet.data, packet.ttl)
    seq, ack = (packet.seq + seq_by) & SEQ_MASK, (packet.ack + ack_by) & SEQ_MASK if packet.flags & ACK else packet.ack
    return Segment(src, dst, packet.flags, seq, ack, packet.window, packet.ttl, packet.length)
