"""What edges report and what time does: the only way news reaches the core.
Events report; they never instruct."""

from __future__ import annotations

from enum import IntEnum, IntFlag

import msgspec

from .notification import SecondMessage


class Flags(IntFlag):
    """TCP flags (RFC 9293, section 3.1)."""

    FIN = 0x01
    SYN = 0x02
    RST = 0x04
    PSH = 0x08
    ACK = 0x10


# Plain numbers: an operation on an IntFlag takes 2 µs, and every segment seen is asked several times.
SYN, ACK, RST = int(Flags.SYN), int(Flags.ACK), int(Flags.RST)
SYN_ACK = SYN | ACK


class Signal(IntEnum):
    """What two punchds say to each other on the path itself, without a byte in the stream.

    PRIME opens the own NAT and dies; FIRE is the responder's first segment at full range; ANSWER says that
    FIRE arrived; COMMIT says that ANSWER arrived and that the responder chose this pair.
    On TCP they are bare ACKs with sequence SND.UNA-1, told apart by the window field; on UDP tagged datagrams.
    """

    PRIME = 0
    FIRE = 1
    ANSWER = 2
    COMMIT = 3


# Plain names: to ask an enum's class for a member takes Python 3.11 85 ns, a module 5.
PRIME, FIRE, ANSWER, COMMIT = Signal


class SegmentSeen(msgspec.Struct, frozen=True, gc=False):
    """The ring saw a TCP segment of this pair. `segment` holds its headers as captured."""

    pair: int
    outgoing: bool
    flags: int
    seq: int
    ack: int
    window: int
    ttl: int
    segment: bytes
    mss: int | None = None
    window_scale: int | None = None
    sack_permitted: bool = False
    timestamp: int | None = None
    local_port: int = 0
    remote_port: int = 0


class StraySeen(msgspec.Struct, frozen=True, gc=False):
    """A TCP segment of the peer's address came to this pair's port from another port: some NAT changes ports."""

    pair: int
    port: int
    flags: int
    ttl: int


class SignalSeen(msgspec.Struct, frozen=True, gc=False):
    """The peer's punchd signalled on this pair; the sequence numbers or the tag were right."""

    pair: int
    signal: Signal
    local_port: int = 0
    remote_port: int = 0


class Connected(msgspec.Struct, frozen=True, gc=False):
    """The pair's socket is ESTABLISHED (or was accepted)."""

    pair: int


class KernelHeard(msgspec.Struct, frozen=True, gc=False):
    """The made socket has taken in a segment of the peer's: what the ring saw, no rule of this host's dropped."""

    pair: int


class Readable(msgspec.Struct, frozen=True, gc=False):
    """The pair's established socket has data or a FIN waiting: the peer's application has it."""

    pair: int


class SocketFailed(msgspec.Struct, frozen=True, gc=False):
    """The kernel gave up the pair's socket with this errno."""

    pair: int
    errno: int


class IcmpSeen(msgspec.Struct, frozen=True, gc=False):
    """An ICMP error that quotes a packet of this pair. A time-exceeded may be late: it precedes what may be the end."""

    pair: int
    type: int
    code: int
    sender: str


class PacketRefused(msgspec.Struct, frozen=True, gc=False):
    """The kernel would not send a packet of this pair: EPERM when a rule of this host drops it. The pair goes on."""

    pair: int
    effect: str
    errno: int


class EffectFailed(msgspec.Struct, frozen=True, gc=False):
    """The edge could not do what this pair asked for; `code` is the error code that this comes to."""

    pair: int
    effect: str
    code: str
    cause: str


class Withheld(msgspec.Struct, frozen=True, gc=False):
    """The budget (core/budget.py) refused a burst, and nothing of it was sent; it may have what it takes by then."""

    pair: int
    for_s: float


class Located(msgspec.Struct, frozen=True, gc=False):
    """Before the mapping that gets this port, our NAT makes so many others; below 0: it has been made."""

    pair: int
    known: bool
    least: int = 0
    most: int = 0
    port: int = 0


class Called(msgspec.Struct, frozen=True, gc=False):
    """The peer's second message came: it is ready for this pair, with its NAT at this port; 0: where it was named."""

    pair: int
    port: int = 0


class CallHeard(msgspec.Struct, frozen=True, gc=False):
    """The caller handed in the peer's second message."""

    message: SecondMessage


class Cancelled(msgspec.Struct, frozen=True, gc=False):
    """The caller asked to stop, hung up, or the daemon ends; `code` says which."""

    code: str


class Settled(msgspec.Struct, frozen=True, gc=False):
    """The effects of the first step are performed, and their failures reported."""


class DeadlinePassed(msgspec.Struct, frozen=True, gc=False):
    """The time the machine named in `deadline` has come."""


PairEvent = (
    SegmentSeen
    | StraySeen
    | SignalSeen
    | Connected
    | KernelHeard
    | Readable
    | SocketFailed
    | IcmpSeen
    | PacketRefused
    | EffectFailed
    | Withheld
    | Located
    | Called
)
Event = PairEvent | CallHeard | Cancelled | Settled | DeadlinePassed

WINDOWS = {Signal.FIRE: 20550, Signal.ANSWER: 20545, Signal.COMMIT: 20547, Signal.PRIME: 20560}
"""The window field of each signal on TCP; csrc/punchd.h says the same and a test compares them."""

BY_WINDOW = {window: signal for signal, window in WINDOWS.items()}
