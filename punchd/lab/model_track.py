"""Linux's connection tracking of TCP, modelled: the strictest of the modelled NATs' trackers.
It refuses to know of addresses, ports and time, beyond saying which of its timers runs.

It follows nf_conntrack_proto_tcp.c of Linux 6: its table of transitions (`_NEXT`), its window check (`_in_window`),
and its two rules for a RST. FIN and the closing states are folded into CLOSING, which tracks nothing more: no
technique closes a connection in the middle of punching.
"""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum, IntEnum, auto

from punchd.lab.model_net import FIN, SEQ_MASK, Segment
from punchd.words.events import ACK, RST, SYN


class Fate(Enum):
    """What becomes of a packet and its connection: RESTS passes it and leaves the timer as it was."""

    PASSES = auto()
    RESTS = auto()
    ENDS = auto()
    INVALID = auto()


PASSES, RESTS, ENDS, INVALID = Fate  # by these names: to ask the class for a member takes Python 3.11 85 ns


def begin(segment: Segment, *, loose: bool) -> Track | None:
    """tcp_new(): a SYN, or with `loose` an ACK, which is then checked no more. None is INVALID."""
    index = _index(segment)
    if index == _SYN:
        track = Track(SYN_SENT)
        track.out.begin(segment)
        track.out.maxend = track.out.end
        return track
    if index == _ACK and loose:
        track = Track(ESTABLISHED)
        track.liberal = True
        return track
    return None


def follow(track: Track, segment: Segment, *, reply: bool, liberal: bool) -> Fate:
    """nf_conntrack_tcp_packet(). `reply`: it comes from the side that did not begin."""
    index, state = _index(segment), track.state
    if state not in _NEXT[reply][index]:
        return INVALID
    new = _NEXT[reply][index][state]
    if index == _SYN and state is CLOSE:
        if track.aborted:
            track.reopen(segment)
            track.replied = False
            return PASSES
        new = None
    if new is None and index == _SYNACK and track.ignored is not None and segment.ack == track.ignored.end:
        track.reopen(track.ignored)  # both peers are in step, and only the NAT was not
        state, new = SYN_SENT, SYN_RECV
    if new is None:
        track.aborted, track.ignored = False, segment if index == _SYN else None
        track.replied |= reply
        return RESTS
    sender, receiver = (track.back, track.out) if reply else (track.out, track.back)
    if new is SYN_SENT2:
        track.simultaneous = True
    elif new is SYN_RECV and reply and index == _ACK and track.simultaneous:
        new = ESTABLISHED
    liberal = track.liberal or liberal
    if index == _RST and receiver.maxack is not None:
        answers_syn = segment.seq == 0 and state is not ESTABLISHED
        if _before(segment.seq, receiver.maxack) and not answers_syn:
            return INVALID
        if state is ESTABLISHED and segment.seq != receiver.maxack:
            new = state  # the peer may still challenge it
    if not track.liberal:
        passes = _in_window(track, sender, receiver, segment, reply=reply)
        if passes is None and not liberal:
            track.replied |= reply
            return RESTS
        if not passes and not liberal:
            return INVALID
    track.state = new
    track.aborted, track.ignored = index == _RST and not reply, None
    if index == _RST and not track.replied:
        return ENDS  # nobody had ever answered
    track.replied |= reply
    return RESTS if new is SYN_SENT else PASSES  # a repeated SYN does not make it live longer


class State(IntEnum):
    """enum tcp_conntrack, the closing half folded into one."""

    SYN_SENT = auto()
    SYN_SENT2 = auto()
    SYN_RECV = auto()
    ESTABLISHED = auto()
    CLOSING = auto()
    CLOSE = auto()


SYN_SENT, SYN_SENT2, SYN_RECV, ESTABLISHED, CLOSING, CLOSE = State


class Seen:
    """struct ip_ct_tcp_state: what one direction has sent. Window 0 means nothing yet."""

    __slots__ = ("end", "maxack", "maxend", "window")

    def __init__(self) -> None:
        self.end = self.maxend = self.window = 0
        self.maxack: int | None = None

    def begin(self, segment: Segment) -> None:
        self.end = self.maxend = segment.end
        self.window = segment.window or 1


class Track:
    """struct nf_conn. `out` is the direction that began it.

    `aborted`: its last segment was a RST of that side. `ignored`: was a SYN that passed without a trace.
    """

    __slots__ = ("aborted", "back", "ignored", "liberal", "out", "replied", "simultaneous", "state")

    def __init__(self, state: State) -> None:
        self.state = state
        self.aborted = self.replied = self.liberal = self.simultaneous = False
        self.ignored: Segment | None = None
        self.out, self.back = Seen(), Seen()

    def memory(self) -> Hashable:
        """All that it knows; two tracks that know the same decide the same."""
        ignored = (self.ignored.seq, self.ignored.end, self.ignored.window) if self.ignored else None
        directions = tuple((one.end, one.maxend, one.window, one.maxack) for one in (self.out, self.back))
        return self.state, self.aborted, self.replied, self.liberal, self.simultaneous, ignored, directions

    def reopen(self, syn: Segment) -> None:
        """From here on it is the connection that this SYN began."""
        self.state = SYN_SENT
        self.aborted = self.liberal = self.simultaneous = False
        self.ignored = None
        self.out, self.back = Seen(), Seen()
        self.out.begin(syn)


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


def _index(segment: Segment) -> int:
    flags = segment.flags
    if flags & RST:
        return _RST
    if flags & SYN:
        return _SYNACK if flags & ACK else _SYN
    return _FIN if flags & FIN else _ACK


def _in_window(track: Track, sender: Seen, receiver: Seen, segment: Segment, *, reply: bool) -> bool | None:
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
    elif flags & SYN and _before(sender.end, end) and track.state in (SYN_SENT, SYN_RECV):
        sender.begin(segment)
        if reply and not flags & ACK:
            return True
    ack = segment.ack if flags & ACK and not (flags & RST and segment.ack == 0) else receiver.end
    if flags & RST and seq == 0 and track.state is SYN_SENT:
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
