"""One session of a modelled NAT: what the box knows of an inside port and one remote endpoint, and what it lets pass.
It refuses to know of mappings and ports; model_nat.py asks it only about packets that belong to it.

A segment is judged first by the axes on which NATs disagree (`Odd`, `rst`, `rst_out`), then by the tracker.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from punchd.lab import model_track as conntrack
from punchd.lab.model_kinds import Ending, Kind, Pickup, Say, Tracking
from punchd.lab.model_net import FIN, Carried, Datagram, Segment
from punchd.lab.model_track import INVALID, PASSES, RESTS, Fate, Track
from punchd.words.events import ACK, RST, SYN

TYPE = SYN | ACK | RST | FIN
_FATES = {Say.PASSES: RESTS, Say.DROPPED: INVALID}
_TRACKED, _HOLES = Say.TRACKED, Tracking.HOLES


def begin(kind: Kind, packet: Carried, *, from_outside: bool = False) -> Session | None:
    """What this packet begins; None: it may not."""
    if isinstance(packet, Datagram):
        return Session(kind)
    first = packet.flags & TYPE
    if kind.tracking is Tracking.CONNTRACK:
        track = conntrack.begin(packet, loose=kind.pickup is not Pickup.SYN)
        begins = track is not None
    else:
        track = None
        picked_up = kind.pickup is Pickup.SYN_OR_ACK and first == ACK
        begins = first == SYN or picked_up or kind.pickup is Pickup.ANYTHING
    if not begins:
        return None
    return Session(kind, track, from_outside, packet.end if first == SYN and not from_outside else None)


@dataclass(slots=True)
class Session:
    """`syn_end` is the number behind the SYN from inside, `offset` what the box adds to numbers from inside.

    `replied`: something has come in. `from_outside`: it began there.
    """

    kind: Kind
    track: Track | None = None
    from_outside: bool = False
    syn_end: int | None = None
    replied: bool = False
    offset: int = 0
    expires: float = 0.0

    def leaves(self, packet: Carried) -> Fate:
        """A packet from inside, not the first."""
        if isinstance(packet, Datagram):
            return PASSES
        says = self._of_leaving(packet)
        if says is _TRACKED and packet.flags & RST:
            says = _of_ending(self.kind.rst_out)
        if says is not _TRACKED:
            return _FATES[says]
        fate = self._follow(packet, reply=self.from_outside)
        if self.syn_end is not None and fate is not INVALID and packet.flags & TYPE == SYN:
            self.syn_end = packet.end
        return fate

    def comes(self, packet: Carried) -> Fate:
        """A packet from outside."""
        if isinstance(packet, Datagram):
            self.replied = True
            return self._holes(PASSES)
        says = _TRACKED
        if packet.flags & RST:
            says = _of_ending(self.kind.rst)
        elif packet.flags & TYPE == SYN | ACK and self.syn_end not in (None, packet.ack):
            says = self.kind.odd.syn_ack_in
        fate = self._holes(self._follow(packet, reply=not self.from_outside)) if says is _TRACKED else _FATES[says]
        self.replied |= fate is not INVALID
        return fate

    def life_s(self, *, stream: bool) -> float:
        """How long it lives after a packet that refreshes it."""
        timers = self.kind.timers
        if self.track is not None:
            return timers.of(self.track)
        if self.kind.tracking is _HOLES:
            return timers.hole_tcp if stream else timers.hole_udp
        return timers.udp_stream if self.replied else timers.udp_unreplied

    def memory(self) -> Hashable:
        """All that it knows but its time."""
        return self.track and self.track.memory(), self.from_outside, self.syn_end, self.replied, self.offset

    def _of_leaving(self, segment: Segment) -> Say:
        if self.syn_end is None:
            return _TRACKED
        odd, kind = self.kind.odd, segment.flags & TYPE
        if not self.replied and kind == SYN | ACK:
            return odd.syn_ack_out
        if not self.replied and kind == ACK:
            return odd.ack_out
        return odd.new_number if kind & SYN and segment.end != self.syn_end else _TRACKED

    def _follow(self, segment: Segment, *, reply: bool) -> Fate:
        if self.track is None:
            return PASSES
        return conntrack.follow(self.track, segment, reply=reply, liberal=self.kind.liberal)

    def _holes(self, fate: Fate) -> Fate:
        """Packets from outside don't prolong a hole, unless the axis says so."""
        keeps = self.kind.tracking is _HOLES and not self.kind.timers.refreshed_from_outside
        return RESTS if keeps and fate is PASSES else fate


def _of_ending(ending: Ending) -> Say:
    """What becomes of the RST itself. What KILLS ends is the mapping, and model_nat.py ends it."""
    match ending:
        case Ending.TRACKED | Ending.KILLS:
            return Say.TRACKED
        case Ending.KEEPS:
            return Say.PASSES
        case Ending.SWALLOWED:
            return Say.DROPPED
