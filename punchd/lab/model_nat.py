"""The modelled NATs: kinds described by axes, and Linux's connection tracking as the strictest of their trackers.
It refuses to send anything: each packet is let through or not, and the net does the rest.

The kinds bear the names of the kernel lab's pages and are held to them by tests/lab/test_model_agrees.py. All of
them keep ports, and one host sits behind each, so a mapping is its port and the model need not rewrite packets.

Connection tracking follows nf_conntrack_proto_tcp.c of Linux 6: its table of transitions (`_NEXT`), its window
check (`_in_window`), and its two rules for a RST. FIN and the closing states are folded into CLOSING, which
tracks nothing more: no technique closes a connection in the middle of punching.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from punchd.lab.model_net import FIN, SEQ_MASK, Carried, Datagram, IcmpError, Packet, Segment
from punchd.words.events import ACK, RST, SYN

_HOLE_S = 120.0
_UDP_UNREPLIED_S, _UDP_STREAM_S = 30.0, 120.0
_PICKED_UP_S = 300.0  # nf_conntrack_tcp_timeout_unacknowledged


class Tracking(Enum):
    """What a box remembers. NOTHING: everything passes. HOLES: 4-tuples seen from inside. CONNTRACK: states."""

    NOTHING = auto()
    HOLES = auto()
    CONNTRACK = auto()


@dataclass(frozen=True, slots=True)
class Kind:
    """A NAT by its axes.

    translates  the host behind it has a private address
    answers     strays from outside get a RST or port unreachable
    drops_syn   no bare SYN comes in, whatever the state
    liberal     nf_conntrack_tcp_be_liberal: no window check
    loose       nf_conntrack_tcp_loose: a first ACK from inside makes a connection
    """

    name: str
    tracking: Tracking
    translates: bool = True
    answers: bool = False
    drops_syn: bool = False
    liberal: bool = False
    loose: bool = True


KINDS = {
    kind.name: kind
    for kind in (
        Kind("open", Tracking.NOTHING, translates=False),
        Kind("firewall", Tracking.CONNTRACK, translates=False),
        Kind("linux", Tracking.CONNTRACK),
        Kind("linux-reject", Tracking.CONNTRACK, answers=True),
        Kind("linux-synfilter", Tracking.CONNTRACK, drops_syn=True),
        Kind("linux-liberal", Tracking.CONNTRACK, liberal=True),
        Kind("linux-noloose", Tracking.CONNTRACK, loose=False),
        Kind("untracked", Tracking.HOLES),
    )
}

Key = tuple[bool, int, int]  # stream, port inside, port outside


class Nat:
    """One box. True means the packet goes on; False, that it dies here (and is answered, if the kind answers)."""

    __slots__ = ("_kind", "_tracks", "answers", "public")

    def __init__(self, kind: Kind, public: str) -> None:
        self._kind, self.public, self.answers = kind, public, kind.answers
        self._tracks: dict[Key, _Track] = {}

    def outbound(self, packet: Carried, now: float) -> bool:
        """A packet from the host."""
        if self._kind.tracking is Tracking.NOTHING:
            return True
        key = (isinstance(packet, Segment), packet.src, packet.dst)
        track = self._get(key, now)
        if self._kind.tracking is Tracking.HOLES:
            track = self._tracks.setdefault(key, _Track())
            track.expires = now + _HOLE_S
            return True
        if isinstance(packet, Datagram):
            track = self._tracks.setdefault(key, _Track())
            track.expires = now + (_UDP_STREAM_S if track.replied else _UDP_UNREPLIED_S)
            return True
        if track is None:
            return self._new(key, packet, now)
        return self._follow(key, track, packet, now, reply=False)

    def inbound(self, packet: Packet, now: float) -> bool:
        """A packet for the host, or an ICMP error about one of its own."""
        if self._kind.tracking is Tracking.NOTHING:
            return True
        if isinstance(packet, IcmpError):
            key = (isinstance(packet.quoted, Segment), packet.quoted.src, packet.quoted.dst)
            return self._kind.tracking is Tracking.CONNTRACK and self._get(key, now) is not None
        stream = isinstance(packet, Segment)
        key = (stream, packet.dst, packet.src)
        track = self._get(key, now)
        if self._kind.tracking is Tracking.HOLES:
            return track is not None
        if isinstance(packet, Segment) and self._kind.drops_syn and packet.flags & (SYN | ACK | RST | FIN) == SYN:
            return False
        if track is None:
            return False
        if isinstance(packet, Datagram):
            track.replied, track.expires = True, now + _UDP_STREAM_S
            return True
        return self._follow(key, track, packet, now, reply=True)

    def _get(self, key: Key, now: float) -> _Track | None:
        track = self._tracks.get(key)
        if track is not None and track.expires < now:
            del self._tracks[key]
            return None
        return track

    def _new(self, key: Key, segment: Segment, now: float) -> bool:
        """tcp_new(): a SYN, or with `loose` an ACK, which is then checked no more."""
        index = _index(segment)
        if index == _SYN:
            track = _Track(State.SYN_SENT)
            track.out.begin(segment)
            track.out.maxend = track.out.end
        elif index == _ACK and self._kind.loose:
            track = _Track(State.ESTABLISHED)
            track.liberal = True
        else:
            return False
        track.expires = now + (_PICKED_UP_S if track.liberal else _LIFE_S[State.SYN_SENT])
        self._tracks[key] = track
        return True

    def _follow(self, key: Key, track: _Track, segment: Segment, now: float, *, reply: bool) -> bool:
        """nf_conntrack_tcp_packet()."""
        index, state = _index(segment), track.state
        if state not in _NEXT[reply][index]:
            return False
        new = _NEXT[reply][index][state]
        if new is None:
            track.replied |= reply
            return True
        sender, receiver = (track.back, track.out) if reply else (track.out, track.back)
        if new is State.SYN_SENT2:
            track.simultaneous = True
        elif new is State.SYN_RECV and reply and index == _ACK and track.simultaneous:
            new = State.ESTABLISHED
        liberal = track.liberal or self._kind.liberal
        if index == _RST and receiver.maxack is not None:
            if _before(segment.seq, receiver.maxack) and not liberal:
                return False
            if state is State.ESTABLISHED and segment.seq != receiver.maxack:
                new = state  # the peer may still challenge it
        if not track.liberal:
            passes = _in_window(track, sender, receiver, segment, reply=reply)
            if passes is None and not liberal:
                track.replied |= reply
                return True
            if not passes and not liberal:
                return False
        track.state = new
        if index == _RST and not track.replied:
            del self._tracks[key]  # nobody had ever answered
            return True
        track.replied |= reply
        if new is not State.SYN_SENT:  # a repeated SYN does not make it live longer
            unreplied = new is State.ESTABLISHED and not track.replied
            track.expires = now + (_PICKED_UP_S if unreplied else _LIFE_S[new])
        return True


class State(Enum):
    """enum tcp_conntrack, the closing half folded into one."""

    SYN_SENT = auto()
    SYN_SENT2 = auto()
    SYN_RECV = auto()
    ESTABLISHED = auto()
    CLOSING = auto()
    CLOSE = auto()


class _Seen:
    """struct ip_ct_tcp_state: what one direction has sent. Window 0 means nothing yet."""

    __slots__ = ("end", "maxack", "maxend", "window")

    def __init__(self) -> None:
        self.end = self.maxend = self.window = 0
        self.maxack: int | None = None

    def begin(self, segment: Segment) -> None:
        self.end = self.maxend = segment.end
        self.window = segment.window or 1


class _Track:
    """struct nf_conn. For UDP and holes only its end matters."""

    __slots__ = ("back", "expires", "liberal", "out", "replied", "simultaneous", "state")

    def __init__(self, state: State = State.ESTABLISHED) -> None:
        self.state = state
        self.expires = 0.0
        self.replied = self.liberal = self.simultaneous = False
        self.out, self.back = _Seen(), _Seen()


_SYN, _SYNACK, _FIN, _ACK, _RST = range(5)
_S, _2, _R, _E, _W, _C = State
_NEXT: tuple[tuple[dict[State, State | None], ...], ...] = (
    # by direction, segment and state: the next state, None for "ignored"; absent is INVALID
    (  # original direction
        {_S: _S, _2: _2, _R: None, _E: None, _W: None, _C: _S},
        {_2: _R, _R: _R},
        {_R: _W, _E: _W, _W: _W, _C: _C},
        {_R: _E, _E: _E, _W: _W, _C: _C},
        dict.fromkeys(State, _C),
    ),
    (  # reply direction
        {_S: _2, _2: _2},
        {_S: _R, _2: _R, _R: None, _E: None, _W: None, _C: None},
        {_R: _W, _E: _W, _W: _W, _C: _C},
        {_S: None, _2: None, _R: _R, _E: _E, _W: _W, _C: _C},
        dict.fromkeys(State, _C),
    ),
)  # fmt: skip
_LIFE_S = {_S: 120.0, _2: 120.0, _R: 60.0, _E: 432_000.0, _W: 120.0, _C: 10.0}


def _index(segment: Segment) -> int:
    flags = segment.flags
    if flags & RST:
        return _RST
    if flags & SYN:
        return _SYNACK if flags & ACK else _SYN
    return _FIN if flags & FIN else _ACK


def _in_window(track: _Track, sender: _Seen, receiver: _Seen, segment: Segment, *, reply: bool) -> bool | None:
    """tcp_in_window(): True passes, False is INVALID, None passes without leaving a trace."""
    flags, seq, end, window = segment.flags, segment.seq, segment.end, segment.window
    if sender.window == 0:
        sender.begin(segment)
        if flags & (SYN | ACK) == SYN:
            return True
        if not flags & SYN:
            sender.maxend = (end + sender.window) & SEQ_MASK
            if receiver.window == 0:
                receiver.end = receiver.maxend = segment.ack
            elif segment.ack == (receiver.end + 1) & SEQ_MASK:
                receiver.end = segment.ack
    elif flags & SYN and _before(sender.end, end) and track.state in (State.SYN_SENT, State.SYN_RECV):
        sender.begin(segment)
        if reply and not flags & ACK:
            return True
    ack = segment.ack if flags & ACK and not (flags & RST and segment.ack == 0) else receiver.end
    if flags & RST and seq == 0 and track.state is State.SYN_SENT:
        seq = end = sender.end

    in_receive_window = not receiver.window or _before((sender.end - receiver.window - 1) & SEQ_MASK, end)
    if not _before(seq, (sender.maxend + 1) & SEQ_MASK):
        overshot = (end - sender.maxend + 1) & SEQ_MASK
        if in_receive_window and overshot <= receiver.window and _before(ack, (receiver.end + 1) & SEQ_MASK):
            sender.end = end
            return None
        return False
    if not in_receive_window:
        return None
    if not _before(ack, (receiver.end + 1) & SEQ_MASK):
        return False
    if not _before((receiver.end - max(sender.window, 66000) - 1) & SEQ_MASK, ack):
        return None

    sender.window = max(sender.window, window)
    if _before(sender.end, end):
        sender.end = end
    if flags & ACK and (sender.maxack is None or _before(sender.maxack, ack)):
        sender.maxack = ack
    if receiver.window and _before(sender.maxend, end):
        receiver.window += (end - sender.maxend) & SEQ_MASK
    if _before((receiver.maxend - 1) & SEQ_MASK, (ack + window) & SEQ_MASK):
        receiver.maxend = (ack + max(window, 1)) & SEQ_MASK
    return True


def _before(one: int, other: int) -> bool:
    """Sequence number arithmetic modulo 2^32: `one` lies before `other`."""
    return (one - other) & SEQ_MASK > SEQ_MASK >> 1
